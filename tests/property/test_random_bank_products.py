"""Random products in the banks of every architecture that has some: the bits of the declared order.

What the program leaves is compared with the rule of the banks' arithmetic over the whole reduction,
in the order that the program declares, from the drawn values alone.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import accelsim as xs
from accelsim.arch.catalog import list_archs
from accelsim.engine.bind import bind
from accelsim.engine.merge import run as run_engine
from accelsim.functional.check import load_image
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.hw.pim.unit import Pim
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMATS
from accelsim.numerics.orders import order_of
from accelsim.simulation import compile_program, plan_memory

SHAPES = 6


def banks_of(name: str) -> list[Pim]:
    return [unit for unit in xs.arch(name).units.values() if isinstance(unit, Pim)]


def multiplies_weights(name: str) -> bool:
    return any(unit.products.multiplies_weights for unit in banks_of(name))


MACHINES = [name for name in list_archs() if multiplies_weights(name)]
"""AttAcc's banks have keys and values alone: tests/unit/test_attacc."""


def test_every_family_with_products_is_there() -> None:
    assert {"neupims", "npu-pim", "hbm-pim", "aim", "pim-gpt"} <= set(MACHINES)


@pytest.mark.parametrize("name", MACHINES)
def test_random_products_have_the_bits_of_their_order(name: str) -> None:
    generator, machine = random.Random(name), xs.arch(name)
    (unit,) = banks_of(name)
    for seed in range(SHAPES):
        m, k = generator.randint(1, 3), generator.choice((1, 17, 300, 515, 1100))
        n = unit.pim.banks * generator.choice((1, 3, 13, 300))
        fmt = "fp16" if "fp16" in unit.sums or generator.random() < 0.5 else "bf16"
        graph = xs.workload(f"gemm:m={m},n={n},k={k},dtype={fmt},out=fp32")
        plan = plan_memory(graph, machine, "bandwidth", ("pim-gemv",))
        program = compile_program(graph, graph.operators, machine, plan, "bandwidth", ("pim-gemv",))
        values = graph_values(graph, seed)
        memory = Memory(program)
        load_image(program, memory, values, {})
        blocks = [machine.units[slot.unit] for slot in program.units]
        timed = run_engine(bind(program, machine, "bandwidth").timed)
        (got,) = execute(program, blocks, memory, timed).tensors.values()
        a, b = (np.asarray(values[one], np.float32) for one in graph.operators[0].inputs[:2])
        order = order_of(program.operators[0].order)
        rule = arithmetic(unit.sums).reduction(types_of(fmt, fmt, "fp32"), order, k)
        want = np.stack([rule.multiply(b.T.copy(), row[:, None], None)[:, 0] for row in a])
        found = FORMATS["fp32"].decode(got).reshape(m, n)
        assert np.array_equal(found, want), (m, n, k, fmt)
