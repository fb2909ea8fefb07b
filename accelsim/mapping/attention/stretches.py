"""Matrices of score rows, ordered (sequence, head, query), whose sequences have different numbers
of columns: without gaps, one matrix for each stretch of neighbouring rows of one width."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby

from accelsim.mapping.lowering import Lowering
from accelsim.numerics.formats import Format
from accelsim.program.storage import View


@dataclass(frozen=True)
class Stretches:
    """Rows as ``views`` hold them, one behind the other."""

    views: tuple[View, ...]

    @classmethod
    def scratch(
        cls, low: Lowering, name: str, widths: Sequence[int], height: int, fmt: Format
    ) -> Stretches:
        """Room in main memory for ``height`` rows of each of the widths."""
        runs = [(width, height * len(list(same))) for width, same in groupby(widths)]
        names = [name] if len(runs) == 1 else [f"{name}.{i}" for i in range(len(runs))]
        return cls(
            tuple(
                low.scratch(label, rows, width, fmt)
                for label, (width, rows) in zip(names, runs, strict=True)
            )
        )

    @cached_property
    def _tops(self) -> list[int]:
        """The first row of each view, and the row behind the last."""
        return list(accumulate((view.rows for view in self.views), initial=0))

    @property
    def rows(self) -> int:
        """Rows of all."""
        return self._tops[-1]

    @property
    def cols(self) -> int:
        """Columns of the widest."""
        return max(view.cols for view in self.views)

    @property
    def fmt(self) -> Format:
        """Format of the elements."""
        return self.views[0].fmt

    def of(self, rows: slice) -> View:
        """These rows, which lie in one view."""
        i = bisect_right(self._tops, rows.start) - 1
        top = self._tops[i]
        return self.views[i][rows.start - top : rows.stop - top, :]

    def __iter__(self) -> Iterator[tuple[slice, View]]:
        """Every view with the rows that it holds."""
        for top, view in zip(self._tops, self.views, strict=False):
            yield slice(top, top + view.rows), view
