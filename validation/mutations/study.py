"""Mutates mapped programs and asks every detector, by itself, whether it notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

import numpy as np

from accelsim.engine.bind import bind
from accelsim.engine.merge import run
from accelsim.errors import AccelsimError
from accelsim.functional.check import check, load_image
from accelsim.functional.execute import Captures, execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.program.mutate import MUTATIONS, Mutant, mutate
from accelsim.program.table import COLUMN, Program
from accelsim.program.verify import violations

from .cases import Case
from .hazards import ordered, races

# What a detector says of a program: "" for nothing wrong.
Detector = Callable[[Case, Program], str]

REFUSED = "refused: "  # it could not be run at all
PROOF_SEED = 1  # values that no detector has seen


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
    """The first wrong element when executed in program order."""
    try:
        verdict = check(case.arch, case.graph, program)
    except AccelsimError as fault:
        return f"{REFUSED}{fault}"
    return "" if verdict.ok else str(verdict.first)


DETECTORS: dict[str, Detector] = {
    "verifier": by_verifier,
    "clock order": by_clock,
    "numbers": by_numbers,
}


@dataclass
class Share:
    """Mutants of one class.

    ``caught`` counts those that a detector notices, ``refused`` those of them that could not be
    executed at all, ``caught_by_any`` those that at least one notices. Nobody notices the others:
    ``harmless`` are proven to compute the same bits in every legal order, by reason; ``missed``
    says what was done in the rest.
    """

    mutants: int = 0
    caught: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    caught_by_any: int = 0
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
        original: Captures | None = None
        for name, share in shares.items():
            for _ in range(per_class):
                mutant = mutate(case.program, rng, name)
                if not _ask(share, case, mutant, detectors):
                    original = original or _bits(case, case.program)
                    _classify(share, case, mutant, original)
    return shares


def _ask(share: Share, case: Case, mutant: Mutant, detectors: Mapping[str, Detector]) -> bool:
    """Whether any detector notices."""
    share.mutants += 1
    said = {name: detect(case, mutant.program) for name, detect in detectors.items()}
    share.caught.update(name for name, text in said.items() if text)
    share.refused.update(name for name, text in said.items() if text.startswith(REFUSED))
    share.caught_by_any += any(said.values())
    return any(said.values())


def _classify(share: Share, case: Case, mutant: Mutant, original: Captures) -> None:
    reason = harmless(case, mutant.program, original)
    if reason:
        share.harmless[reason] += 1
    else:
        share.missed.append(f"{case.name}: {mutant.what}")


def harmless(case: Case, program: Program, original: Captures) -> str:
    """Why a mutant computes what the original does in every legal order; "" if it may not.

    Without races all legal orders compute what program order does, and that is compared bit by
    bit, on values that the detectors have not seen.
    """
    if races(program):
        return ""
    tensors = _bits(case, program).tensors
    if tensors.keys() != original.tensors.keys():
        return ""
    if any(tensors[key].tobytes() != original.tensors[key].tobytes() for key in tensors):
        return ""
    return _reason(case.program, program)


def _reason(original: Program, mutant: Program) -> str:
    other = mutant.instructions != original.instructions
    first = COLUMN["dep0"]
    only_waits = other.any() and not np.delete(other, range(first, first + 3), axis=1).any()
    if not only_waits:
        return "same bits"
    lost = any(
        (was & ~now).any() for was, now in zip(ordered(original), ordered(mutant), strict=True)
    )
    return "nothing needs that order" if lost else "other waits imply it"


def _bits(case: Case, program: Program) -> Captures:
    """Every operator's output in program order."""
    blocks = [case.arch.units[slot.unit] for slot in program.units]
    memory = Memory(program)
    load_image(program, memory, graph_values(case.graph, PROOF_SEED))
    return execute(program, blocks, memory)
