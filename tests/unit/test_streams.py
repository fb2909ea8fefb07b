"""Streaming attention: full rate, what FIFOs must hold, deadlocks, numbers in the clock's order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import as_arch, as_graph, check, simulate, workload
from accelsim.engine.bind import bind
from accelsim.engine.merge import run as run_engine
from accelsim.errors import AccelsimError
from accelsim.functional.check import check as check_program
from accelsim.functional.lowering import lowerings
from accelsim.mapping.streams import StreamDeadlockError
from accelsim.program.listing import mnemonic
from accelsim.program.opcodes import ISSUED, Function, Opcode
from accelsim.program.table import COLUMN, Program
from accelsim.program.verify import violations
from accelsim.simulation import compile_program, plan_memory
from accelsim.workload.graph import Graph

MAPPERS = ("stream-naive", "stream-naive-max", "stream-reordered", "stream-running-max")
LONG, CONSTANT = MAPPERS[:2], MAPPERS[2:]
# Cycles from the issue of the last score to the last result, by the latencies of the architecture.
WAY = {"stream-reordered": 6 + 5 + 12 + 8, "stream-running-max": 6 + 2 + 8 + 5 + 12 + 8}

TWO = """\
operators:
  - {name: one, kind: attention, batch: 1, heads: 2, kv_heads: 2, q_len: 5, kv_len: 6, head_dim: 4}
  - {name: two, kind: attention, batch: 1, heads: 2, kv_heads: 2, q_len: 5, kv_len: 6, head_dim: 4,
     inputs: {q: one}}
"""


def run(mapper: str, q: int, kv: int, memory: str = "ideal", d: int = 4, **nodes: object):
    values = {f"stream.{name}": value for name, value in nodes.items()}
    work = f"attention:heads=1,q={q},kv={kv},d={d}"
    return simulate("stream-sdpa", work, memory=memory, mapper=mapper, overrides=values)


def program(mapper: str, q: int = 3, kv: int = 5, **nodes: object) -> Program:
    return compiled(mapper, as_graph(f"attention:heads=1,q={q},kv={kv},d=2"), **nodes)


def compiled(mapper: str, graph: Graph, **nodes: object) -> Program:
    machine = as_arch("stream-sdpa", {f"stream.{name}": value for name, value in nodes.items()})
    plan = plan_memory(graph, machine, "ideal")
    return compile_program(graph, graph.operators, machine, plan, "ideal", (mapper,))


def slots(result) -> int:
    return int(result.operators[0].mapping.split(" FIFO slots")[0].split()[-1])


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapper", CONSTANT)
@pytest.mark.parametrize(("q", "kv"), [(64, 64), (3, 40), (40, 9), (1, 17)])
def test_an_element_per_cycle_and_then_the_pipelines(mapper: str, q: int, kv: int) -> None:
    assert run(mapper, q, kv).cycles == q * kv - 1 + WAY[mapper]


@pytest.mark.parametrize("mapper", CONSTANT)
def test_full_rate_with_the_memory_in_the_way(mapper: str) -> None:
    result = run(mapper, 64, 64, memory="bandwidth", d=64)
    assert 64 * 64 / result.cycles >= 0.99


@pytest.mark.parametrize("mapper", CONSTANT)
def test_memory_does_not_grow_with_the_length(mapper: str) -> None:
    assert slots(run(mapper, 2, 16)) == slots(run(mapper, 2, 300)) < 130


@pytest.mark.parametrize("mapper", CONSTANT)
def test_the_initiation_interval_is_the_rate(mapper: str) -> None:
    assert run(mapper, 6, 9, interval=2).cycles == 2 * (6 * 9 - 1) + WAY[mapper]


@pytest.mark.parametrize("mapper", CONSTANT)
def test_vectors_wider_than_a_node_take_turns(mapper: str) -> None:
    assert run(mapper, 4, 30, d=16, width=8).cycles >= 2 * 4 * 30
    assert run(mapper, 4, 30, d=16, width=16).cycles == 4 * 30 - 1 + WAY[mapper]


@pytest.mark.parametrize("mapper", CONSTANT)
def test_controllers_cost_their_start_and_every_row(mapper: str) -> None:
    plain, controlled = run(mapper, 7, 20), run(mapper, 7, 20, controller=4)
    assert controlled.cycles == plain.cycles + 4 * (1 + 7)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(2, 5), st.integers(30, 60), st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)
)
def test_a_long_fifo_is_full_rate_from_the_way_round_the_sum(
    q: int, kv: int, dot: int, exp: int, total: int
) -> None:
    """A slot is taken from the issue of an exponential until the division has begun, which waits
    for the row's last exponential and its sum: kv + dot + exp + sum slots for one per cycle."""
    latencies = {"dot_latency": dot, "exp_latency": exp, "sum_latency": total}
    enough = kv + dot + exp + total

    def cycles(depth: int) -> int:
        return run("stream-naive", q, kv, long_fifo_depth=depth, **latencies).cycles

    assert cycles(enough) == cycles(4 * enough)
    # Every slot less costs every row but the first a cycle, down to the deadlock.
    for less in {1, (dot + exp + total) // 2, dot + exp + total}:
        assert cycles(enough - less) == cycles(enough) + less * (q - 1)


# -- deadlocks -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(LONG), st.integers(1, 6), st.integers(2, 300), st.integers(1, 3),
    st.integers(-20, 20),
)  # fmt: skip
def test_deadlock_exactly_below_a_row(mapper: str, q: int, kv: int, short: int, off: int) -> None:
    depth = max(1, kv + off)
    if depth >= kv:
        assert run(mapper, q, kv, long_fifo_depth=depth, fifo_depth=short).cycles > q * kv
        return
    with pytest.raises(StreamDeadlockError, match=rf"at least {kv}$"):
        run(mapper, q, kv, long_fifo_depth=depth, fifo_depth=short)


