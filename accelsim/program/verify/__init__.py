"""The static verifier: what can be said about a tile program before anything runs.

It looks only at units, dependencies and byte addresses, never at how the program was built:

    structure   every index, operand and shape means something
    bounds      every window lies in its storage, every storage in its memory
    layout      every window of a packed tensor lies in one of its panels, and is one of the tiles
                of a coded one
    coverage    every element that an operator produces is written exactly once, by it
    hazards     every read comes after the write it needs and before the overwrite
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelsim.program.verify.coded import coded_violations
from accelsim.program.verify.coverage import coverage_violations
from accelsim.program.verify.extents import Extents, storage_violations
from accelsim.program.verify.hazards import hazard_violations
from accelsim.program.verify.layouts import layout_violations
from accelsim.program.verify.multicasts import multicast_violations
from accelsim.program.verify.structure import judge, structure_violations
from accelsim.program.verify.violation import VerificationError, Violation

if TYPE_CHECKING:
    from accelsim.program.table import Program

__all__ = ["VerificationError", "Violation", "verify", "violations"]


def verify(program: Program) -> None:
    """Raise VerificationError, naming operator, instruction and storage, if a rule is broken."""
    found = violations(program, limit=1)
    if found:
        raise VerificationError(str(found[0]))


def violations(program: Program, limit: int = 100) -> list[Violation]:
    """Up to ``limit`` broken rules of each kind of check, in program order.

    Coverage and hazards are looked at only where structure and bounds are sound.
    """
    extents = Extents.of(program)
    found = storage_violations(program, extents, limit)
    if found:
        return found
    verdicts = judge(program, extents)
    found = (
        structure_violations(program, verdicts, limit)
        or layout_violations(program, limit)
        or coded_violations(program, limit)
        or multicast_violations(program, limit)
    )
    if found:
        return found
    cells = extents.cells(program, verdicts)
    found = coverage_violations(program, extents, cells, limit)
    if len(found) < limit:
        found += hazard_violations(program, extents, cells, verdicts, limit - len(found))
    return found
