"""Random shapes in the banks of AiM and PIM-GPT: every bit is that of the bank's accumulator.

The expected bits are those of functional.bank_memory, which stores a weight by the family's layout
and multiplies it by the family's command sequence, without tile programs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import accelsim as xs
from accelsim import api
from accelsim.engine.bind import bind
from accelsim.engine.merge import run as run_engine
from accelsim.functional.bank_memory import BankMemory, gemv
from accelsim.functional.check import load_image
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.hw.pim.layouts.families import weight_layout
from accelsim.mapping.bank_layouts import bank_memory
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import number_format
from accelsim.program.verify import violations
from accelsim.simulation import compile_program, plan_memory

MACHINES = ("aim", "pim-gpt")
SEEDS = range(8)


@cache
def machine_of(name):
    return xs.arch(name)


def program_of(machine, graph):
    plan = plan_memory(graph, machine, "bandwidth")
    return compile_program(graph, graph.operators, machine, plan, "bandwidth")


def bits_of(machine, program, values):
    """What the clock's order leaves of the only result."""
    memory = Memory(program)
    load_image(program, memory, values)
    schedule = run_engine(bind(program, machine, "bandwidth").timed)
    blocks = [machine.units[slot.unit] for slot in program.units]
    (found,) = execute(program, blocks, memory, schedule).tensors.values()
    return found


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("seed", SEEDS)
def test_products_have_the_bits_of_the_banks(name, seed):
    rng = np.random.default_rng([seed, MACHINES.index(name)])
    m, n, k = int(rng.integers(1, 4)), int(rng.integers(1, 700)), int(rng.integers(1, 2600))
    dtype = "bf16" if seed % 2 else "fp16"
    machine, graph = machine_of(name), api.as_graph(f"gemm:m={m},n={n},k={k},dtype={dtype}")
    program, values = program_of(machine, graph), graph_values(graph, seed)
    assert not violations(program)
    fmt, memory = number_format(dtype), bank_memory(machine)
    layout = weight_layout(name, memory.grid, n, k)
    banks = BankMemory.holding(fmt, layout)
    x, w = values["gemm.a"], values["gemm.b"]
    banks.store(layout, w.T)
    rule = arithmetic("tree16-fp32").rule(types_of(dtype, dtype, "fp32"))
    want = np.stack([_summed(name, banks, layout, rule, row) for row in x])
    expected = fmt.codes(fmt.encode(want.astype(np.float32)))
    assert np.array_equal(bits_of(machine, program, values).view(np.uint16), expected)


def _summed(name, banks, layout, rule, row):
    """AiM's units go on with their sums from one row of a bank to the next; PIM-GPT's partial sums
    are added up behind."""
    if name == "pim-gpt":
        return gemv(name, banks, layout, rule, row)
    held = banks.load(layout)
    return rule.multiply(held, np.asarray(row, np.float32)[:, None], None)[:, 0]


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("seed", SEEDS)
def test_layers_are_right(name, seed):
    rng = np.random.default_rng([seed, 7, MACHINES.index(name)])
    d = int(rng.choice([16, 32, 64]))
    kv_heads = int(rng.integers(1, 5))
    heads = kv_heads * int(rng.integers(1, 3))
    contexts = "+".join(str(int(c)) for c in rng.choice([1, 17, 40, 129, 300], rng.integers(1, 4)))
    settings = {
        "phase": "decode", "layers": 1, "heads": heads, "kv_heads": kv_heads, "hidden": heads * d,
        "ffn": int(rng.integers(1, 60)), "vocab": int(rng.integers(2, 300)), "contexts": contexts,
    }  # fmt: skip
    model = "gpt2" if heads == kv_heads else "llama-2-7b"
    if model == "gpt2":
        del settings["kv_heads"]
    verdict = xs.check(machine_of(name), xs.workload(model, **settings))
    assert verdict.ok, verdict.first
    assert sum("banks of" in one.arithmetic for one in verdict.operators) >= 7
