"""Mistakes that a mapper could make, made on purpose: one change to a correct program.

``mutate`` makes one; ``study`` counts, class by class, how many mutants the static verifier
catches. A mutant may be harmless (a dropped wait that others imply): ``program_oracle`` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from program_oracle import judge

from accelsim.program.opcodes import Opcode
from accelsim.program.table import COLUMN, WIDTH, Program
from accelsim.program.verify import Violation, violations

DEPS = slice(COLUMN["dep0"], COLUMN["dep0"] + 3)
OPERANDS = slice(COLUMN["dst"], COLUMN["dst"] + 4)

Mutation = Callable[[Program, Random], tuple[Program, str]]


def drop_dependency(program: Program, rng: Random) -> tuple[Program, str]:
    """Forget one wait, of any instruction or join."""
    waits = np.argwhere(program.deps >= 0)
    i, c = rng.choice(waits.tolist()) if len(waits) else (0, 0)
    rows = program.instructions.copy()
    d, rows[i, DEPS.start + c] = rows[i, DEPS.start + c], -1
    return replace(program, instructions=rows), f"instruction {i} no longer waits for {d}"


def shrink_storage(program: Program, rng: Random) -> tuple[Program, str]:
    """Declare a storage some bytes shorter than it is."""
    s = rng.randrange(len(program.storages))
    info = program.storages[s]
    less = rng.choice((1, 2, 4, info.nbytes // 2))
    storages = list(program.storages)
    storages[s] = replace(info, nbytes=info.nbytes - less)
    return replace(program, storages=tuple(storages)), f"{info.name} loses {less} bytes"


def shift_operand(program: Program, rng: Random) -> tuple[Program, str]:
    """Move one operand of one instruction by a row, an element or a byte."""
    used = np.argwhere(program.instructions[:, OPERANDS] >= 0)
    i, c = rng.choice(used.tolist())
    d = int(program.instructions[i, OPERANDS.start + c])
    moved = program.operands[d].copy()
    rows, row_bytes, stride = moved[3:6].tolist()
    step = rng.choice((stride, row_bytes, rows * row_bytes, 4, 2, 1)) * rng.choice((1, -1))
    moved[2] += step
    table = program.instructions.copy()
    table[i, OPERANDS.start + c] = len(program.operands)
    operands = np.vstack([program.operands, moved])
    mutant = replace(program, instructions=table, operands=operands)
    return mutant, f"operand {c} of instruction {i} moves by {step} bytes"


def skip_instruction(program: Program, rng: Random) -> tuple[Program, str]:
    """Forget a tile: a store, product, load or vector instruction becomes a join."""
    i = rng.choice(np.flatnonzero(program.column("opcode") != Opcode.JOIN).tolist())
    rows = program.instructions.copy()
    name = Opcode(rows[i, COLUMN["opcode"]]).name
    for column in ("opcode", "function", "flags", "m", "n", "k"):
        rows[i, COLUMN[column]] = 0
    rows[i, OPERANDS] = -1
    return replace(program, instructions=rows), f"{name} {i} is left out"


def swap_instructions(program: Program, rng: Random) -> tuple[Program, str]:
    """Issue two instructions of a unit in the other order; who waits for one still does."""
    unit = program.column("unit")
    first = rng.choice(np.flatnonzero(np.isin(unit, _with_several(unit))).tolist())
    peers = np.flatnonzero(unit == unit[first])
    place = int(np.searchsorted(peers, first))
    second = int(peers[place + 1] if place + 1 < len(peers) else peers[place - 1])
    rows, immediate = program.instructions.copy(), program.immediate.copy()
    rows[[first, second]] = rows[[second, first]]
    immediate[[first, second]] = immediate[[second, first]]
    deps = rows[:, DEPS]
    deps[...] = np.where(deps == first, second, np.where(deps == second, first, deps))
    mutant = replace(program, instructions=rows, immediate=immediate)
    return mutant, f"instructions {first} and {second} change places"


def shrink_space(program: Program, rng: Random) -> tuple[Program, str]:
    """Run on a smaller memory."""
    x = rng.randrange(len(program.spaces))
    top = max(s.base + s.nbytes for s in program.storages if s.space == x)
    capacity = max(1, top + rng.choice((-64, -4, -1, 0, 16)))
    spaces = list(program.spaces)
    spaces[x] = replace(spaces[x], capacity=capacity)
    return replace(program, spaces=tuple(spaces)), f"{spaces[x].name} has {capacity} bytes"


MUTATIONS: dict[str, Mutation] = {
    "dependency dropped": drop_dependency,
    "storage shrunk": shrink_storage,
    "address shifted": shift_operand,
    "tile skipped": skip_instruction,
    "order swapped": swap_instructions,
    "memory shrunk": shrink_space,
}


def mutate(program: Program, rng: Random, kind: str = "") -> tuple[Program, str, str]:
    """One mistake, of class ``kind`` or any: (mutant, class, what was done)."""
    name = kind or rng.choice(list(MUTATIONS))
    mutant, description = MUTATIONS[name](program, rng)
    assert mutant.instructions.shape[1] == WIDTH
    return mutant, name, description


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


def _with_several(unit: np.ndarray) -> np.ndarray:
    numbers, counts = np.unique(unit, return_counts=True)
    return numbers[counts > 1]
