"""Whether a mutant that nobody notices computes what the original does, in every legal order."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from accelsim.functional.check import load_image
from accelsim.functional.coded import coded_weights
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.program.table import COLUMN, DEPENDENCIES, Program

from .hazards import ordered, races
from .programs import Case

# Values that no detector has seen, and further apart in size.
SEED = 1
SCALES = (1.0, 2.0**-10, 2.0**6)

Bits = list[dict[tuple[str, str], bytes]]


class Original:
    """The program that mutants are compared with."""

    def __init__(self, case: Case) -> None:
        self.case = case

    @cached_property
    def bits(self) -> Bits:
        """What it computes."""
        return _bits(self.case, self.case.program)

    def equals(self, mutant: Program) -> str:
        """Why a mutant computes the same bits in every legal order; "" if it may not.

        Without races all legal orders compute what program order computes, and that is compared.
        """
        if races(mutant) or _bits(self.case, mutant) != self.bits:
            return ""
        return _reason(self.case.program, mutant)


def _reason(program: Program, mutant: Program) -> str:
    """What made no difference."""
    other = mutant.instructions != program.instructions
    if not other.any():
        return "nobody else needs those bytes"
    waits = slice(COLUMN["dep0"], COLUMN["dep0"] + DEPENDENCIES)
    if np.delete(other, waits, axis=1).any():
        return "same bits"
    pairs = zip(ordered(program), ordered(mutant), strict=True)
    lost = any((was & ~now).any() for was, now in pairs)
    return "nothing needs that order" if lost else "other waits imply that order"


def _bits(case: Case, program: Program) -> Bits:
    """Every operator's output, executed in program order."""
    blocks = [case.arch.units[slot.unit] for slot in program.units]
    found = []
    for scale in SCALES if case.has_floats else SCALES[:1]:
        memory = Memory(program)
        values = graph_values(case.graph, SEED, scale=scale)
        load_image(program, memory, values, coded_weights(case.graph, values))
        captures = execute(program, blocks, memory)
        found.append({key: values.tobytes() for key, values in captures.tensors.items()})
    return found
