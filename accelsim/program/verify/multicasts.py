"""Multicasts: a MULTICAST and the DELIVERs right behind it on its queue are one transfer.

The data move when the MULTICAST runs, so it does all the waiting, and all destinations receive the
same bytes in the same format, each in another memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accelsim.program.opcodes import Opcode
from accelsim.program.table import COLUMN, OPERAND_COLUMN
from accelsim.program.verify.violation import Violation, at_instruction

if TYPE_CHECKING:
    from accelsim.program.table import Ints, Program

_SAME = [COLUMN[name] for name in ("unit", "operator", "m", "n")]


def multicast_violations(program: Program, limit: int) -> list[Violation]:
    """MULTICASTs and DELIVERs that do not belong together, in program order."""
    opcode = program.column("opcode")
    heads = np.flatnonzero(opcode == Opcode.MULTICAST)
    followers = np.flatnonzero(opcode == Opcode.DELIVER)
    if not len(heads) and not len(followers):
        return []
    # The last MULTICAST at or before each DELIVER; -1 for one that stands before all of them.
    place = np.searchsorted(heads, followers) - 1
    owner = np.where(place >= 0, heads[place], -1) if len(heads) else np.full(len(followers), -1)
    count = program.column("k")
    lost = (owner < 0) | (followers - owner >= count[owner])
    found = dict.fromkeys(followers[lost].tolist(), "follows no MULTICAST that it belongs to")
    own, of = followers[~lost], owner[~lost]
    having = np.bincount(of, minlength=len(program)) + 1
    for i in heads[(having[heads] != count[heads]) | (count[heads] < 2)].tolist():
        found[i] = f"has {having[i]} destinations with the DELIVERs behind it, not k={count[i]}"
    for i, problem in _deliveries(program, own, of):
        found.setdefault(i, problem)
    return [at_instruction(program, "structure", i, found[i]) for i in sorted(found)[:limit]]


def _deliveries(program: Program, own: Ints, of: Ints) -> list[tuple[int, str]]:
    """What is wrong with the DELIVERs ``own`` of the MULTICASTs ``of``."""
    rows = program.instructions
    apart = (rows[own][:, _SAME] != rows[of][:, _SAME]).any(axis=1)
    source = program.operands[rows[:, COLUMN["src0"]]]
    apart |= (source[own] != source[of]).any(axis=1)
    target = program.operands[rows[:, COLUMN["dst"]]]
    code, space = OPERAND_COLUMN["format"], target[:, OPERAND_COLUMN["space"]]
    apart |= target[own, code] != target[of, code]
    waits = (program.deps[own] >= 0).any(axis=1)
    both = np.concatenate([of, own])
    pairs = np.stack([np.concatenate([of, of]), space[both]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    again = np.ones(len(both), dtype=bool)
    again[first] = False
    again[: len(of)] = False  # the MULTICAST itself, listed once for each of its DELIVERs
    found = [(int(i), "differs from the MULTICAST that it belongs to") for i in own[apart]]
    found += [(int(i), "waits, which its MULTICAST must do") for i in own[waits]]
    return found + [
        (int(i), f"delivers to {program.spaces[int(space[i])].name} again") for i in both[again]
    ]
