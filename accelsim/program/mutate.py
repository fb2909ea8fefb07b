"""Mistakes that a mapper could make, made on purpose: one change to a correct program.

For testing what should notice them: the verifier, an execution on numbers, or a mapper's own tests.

    mutant = mutate(program, random.Random(7), "dependency dropped")
    assert violations(mutant.program), mutant.what

A mutant may be harmless: a dropped wait can be implied by others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import NamedTuple, TypeVar

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.program.opcodes import ISSUED, Opcode
from accelsim.program.table import (
    COLUMN,
    DEPENDENCIES,
    OPERAND_COLUMN,
    SOURCES,
    Program,
    StorageInfo,
)

T = TypeVar("T")
Mutation = Callable[[Program, Random], tuple[Program, str]]

_DEPS = slice(COLUMN["dep0"], COLUMN["dep0"] + DEPENDENCIES)
_OPERANDS = slice(COLUMN["dst"], COLUMN["dst"] + 1 + SOURCES)
_STORAGE, _BASE, _ROWS, _ROW_BYTES, _STRIDE = (
    OPERAND_COLUMN[name] for name in ("storage", "base", "rows", "row_bytes", "stride")
)


class Mutant(NamedTuple):
    """A program with one mistake: of which kind, and what was done."""

    program: Program
    kind: str
    what: str


def mutate(program: Program, rng: Random, kind: str = "") -> Mutant:
    """One mistake of class ``kind``, or of any class of MUTATIONS.

    Raises AccelsimError if the class is not known or the program has nothing to get wrong in it.
    """
    name = kind or rng.choice(list(MUTATIONS))
    if name not in MUTATIONS:
        raise AccelsimError(f"mutation {name!r} is not known; accepted: {', '.join(MUTATIONS)}")
    mutant, what = MUTATIONS[name](program, rng)
    return Mutant(mutant, name, what)


def drop_dependency(program: Program, rng: Random) -> tuple[Program, str]:
    """Forget one wait, of any instruction or join."""
    i, c = _choose(rng, np.argwhere(program.deps >= 0).tolist(), "dependency")
    rows = program.instructions.copy()
    d, rows[i, _DEPS.start + c] = rows[i, _DEPS.start + c], -1
    rows[i, COLUMN["flags"]] &= ~int(ISSUED[c])  # there is no wait left that could be shorter
    return replace(program, instructions=rows), f"instruction {i} no longer waits for {d}"


def shrink_storage(program: Program, rng: Random) -> tuple[Program, str]:
    """Declare a tensor or buffer some bytes shorter than it is."""
    s = _choose(rng, list(range(len(program.storages))), "storage")
    info = program.storages[s]
    less = rng.choice((1, 2, 4, info.nbytes // 2))
    shorter = _with_storage(program, s, replace(info, nbytes=info.nbytes - less))
    return shorter, f"{info.name} loses {less} bytes"


def overlap_buffer(program: Program, rng: Random) -> tuple[Program, str]:
    """Place a buffer over part of its neighbour, as if too little had been set aside for that."""
    buffers = [s for s, info in enumerate(program.storages) if info.role == "buffer"]
    s = _choose(rng, buffers, "buffer")
    info = program.storages[s]
    step = rng.choice((1, 4, max(1, info.nbytes // 2), info.nbytes))
    room = program.spaces[info.space].capacity - info.nbytes
    inside = [base for base in (info.base - step, info.base + step) if 0 <= base <= room]
    base = rng.choice(inside or [info.base])
    operands = program.operands.copy()
    operands[operands[:, _STORAGE] == s, _BASE] += base - info.base
    moved = _with_storage(program, s, replace(info, base=base))
    return replace(moved, operands=operands), f"{info.name} moves by {base - info.base} bytes"


def shift_operand(program: Program, rng: Random) -> tuple[Program, str]:
    """Move one operand of one instruction by its size, a row, an element or a byte."""
    used = np.argwhere(program.instructions[:, _OPERANDS] >= 0)
    i, c = _choose(rng, used.tolist(), "operand")
    d = int(program.instructions[i, _OPERANDS.start + c])
    moved = program.operands[d].copy()
    rows, row_bytes, stride = moved[[_ROWS, _ROW_BYTES, _STRIDE]].tolist()
    step = rng.choice((stride, row_bytes, rows * row_bytes, 4, 2, 1)) * rng.choice((1, -1))
    moved[_BASE] += step
    table = program.instructions.copy()
    table[i, _OPERANDS.start + c] = len(program.operands)
    operands = np.vstack([program.operands, moved])
    mutant = replace(program, instructions=table, operands=operands)
    return mutant, f"operand {c} of instruction {i} moves by {step} bytes"


def skip_instruction(program: Program, rng: Random) -> tuple[Program, str]:
    """Forget a tile: a load, product, store or vector instruction becomes a join."""
    works = np.flatnonzero(program.column("opcode") != Opcode.JOIN)
    i = _choose(rng, works.tolist(), "instruction")
    rows = program.instructions.copy()
    name = Opcode(rows[i, COLUMN["opcode"]]).name
    for column in ("opcode", "function", "flags", "m", "n", "k"):
        rows[i, COLUMN[column]] = 0
    rows[i, _OPERANDS] = -1
    return replace(program, instructions=rows), f"{name} {i} is left out"


def swap_instructions(program: Program, rng: Random) -> tuple[Program, str]:
    """Issue two instructions of a unit in the other order; who waits for one still does."""
    unit = program.column("unit")
    numbers, counts = np.unique(unit, return_counts=True)
    several = np.flatnonzero(np.isin(unit, numbers[counts > 1]))
    first = _choose(rng, several.tolist(), "pair of instructions")
    peers = np.flatnonzero(unit == unit[first])
    place = int(np.searchsorted(peers, first))
    second = int(peers[place + 1] if place + 1 < len(peers) else peers[place - 1])
    rows, immediate = program.instructions.copy(), program.immediate.copy()
    rows[[first, second]] = rows[[second, first]]
    immediate[[first, second]] = immediate[[second, first]]
    deps = rows[:, _DEPS]
    deps[...] = np.where(deps == first, second, np.where(deps == second, first, deps))
    mutant = replace(program, instructions=rows, immediate=immediate)
    return mutant, f"instructions {first} and {second} change places"


def shrink_space(program: Program, rng: Random) -> tuple[Program, str]:
    """Run on a smaller memory, down to a little more or less than what is used of it."""
    x = _choose(rng, sorted({info.space for info in program.storages}), "memory")
    top = max(s.base + s.nbytes for s in program.storages if s.space == x)
    capacity = max(1, top + rng.choice((-64, -4, -1, 0, 16)))
    spaces = list(program.spaces)
    spaces[x] = replace(spaces[x], capacity=capacity)
    return replace(program, spaces=tuple(spaces)), f"{spaces[x].name} has {capacity} bytes"


MUTATIONS: dict[str, Mutation] = {
    "dependency dropped": drop_dependency,
    "storage shrunk": shrink_storage,
    "buffer overlapped": overlap_buffer,
    "address shifted": shift_operand,
    "tile skipped": skip_instruction,
    "order swapped": swap_instructions,
    "memory shrunk": shrink_space,
}


def _choose(rng: Random, among: list[T], what: str) -> T:
    if not among:
        raise AccelsimError(f"the program has no {what} to get wrong")
    return rng.choice(among)


def _with_storage(program: Program, s: int, info: StorageInfo) -> Program:
    storages = (*program.storages[:s], info, *program.storages[s + 1 :])
    return replace(program, storages=storages)
