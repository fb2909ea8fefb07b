"""How many mutants of small programs the verifier refuses, class by class.

A mutant may be harmless (a dropped wait that others imply): ``program_oracle`` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from program_oracle import judge

from accelsim.program.mutate import MUTATIONS, mutate
from accelsim.program.table import Program
from accelsim.program.verify import Violation, violations


@dataclass
class Share:
    """Mutants of one class: ``harmless`` ones compute the same and must pass.

    ``caught`` of the others are refused by the verifier; ``legal`` ones break no rule and compute
    something else, which only numbers can show. ``missed`` and ``false_alarms`` are its errors.
    """

    mutants: int = 0
    harmless: int = 0
    caught: int = 0
    legal: int = 0
    missed: int = 0
    false_alarms: int = 0

    @property
    def share(self) -> float:
        """Caught part of the mutants that matter."""
        return self.caught / max(1, self.mutants - self.harmless)


def study(
    programs: Iterable[Program],
    rng: Random,
    per_class: int,
    check: Callable[[Program], list[Violation]] = violations,
) -> dict[str, Share]:
    """Mutate every program ``per_class`` times per class and see what ``check`` says."""
    shares = {name: Share() for name in MUTATIONS}
    for program in programs:
        meaning = judge(program).meaning
        for name, share in shares.items():
            for _ in range(per_class):
                mutant, _, _ = mutate(program, rng, name)
                _count(share, mutant, meaning, bool(check(mutant)))
    return shares


def _count(share: Share, mutant: Program, meaning: str, refused: bool) -> None:
    truth = judge(mutant)
    share.mutants += 1
    if not truth.legal:
        share.caught += refused
        share.missed += not refused
        return
    same = truth.meaning == meaning
    share.harmless += same
    share.legal += not same
    share.false_alarms += refused


def table(shares: dict[str, Share]) -> str:
    """The shares as text."""
    head = f"{'class':20} mutants harmless caught legal missed false share"
    lines = [
        f"{name:20} {s.mutants:7} {s.harmless:8} {s.caught:6} {s.legal:5} {s.missed:6}"
        f" {s.false_alarms:5} {s.share:5.1%}"
        for name, s in shares.items()
    ]
    return "\n".join([head, *lines])
