"""A claim beside what was found: whether it holds, and the errors of its rows, split by split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.results.claims import Claim, Evidence, Row, holds, mean_error

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class SplitErrors:
    """Relative errors of the rows of one split; ``worst_case`` is the row that is most wrong."""

    split: str
    rows: tuple[Row, ...]
    mean: float
    worst: float
    worst_case: str

    @classmethod
    def of(cls, split: str, rows: tuple[Row, ...]) -> SplitErrors:
        worst = max(rows, key=lambda row: abs(row.error))
        name = worst.case if worst.error else ""
        return cls(split, rows, mean_error(rows), abs(worst.error), name)


@dataclass(frozen=True)
class Verdict:
    """One claim and its rows; ``problem`` says why rows are missing, if some are. ``draw`` gives
    the claim's own figure, if it has one. ``outstanding`` says what would have to be done for there
    to be evidence, where nobody has done it yet: then the claim neither holds nor fails."""

    claim: Claim
    rows: tuple[Row, ...]
    problem: str = ""
    draw: Callable[[], Figure] | None = None
    outstanding: str = ""

    @property
    def fails(self) -> bool:
        """Whether its evidence contradicts the claim, or is missing without a reason."""
        return not self.ok and not self.outstanding

    @property
    def word(self) -> str:
        """The verdict in a word; "partly" with the number of published figures that are not met,
        where what is judged holds."""
        if not self.ok:
            return "outstanding" if self.outstanding else "FAILED"
        return f"partly, {self.missed} missed" if self.missed else "ok"

    @property
    def missed(self) -> int:
        """Rows of published figures that the claim says it does not meet."""
        return sum(row.missed for row in self.rows)

    @property
    def ok(self) -> bool:
        """Whether there is evidence and none of it contradicts the claim."""
        return not self.problem and holds(self.claim, self.rows)

    @property
    def worst(self) -> float:
        """Largest absolute relative error of its judged rows."""
        judged = (row for row in self.rows if not (row.missed or row.shown))
        return max((abs(row.error) for row in judged), default=math.nan)

    @property
    def worst_missed(self) -> float:
        """Largest absolute relative error of the published figures that it does not meet."""
        return max((abs(row.error) for row in self.rows if row.missed), default=0.0)

    @property
    def mean(self) -> float:
        """Mean absolute relative error of the rows that the claim is judged by."""
        return mean_error(self.rows, self.claim.mean_of)

    def splits(self) -> Iterator[SplitErrors]:
        """The errors of each split, in the order of the rows."""
        for split in dict.fromkeys(row.split for row in self.rows):
            yield SplitErrors.of(split, tuple(row for row in self.rows if row.split == split))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [{**row.__dict__, "error": row.error, "verdict": row.word} for row in self.rows]
        verdict = {
            "ok": self.ok, "problem": self.problem, "outstanding": self.outstanding,
            "mean_error": self.mean, "missed": self.missed, "verdict": self.word,
            "worst_error": self.worst, "worst_missed_error": self.worst_missed,
        }  # fmt: skip
        splits = {
            one.split: {"cases": len(one.rows), "mean_error": one.mean, "worst_error": one.worst}
            for one in self.splits()
        }
        return {**self.claim.__dict__, **verdict, "splits": splits, "rows": rows}


def judge(evidence: Evidence) -> Verdict:
    """Run the cases of a claim; a fault in one ends them."""
    rows: list[Row] = []
    missing = getattr(evidence, "outstanding", None)
    try:
        if reason := missing() if missing is not None else "":
            return Verdict(evidence.CLAIM, (), outstanding=reason)
        rows.extend(evidence.rows())
    except AccelsimError as fault:
        return Verdict(evidence.CLAIM, tuple(rows), str(fault))
    return Verdict(evidence.CLAIM, tuple(rows), draw=getattr(evidence, "figure", None))
