"""Claims and their evidence: published or measured truth beside what the simulator says.

A claim is a package below ``accelsim.validation`` that defines ``CLAIM`` and ``rows()``; its data
lie beside it, with source and licence. ``accelsim validate`` runs them and fails if one fails.
"""

from __future__ import annotations

import csv
import importlib
import math
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Protocol, cast

from accelsim.errors import AccelsimError

PACKAGE = "accelsim.validation"
TOOLS = frozenset({"gpu"})
"""Packages there that make no claim: they record what claims are compared with."""


@dataclass(frozen=True)
class Claim:
    """What is claimed: a statement, where its truth comes from, and the tolerance of its error.

    ``tolerance`` is relative; 0 means equal. Every row must keep it, or, where ``mean_of`` names a
    split, the mean absolute error over that split's rows: how models of silicon are judged.
    """

    name: str
    statement: str
    source: str
    tolerance: float
    mean_of: str = ""


@dataclass(frozen=True)
class Row:
    """One case of a claim: expected beside measured, and the relative error.

    ``split`` says what the case was for, e.g. "fit" (a constant was calibrated on it) or "test";
    ``others`` holds what other models published for it. Rows of a split "missed" ("...: missed")
    are published figures that the claim says it does not meet: counted, and no failure. Those of
    a split "shown: ..." are told beside them, and not judged.
    """

    case: str
    expected: float
    measured: float
    ok: bool = True
    split: str = ""
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def missed(self) -> bool:
        """Whether it is a published figure that the claim says it does not meet."""
        return self.split.split(": ")[-1] == "missed"

    @property
    def shown(self) -> bool:
        """Whether it is told, and not judged."""
        return self.split.split(": ")[0] == "shown"

    @property
    def word(self) -> str:
        """Its verdict: a row that is not judged is never "ok"."""
        if not self.ok:
            return "FAILED"
        return "missed" if self.missed else "shown" if self.shown else "ok"

    @property
    def error(self) -> float:
        """Relative error; infinite if something was measured where nothing was expected."""
        if self.expected == self.measured:
            return 0.0
        return self.measured / self.expected - 1 if self.expected else float("inf")


def mean_error(rows: Sequence[Row], split: str = "") -> float:
    """Mean absolute relative error over the rows of a split ("": all); nan if there are none."""
    errors = [abs(row.error) for row in rows if split in ("", row.split)]
    return sum(errors) / len(errors) if errors else math.nan


def holds(claim: Claim, rows: Sequence[Row]) -> bool:
    """Whether there is evidence and none of it contradicts the claim."""
    if not rows or not all(row.ok for row in rows):
        return False
    # A mean over no rows is not a number, and below no tolerance.
    return not claim.mean_of or mean_error(rows, claim.mean_of) <= claim.tolerance


class Evidence(Protocol):
    """What a package of ``accelsim.validation`` offers; if it also has a ``figure()``, the page of
    evidence shows that one, not a scatter plot of its rows. One whose truth nobody has recorded yet
    has an ``outstanding()``, which says how to record it ("" once it is there)."""

    CLAIM: Claim

    def rows(self) -> Iterator[Row]:
        """Run the cases, one row each."""


def claim_names() -> list[str]:
    """Names of all claims, sorted."""
    package = importlib.import_module(PACKAGE)
    return sorted(
        m.name.replace("_", "-")
        for m in pkgutil.iter_modules(package.__path__)
        if m.ispkg and m.name not in TOOLS
    )


def evidence(name: str) -> Evidence:
    """The claim called ``name``; raises AccelsimError naming the known ones."""
    if name not in claim_names():
        raise AccelsimError(f"unknown claim {name!r}; known claims: {', '.join(claim_names())}")
    return cast(Evidence, importlib.import_module(f"{PACKAGE}.{name.replace('-', '_')}"))


def within(case: str, expected: float, measured: float, tolerance: float) -> Row:
    """A row that is good if the relative error stays inside the tolerance."""
    return Row(case, expected, measured, abs(measured - expected) <= tolerance * abs(expected))


def truth(package: str, file: str) -> list[dict[str, str]]:
    """Rows of a CSV beside a claim; lines that begin with # say where it comes from."""
    text = (files(package) / file).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
