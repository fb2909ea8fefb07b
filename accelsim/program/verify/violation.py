"""A broken rule, and how its place in a program is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.program.table import COLUMN

if TYPE_CHECKING:
    from accelsim.program.table import Program


class VerificationError(AccelsimError):
    """A program breaks a rule of the tile program; the message says where."""


@dataclass(frozen=True)
class Violation:
    """One broken rule. ``kind`` is one of KINDS; ``instruction`` and ``other`` are -1 for none.

    ``str()`` is one line that names the operator, the instruction and the storage.
    """

    kind: str
    message: str
    instruction: int = -1
    operator: str = ""
    storage: str = ""
    other: int = -1

    def __str__(self) -> str:
        return self.message


KINDS = (
    "structure",  # an index, operand, shape or format that means nothing
    "bounds",  # outside of a storage or of a memory
    "layout",  # a window across the panels of a packed tensor
    "coverage",  # a produced element that is not written exactly once by its operator
    "unwritten",  # a read of bytes that nothing wrote, or that now belong to another storage
    "read-after-write",  # a read that does not wait for its writer
    "write-after-read",  # an overwrite that does not wait for a reader
    "write-after-write",  # an overwrite that does not wait for an earlier writer
)


def instruction_text(program: Program, i: int) -> str:
    """An instruction in a message: ``instruction 12 (mxu0 MATMUL)``."""
    from accelsim.program.listing import mnemonic

    unit = int(program.instructions[i, COLUMN["unit"]])
    known = 0 <= unit < len(program.units)
    name = program.units[unit].name if known else f"unit {unit}"
    return f"instruction {i} ({name} {mnemonic(program, i)})"


def operator_name(program: Program, i: int) -> str:
    """Name of the operator that an instruction belongs to, '' for none."""
    operator = int(program.instructions[i, COLUMN["operator"]])
    return program.operators[operator].name if 0 <= operator < len(program.operators) else ""


def at_instruction(
    program: Program, kind: str, i: int, problem: str, storage: str = "", other: int = -1
) -> Violation:
    """A violation by instruction i: "operator 'q': instruction 3 (dma0 LOAD) <problem>"."""
    operator = operator_name(program, i)
    prefix = f"operator {operator!r}: " if operator else ""
    message = f"{prefix}{instruction_text(program, i)} {problem}"
    return Violation(kind, message, i, operator, storage, other)
