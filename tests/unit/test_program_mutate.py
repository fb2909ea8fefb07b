"""Mutations change one thing, leave the original alone and say what they did."""

import random

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.mutate import MUTATIONS, mutate
from accelsim.program.table import AddressSpace, OperatorInfo, Program, StorageInfo, UnitSlot


def _copy(steps: int = 4) -> Program:
    """Load and store rows in turn, through two buffers."""
    units = [UnitSlot("in", "dma", 0), UnitSlot("out", "dma", 0)]
    spaces = [AddressSpace("dram", "dram", 256, -1), AddressSpace("spad", "spad", 64, 0)]
    build = Builder(units, spaces)
    fp32 = FORMATS["fp32"]
    build.begin_operator(OperatorInfo("copy", "copy", "test", 0))
    shape = (steps, 4)
    x = build.storage(StorageInfo("x", 0, 0, 16 * steps, "input", shape, "fp32"))
    y = build.storage(StorageInfo("y", 0, 128, 16 * steps, "output", shape, "fp32", 0))
    ring = [build.storage(StorageInfo(f"b{i}", 1, 16 * i, 16, "buffer")) for i in (0, 1)]
    for i in range(steps):
        buffer = ring[i % 2]
        buffer.renew()
        row = slice(i, i + 1)
        build.load(0, buffer.view(1, 4, fp32), x.view(*shape, fp32)[row, :])
        build.store(1, y.view(*shape, fp32)[row, :], buffer.view(1, 4, fp32))
    return build.finish()


def _state(program: Program) -> tuple[object, ...]:
    tables = program.instructions.tolist(), program.operands.tolist(), program.immediate.tolist()
    return (*tables, program.storages, program.spaces)


@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_mutant_differs_and_the_original_stays(kind) -> None:
    program = _copy()
    before = _state(program)
    mutants = [mutate(program, random.Random(seed), kind) for seed in range(20)]
    assert _state(program) == before
    assert all(mutant.kind == kind and mutant.what for mutant in mutants)
    assert all(_state(mutant.program) != before for mutant in mutants)
    assert len({mutant.what for mutant in mutants}) > 1


def test_one_seed_is_one_mutant_of_any_class() -> None:
    program = _copy()
    one, same = (mutate(program, random.Random(3)) for _ in range(2))
    assert _state(one.program) == _state(same.program)
    kinds = {mutate(program, random.Random(seed)).kind for seed in range(99)}
    assert kinds == set(MUTATIONS)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(AccelsimError, match="'typo' is not known; accepted: dependency dropped,"):
        mutate(_copy(), random.Random(0), "typo")
    program = _copy(1)
    first = mutate(program, random.Random(0), "dependency dropped").program
    assert not np.any(first.deps >= 0)
    with pytest.raises(AccelsimError, match="no dependency to get wrong"):
        mutate(first, random.Random(0), "dependency dropped")
