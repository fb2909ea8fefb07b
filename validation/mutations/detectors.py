"""Mutates mapped programs and asks every detector, by itself, whether it notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from accelsim.engine.bind import bind
from accelsim.engine.merge import run
from accelsim.errors import AccelsimError
from accelsim.functional.check import check
from accelsim.program.mutate import MUTATIONS, Mutant, mutate
from accelsim.program.table import Program
from accelsim.program.verify import violations

from .harmless import Original
from .programs import Case

# What a detector says of a program: "" for nothing wrong.
Detector = Callable[[Case, Program], str]

REFUSED = "refused: "  # it could not be run at all
# Ordinary values, small ones that show a forgotten epsilon, large ones that overflow exponentials.
SCALES = (1.0, 2.0**-6, 2.0**4)


def by_verifier(_case: Case, program: Program) -> str:
    """The first rule that the static verifier finds broken."""
    found = violations(program, limit=1)
    return str(found[0]) if found else ""


def by_clock(case: Case, program: Program) -> str:
    """The first wrong element when executed as the engine schedules it."""
    try:
        schedule = run(bind(program, case.arch).timed)
        verdict = check(case.arch, case.graph, program, schedule)
    except AccelsimError as fault:
        return f"{REFUSED}{fault}"
    return "" if verdict.ok else str(verdict.first)


def by_numbers(case: Case, program: Program) -> str:
    """The first wrong element when executed in program order, on values of several sizes."""
    for scale in SCALES if case.has_floats else SCALES[:1]:
        try:
            verdict = check(case.arch, case.graph, program, scale=scale)
        except AccelsimError as fault:
            return f"{REFUSED}{fault}"
        if not verdict.ok:
            return str(verdict.first)
    return ""


DETECTORS: dict[str, Detector] = {
    "verifier": by_verifier,
    "clock order": by_clock,
    "numbers": by_numbers,
}


@dataclass
class Share:
    """Mutants of one class.

    ``caught`` counts those that a detector notices, ``refused`` those of them that it could not
    execute at all. Nobody notices the others: ``harmless`` ones are proven to compute the same, by
    reason; ``missed`` says what was done in the rest.
    """

    mutants: int = 0
    caught: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    @property
    def harmful(self) -> int:
        """Mutants that must be caught."""
        return self.mutants - self.harmless.total()

    def of(self, detector: str) -> float:
        """Part of the harmful mutants that a detector catches by itself."""
        return self.caught[detector] / max(1, self.harmful)


def study(
    cases: Iterable[Case],
    rng: Random,
    per_class: int,
    detectors: Mapping[str, Detector] = DETECTORS,
) -> dict[str, Share]:
    """Mutate every program ``per_class`` times per class and ask the detectors."""
    shares = {name: Share() for name in MUTATIONS}
    for case in cases:
        original = Original(case)
        for name, share in shares.items():
            for _ in range(per_class):
                _ask(share, original, mutate(case.program, rng, name), detectors)
    return shares


def _ask(
    share: Share, original: Original, mutant: Mutant, detectors: Mapping[str, Detector]
) -> None:
    case = original.case
    said = {name: detect(case, mutant.program) for name, detect in detectors.items()}
    share.mutants += 1
    share.caught.update(name for name, text in said.items() if text)
    share.refused.update(name for name, text in said.items() if text.startswith(REFUSED))
    if any(said.values()):
        return
    reason = original.equals(mutant.program)
    if reason:
        share.harmless[reason] += 1
    else:
        share.missed.append(f"{case.name}: {mutant.what}")


def table(shares: Mapping[str, Share], detectors: Iterable[str] = DETECTORS) -> str:
    """The shares as text, and what was missed."""
    names = list(detectors)
    lines = [f"{'class':20}{'mutants':>8}{'harmless':>9}" + "".join(f"{n:>20}" for n in names)]
    for kind, share in shares.items():
        cells = (f"{share.of(n):.0%} ({share.refused[n]} refused)" for n in names)
        text = "".join(f"{cell:>20}" for cell in cells)
        lines.append(f"{kind:20}{share.mutants:8}{share.harmless.total():9}{text}")
        lines += [f"    {count} harmless: {why}" for why, count in share.harmless.items()]
        lines += [f"    missed: {what}" for what in share.missed]
    return "\n".join(lines)
