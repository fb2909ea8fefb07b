"""Hazards: reads wait for writers, overwrites come after everything they overwrite.

Two passes of one kernel. The first keeps the cells of each storage apart and judges storages that
share addresses by the latest accesses of whole storages; that accepts what mappers build. Only
where it cannot decide, the second cuts such storages together, which is exact to the byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accelsim.program.opcodes import ISSUED, Flag, Opcode
from accelsim.program.table import COLUMN
from accelsim.program.verify.violation import Violation, at_instruction, instruction_text

if TYPE_CHECKING:
    from accelsim.program.table import Ints, Program
    from accelsim.program.verify.cells import Cells
    from accelsim.program.verify.extents import Extents

# Readers remembered per cell before the first pass gives up.
READERS_PER_CELL = 8

NEVER_WRITTEN, OVERWRITTEN, READ_EARLY, OVERTAKES_READ = 1, 2, 3, 4


def hazard_violations(
    program: Program, extents: Extents, cells: Cells, verdicts: Ints, limit: int
) -> list[Violation]:
    """Reads and writes that nothing keeps apart. ``cells`` are cut storage by storage."""
    keep = min(len(program.units), READERS_PER_CELL)
    if len(_scan(program, cells, keep, extents.segments, extents.n_segments, 1)) == 0:
        return []
    exact = extents.cells(program, verdicts, exact=True)
    apart = np.zeros_like(extents.segments)
    # One reader per unit, and where issues are waited for, one that reads late.
    everybody = len(program.units) * (2 if _waits_for_issue(program) else 1)
    found = _scan(program, exact, everybody, apart, 0, limit)
    return [_worded(program, *map(int, row)) for row in found]


def _scan(
    program: Program, cells: Cells, keep: int, segments: Ints, n_segments: int, limit: int
) -> Ints:
    from accelsim.program.verify.hazard_kernels import scan

    found = np.empty((limit, 4), dtype=np.int64)
    count = scan(
        program.instructions,
        program.operands,
        len(program.units),
        int(Opcode.MATMUL),
        int(Opcode.PIM),
        int(Flag.ACCUMULATE),
        int(Flag.FORWARD),
        int(Flag.ISSUED0) if _waits_for_issue(program) else 0,
        cells.first,
        cells.rectangles,
        cells.owner.copy(),
        keep,
        segments,
        n_segments,
        found,
    )
    return found[:count]


def _waits_for_issue(program: Program) -> bool:
    return bool((program.column("flags") & sum(ISSUED)).any())


def _worded(program: Program, what: int, i: int, slot: int, other: int) -> Violation:
    from accelsim.program.listing import operand_text

    row = program.instructions[i]
    d = int(row[COLUMN["dst"] + slot])
    info = program.storages[program.operands[d, 0]]
    window = operand_text(program, d)
    name = instruction_text(program, other) if other >= 0 else ""
    if what == NEVER_WRITTEN or (what == OVERWRITTEN and other < 0):
        kind, problem = "unwritten", f"reads {window}, part of which nothing has written"
    elif what == OVERWRITTEN:
        written = program.operands[program.instructions[other, COLUMN["dst"]], 0]
        holder = program.storages[written].name
        kind = "unwritten"
        problem = f"reads {window}, whose bytes {name} has overwritten with {holder}"
    elif what == READ_EARLY:
        kind = "read-after-write"
        problem = f"reads {window} without waiting for {name}, which writes it"
        if program.instructions[other, 0] == row[0]:
            problem += " (a unit may start before its previous result has left it)"
    elif what == OVERTAKES_READ:
        kind = "write-after-read"
        problem = f"writes {window} without waiting for {name}, which still reads those bytes"
    else:
        kind = "write-after-write"
        problem = f"writes {window} without waiting for {name}, which writes those bytes before"
    return at_instruction(program, kind, i, problem, info.name, other)
