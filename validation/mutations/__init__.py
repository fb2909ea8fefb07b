"""Mistakes made on purpose in mapped programs are noticed: by rules, by the clock, by numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator

from accelsim.results.claims import Claim, Row

from .detectors import DETECTORS, Share, study
from .programs import cases

CLAIM = Claim(
    name="mutations",
    statement="harmful mutants of mapped programs that nothing notices (verifier, clock, numbers)",
    source="each survivor is proven harmless: no race, and the same bits on unseen values",
    tolerance=0.0,
)

PER_CLASS = 3  # of each program


def rows() -> Iterator[Row]:
    """One row per class of mistake; the case says what each detector catches by itself."""
    shares = study(cases(), random.Random(2026), PER_CLASS)
    for kind, share in shares.items():
        missed = len(share.missed)
        yield Row(_case(kind, share), 0, missed, missed == 0)


def _case(kind: str, share: Share) -> str:
    alone = ", ".join(f"{name} {100 * share.of(name):.0f} %" for name in DETECTORS)
    harmless = share.harmless.total()
    return f"{kind}: {share.mutants} mutants, {harmless} harmless; the others: {alone}"