@pytest.mark.parametrize("mapper", CONSTANT)
def test_short_fifos_never_get_stuck(mapper: str) -> None:
    everything = dict.fromkeys(
        (f"{n}_latency" for n in ("dot", "product", "sum", "max", "subtract", "exp", "divide")), 0
    )
    assert run(mapper, 4, 9, fifo_depth=1, long_fifo_depth=1, **everything).cycles >= 35


@pytest.mark.parametrize(
    ("mapper", "full", "empty"),
    [
        ("stream-naive", "exponentials -> quotients", "sum -> quotients"),
        ("stream-naive-max", "scores -> differences", "maximum -> differences"),
    ],
)
def test_a_deadlock_names_both_fifos(mapper: str, full: str, empty: str) -> None:
    with pytest.raises(StreamDeadlockError) as fault:
        run(mapper, 64, 64, long_fifo_depth=63)
    assert str(fault.value) == (
        f"operator 'attention' (attention): deadlock: FIFO {full!r} is full with 63 elements while"
        f" FIFO {empty!r} is empty; accepted: long_fifo_depth of at least 64"
    )


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["program", "clock"])
@pytest.mark.parametrize("mapper", MAPPERS)
def test_numbers_are_inside_their_bound(mapper: str, order: str) -> None:
    work = "attention:heads=4,kv_heads=2,q=7,kv=33,d=8,batch=2,dtype=fp32"
    result = check("stream-sdpa", work, mapper=mapper, order=order)
    assert result.ok, result.first
    assert 0 < result.max_error_over_bound < 1


@pytest.mark.parametrize("mapper", MAPPERS)
def test_scores_without_their_maximum_overflow(mapper: str) -> None:
    result = check(
        "stream-sdpa", "attention:heads=1,q=8,kv=16,d=16,dtype=fp32", mapper=mapper, scale=16.0
    )
    assert result.ok == (mapper in ("stream-naive-max", "stream-running-max"))


@pytest.mark.parametrize("mapper", MAPPERS)
def test_what_the_bound_is_made_of(mapper: str) -> None:
    """Read off the rows: a running maximum rescales before every addition but the first."""
    made, machine = program(mapper, q=3, kv=5), as_arch("stream-sdpa")
    (facts,) = lowerings(made, [machine.units[slot.unit] for slot in made.units])
    assert facts.rescales == (4 if mapper == "stream-running-max" else 0)
    assert facts.shifted == (mapper in ("stream-naive-max", "stream-running-max"))


