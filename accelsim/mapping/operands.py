"""Operands of matrix products in main memory, as they are brought on chip window by window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

from accelsim.numerics.formats import Format
from accelsim.program.builder import Builder
from accelsim.program.storage import View


class Operand(Protocol):
    """A matrix in main memory that can be brought on chip window by window."""

    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def fmt(self) -> Format: ...

    def fetch(
        self, build: Builder, queue: int, dst: View, rows: slice, cols: slice, *, part: bool = False
    ) -> None:
        """Load the window [rows, cols] into ``dst``; ``part``: others fill the rest of dst."""

    def fetches(self, rows: int, cols: int) -> int:
        """Instructions that a window of [rows, cols] takes, about."""


@dataclass(frozen=True)
class Stored:
    """An operand that lies in memory as a 2-D window."""

    view: View

    @property
    def rows(self) -> int:
        return self.view.rows

    @property
    def cols(self) -> int:
        return self.view.cols

    @property
    def fmt(self) -> Format:
        return self.view.fmt

    def fetch(
        self, build: Builder, queue: int, dst: View, rows: slice, cols: slice, *, part: bool = False
    ) -> None:
        build.load(queue, dst, self.view[rows, cols], part=part)

    def fetches(self, rows: int, cols: int) -> int:
        return 1


class Second(Protocol):
    """A second operand stored as [n, k] that is no single window of main memory."""

    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def fmt(self) -> Format: ...

    def __getitem__(self, window: tuple[slice, slice]) -> Second: ...

    def fetch(self, build: Builder, queue: int, dst: View) -> None:
        """Load all of it into ``dst``."""


@dataclass(frozen=True)
class Window:
    """A window of a second operand that is put together from what is ``stored``."""

    stored: View
    window: tuple[slice, slice]

    @property
    def rows(self) -> int:
        return int(self.window[0].stop - self.window[0].start)

    @property
    def cols(self) -> int:
        return int(self.window[1].stop - self.window[1].start)

    @property
    def fmt(self) -> Format:
        return self.stored.fmt

    def __getitem__(self, window: tuple[slice, slice]) -> Self:
        rows, cols = (
            slice(outer.start + one.indices(size)[0], outer.start + one.indices(size)[1])
            for outer, one, size in zip(self.window, window, (self.rows, self.cols), strict=True)
        )
        return replace(self, window=(rows, cols))


@dataclass(frozen=True)
class Part:
    """Some rows or columns of another operand: what a part does not change is that of the whole."""

    whole: Operand

    @property
    def rows(self) -> int:
        return self.whole.rows

    @property
    def cols(self) -> int:
        return self.whole.cols

    @property
    def fmt(self) -> Format:
        return self.whole.fmt


@dataclass(frozen=True)
class Rows(Part):
    """Some rows of another operand."""

    window: slice

    @property
    def rows(self) -> int:
        return int(self.window.stop - self.window.start)

    def fetch(
        self, build: Builder, queue: int, dst: View, rows: slice, cols: slice, *, part: bool = False
    ) -> None:
        first = self.window.start
        self.whole.fetch(
            build, queue, dst, slice(rows.start + first, rows.stop + first), cols, part=part
        )

    def fetches(self, rows: int, cols: int) -> int:
        return self.whole.fetches(rows, cols)


@dataclass(frozen=True)
class Cols(Part):
    """Some columns of another operand."""

    window: slice

    @property
    def cols(self) -> int:
        return int(self.window.stop - self.window.start)

    def fetch(
        self, build: Builder, queue: int, dst: View, rows: slice, cols: slice, *, part: bool = False
    ) -> None:
        first = self.window.start
        self.whole.fetch(
            build, queue, dst, rows, slice(cols.start + first, cols.stop + first), part=part
        )

    def fetches(self, rows: int, cols: int) -> int:
        return self.whole.fetches(rows, cols)
