"""NeuPIMs beside its baselines: the arithmetic of the claim, and the mechanisms it stands on."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from accelsim.validation.neupims import comparison, record, systems
from accelsim.validation.neupims.systems import GPU_PADDED, NEUPIMS, NPU_ONLY, NPU_PIM, Layer, Point
from typer.testing import CliRunner

import accelsim as xs
from accelsim.cli.main import app
from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.unit import Pim

BATCH = Point.of("gpt3-7b", "alpaca", 64)
OTHER = Point.of("gpt3-7b", "sharegpt", 64)


def table(times: dict[str, tuple[float, float]]) -> comparison.Table:
    return {
        (name, point): Layer(seconds)
        for name, pair in times.items()
        for point, seconds in zip((BATCH, OTHER), pair, strict=True)
    }


def test_gains_are_ratios_of_times_and_their_mean_is_geometric() -> None:
    rows = table({"NeuPIMs": (1.0, 2.0), "NPU-only": (2.0, 16.0), "NPU+PIM": (1.0, 1.0)})
    points = (BATCH, OTHER)
    assert comparison.gain(rows, NPU_ONLY, OTHER) == 8.0
    assert comparison.mean_gain(rows, NPU_ONLY, points=points) == pytest.approx(4.0)
    assert comparison.mean_gain(rows, NPU_ONLY, NPU_PIM, points) == pytest.approx(math.sqrt(32))
    assert math.isnan(comparison.geometric_mean([]))


def test_rows_of_the_table_are_layers() -> None:
    row = {"system": "NPU-only", "model": "gpt3-7b", "data": "alpaca", "batch": "64", "tp": "4",
           "seed": "0", "seconds": "0.5", "npu_macs": "0.1", "npu_busy": "0.2", "pim_busy": "0",
           "pim_macs": "0"}  # fmt: skip
    assert comparison.read([row]) == {("NPU-only", BATCH): Layer(0.5, 0.1, 0.2)}


def test_time_that_intervals_cover() -> None:
    start, finish = np.array([10, 0, 12, 30]), np.array([14, 4, 20, 31])
    assert systems.covered(start, finish) == 4 + 10 + 1
    assert systems.covered(np.array([0, 1]), np.array([9, 2])) == 9


def test_every_point_is_recorded_for_every_system() -> None:
    assert {*record.recorded()} == {*comparison.recorded()}
    assert len(systems.POINTS) == 4 * 2 * 5


def test_batches_as_the_systems_take_them() -> None:
    lengths = [
        op.lengths for op in systems.graph_of(NEUPIMS, OTHER).operators if op.kind == "attention"
    ]
    padded = [
        op.lengths for op in systems.graph_of(GPU_PADDED, OTHER).operators if op.kind == "attention"
    ]
    assert {*padded[0]} == {max(lengths[0])}
    assert len(padded[0]) == len(lengths[0]) == 64
    large = Point.of("gpt3-7b", "alpaca", 256)
    halves = [op for op in systems.graph_of(NEUPIMS, large).operators if op.kind == "attention"]
    assert [len(op.lengths) for op in halves[:2]] == [128, 128]
    whole = [op for op in systems.graph_of(NPU_PIM, large).operators if op.kind == "attention"]
    assert len(whole[0].lengths) == 256


# -- mechanisms ----------------------------------------------------------------------------------


def test_an_npu_without_banks_that_compute() -> None:
    machine = xs.arch("npu-only")
    assert not machine.units_of(Pim)
    same = xs.arch("neupims")
    for name in ("mxu", "vpu"):
        assert machine.units[name] == same.units[name]
    assert machine.main_memory()[1].peak_bandwidth == same.main_memory()[1].peak_bandwidth
    run = xs.simulate(machine, "gpt3-7b:phase=decode,batch=8,context=100,tp=4,layers=1")
    assert "flash-attention" in run.mapper


def test_commands_of_a_product_one_by_one_and_composed() -> None:
    scores = Sweep(1, 4, 256, 128, abreast=True)
    # Header and copy of the vector; each tile a header, and of each of 4 heads 8 columns, a result.
    assert product_cost("newton", scores).sent == 2 + 8 * (1 + 4 * 9)
    assert product_cost("neupims", scores).sent == 1 + 8 * (1 + 4)
    values = Sweep(8, 1, 128, 256)
    assert product_cost("newton", values).sent == 8 * (2 + 4 * (1 + 16 + 1))


DECODE = "gpt3-7b:phase=decode,batch=32,context=256,tp=4,layers=1"


def attention_cycles(
    changes: dict[str, object], arch: str = "npu-pim", work: str = DECODE
) -> float:
    run = xs.simulate(xs.arch(arch, changes), work, mapper="pim-attention")
    return next(op.cycles for op in run.operators if op.kind == "attention")


def test_an_npu_that_sends_every_column_is_busy_with_it() -> None:
    # 2 row groups of heads, 8 heads of values; the run on the authors' simulator had 50,277.
    commands = 32 * (2 * 298 + 8 * (2 + 4 * 18))
    slow, composed = attention_cycles({}), attention_cycles({"pim.issue": 0})
    assert commands <= slow < 1.01 * commands
    assert composed < slow / 2
    assert attention_cycles({"pim.issue": 2}) >= 2 * commands


def test_one_port_for_the_commands_of_all_channels() -> None:
    run = xs.simulate("npu-pim", DECODE, mapper="pim-attention")
    assert run.bounds["pim commands"] == 32 * (2 * 298 + 8 * (2 + 4 * 18))
    assert "pim commands" not in xs.simulate("neupims", DECODE, mapper="pim-attention").bounds


def test_requests_dealt_in_turns_leave_channels_waiting() -> None:
    work = "gpt3-7b:phase=decode,batch=64,dataset=sharegpt,tp=4,layers=1"
    turns = attention_cycles({"hbm.requests": "in turns"}, "neupims", work)
    assert turns > 1.3 * attention_cycles({}, "neupims", work)


def test_attention_takes_hardly_longer_than_its_busiest_channel() -> None:
    work = "gpt3-7b:phase=decode,batch=128,dataset=sharegpt,tp=4,layers=1"
    run = xs.simulate("neupims", work, mapper="pim-attention")
    attention = next(op for op in run.operators if op.kind == "attention")
    found = re.search(r"busiest ([\d,]+) of", attention.mapping)
    assert found
    assert attention.cycles < 1.03 * int(found[1].replace(",", ""))


def test_small_accumulators_do_not_keep_operands_waiting() -> None:
    run = xs.simulate("npu-only", "gemm:m=256,n=7168,k=7168,dtype=fp16")
    assert run.cycles < 1.05 * run.bounds["hbm"]


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pim.issue": -1}, "issue must not be negative, not -1"),
        ({"hbm.requests": "turns"}, "accepted: balanced, in turns"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(AccelsimError, match=words):
        xs.arch("npu-pim", changes)


@pytest.mark.parametrize("halves", ["", ",subbatch=2"])
def test_a_cache_beyond_memory_tells_tokens_and_requests(halves: str) -> None:
    work = "gpt3-175b:phase=decode,batch=512,context=2000,tp=8"
    done = CliRunner().invoke(app, ["run", "neupims", work + halves])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "KV cache of 1,024,000 tokens of all requests" in line
    assert re.search(r"it has 128 GiB: [\d,]+ tokens fit, 76 of 512 requests$", line)


def test_requests_that_fit_are_counted_in_their_order() -> None:
    graph = xs.workload("gpt3-7b", phase="decode", tp=4, contexts="100+1900+1900+50")
    small = xs.arch("neupims", {"hbm.rows": 8192, "hbm.capacity": "8 GiB"})
    with pytest.raises(CapacityError, match=r"3,950 tokens .* 2 of 4 requests"):
        xs.simulate(small, graph, mapper="pim-attention")