@pytest.mark.parametrize("mapper", MAPPERS)
def test_a_network_after_another_one(mapper: str, tmp_path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO)
    for memory in ("ideal", "bandwidth"):
        result = check("stream-sdpa", workload(file), mapper=mapper, memory=memory)
        assert result.ok, result.first
        assert len(result.operators) == 2


@pytest.mark.parametrize("mapper", MAPPERS)
def test_without_back_pressure_numbers_change(mapper: str) -> None:
    """Without back-pressure slots are overwritten before they are read; the clock shows it."""
    graph = as_graph("attention:heads=1,q=6,kv=8,d=2,dtype=fp32")
    whole = compiled(mapper, graph, long_fifo_depth=8)
    rows = whole.instructions.copy()
    for c, flag in enumerate(ISSUED):
        pressed = (rows[:, COLUMN["flags"]] & flag) != 0
        rows[pressed, COLUMN["dep0"] + c] = -1
        rows[pressed, COLUMN["flags"]] &= ~int(flag)
    free = replace(whole, instructions=rows)
    assert {v.kind for v in violations(free)} == {"write-after-read"}
    machine = as_arch("stream-sdpa", {"stream.long_fifo_depth": 8})
    schedule = run_engine(bind(free, machine, "ideal").timed)
    assert not check_program(machine, graph, free, schedule).ok


# -- what a program says -----------------------------------------------------------------------


def test_nodes_forward_and_go_on() -> None:
    naive, running = program("stream-naive"), program("stream-running-max")
    names = {mnemonic(p, i) for p in (naive, running) for i in range(len(p))}
    assert {"MATMUL.EXP/tb", "VECTOR.ADD+fwd", "VECTOR.MAX+fwd", "MATMUL+acc*src2"} <= names
    assert {"VECTOR.DIV", "VECTOR.EXP_SUB"} <= names


def test_a_crowded_row_has_a_join_ahead() -> None:
    """A score waits for its query, its key and two slots: more than a row can name."""
    made = program("stream-naive", q=4, kv=5)
    opcode, unit = made.column("opcode"), made.column("unit")
    scores = unit[(opcode == Opcode.MATMUL) & (made.column("function") == Function.EXP)][0]
    assert np.count_nonzero((opcode == Opcode.JOIN) & (unit == scores)) >= 4


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "values", "said"),
    [
        ("", {"stream.fifo_depth": 0}, "fifo_depth must be at least 1, not 0"),
        ("", {"stream.long_fifo_depth": 0}, "long_fifo_depth must be at least 1, not 0"),
        ("", {"stream.interval": 0}, "interval must be at least 1, not 0"),
        ("", {"stream.exp_latency": -1}, "exp_latency must not be negative, not -1"),
        ("", {"stream.count": 6}, "more than the 6 nodes there are; accepted: a larger count"),
        ("", {"dma.count": 3}, "needs 4 DMA queues"),
        ("", {"dma.activation_panel": 8}, "accepted: dma.activation_panel 0"),
        (",causal=true", {}, "no causal mask; accepted: causal=false"),
        (",dtype=fp64", {}, "fp32, which does not hold fp64"),
    ],
)
def test_senseless_machines_and_work_are_refused(work: str, values: dict, said: str) -> None:
    with pytest.raises(AccelsimError, match=said):
        simulate("stream-sdpa", f"attention:heads=1,q=4,kv=4,d=4{work}", overrides=values)


def test_waits_for_the_issue_are_refused_at_dram_fidelity(tmp_path) -> None:
    from accelsim.arch.catalog import library_folder

    text = (library_folder() / "stream-sdpa.yaml").read_text()
    plain = "{kind: memory, clock: memory, capacity: 16 GiB, bandwidth: 2 TB/s}"
    dram = "{kind: dram, device: hbm2, channels: 16, capacity: 16 GiB}"
    file = tmp_path / "machine.yaml"
    text = text.replace(plain, dram)
    file.write_text("\n".join(line for line in text.splitlines() if "hbm.bandwidth" not in line))
    with pytest.raises(AccelsimError, match=r"wait for the issue of others .* accepted: --memory"):
        simulate(str(file), "attention:heads=1,q=4,kv=4,d=4", memory="dram")
