"""Tensor cores, SIMT lanes and the load/store path: cycles by hand, and bad parameters."""

from dataclasses import replace

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.hw.block import Work
from accelsim.hw.simt import LoadStore, Simt
from accelsim.hw.tensor_core import TensorCore, shape_of
from accelsim.numerics.formats import FORMAT_CODES
from accelsim.program.opcodes import Flag, Function, Opcode

FP16, INT8, FP32 = (FORMAT_CODES[name] for name in ("fp16", "int8", "fp32"))


def work(
    opcode, m, n, k=0, *, function=0, flags=0, read=0, write=0, source=FP16, target=FP32, held=0
):
    """One instruction; ``held`` is the size of the buffer it writes into."""
    columns = (opcode, function, flags, m, n, k, read, write, source, target, held)
    return Work(*(np.array([column], dtype=np.int64) for column in columns))


def tensor(**changes):
    return TensorCore(**{
        "macs": 1024, "operands": "hbm", "accumulators": "registers",
        "tiles": ("128x256", "128x128", "64x64"), **changes,
    })  # fmt: skip


def cycles(unit, one):
    cost = unit.cost(one)
    return int(cost.occupancy_cycles[0]), int(cost.latency_cycles[0])


def tile(unit, m, n, k, rows=128, cols=256, **rest):
    return cycles(unit, work(Opcode.MATMUL, m, n, k, held=4 * rows * cols, **rest))


def test_a_cta_takes_its_tile_times_k_over_the_peak():
    # 128 x 256 x 64 multiply-accumulates at 1024 per cycle.
    assert tile(tensor(), 128, 256, 64) == (2048, 2048)


def test_a_cta_at_the_edge_works_on_its_whole_tile():
    assert tile(tensor(), 3, 5, 64) == tile(tensor(), 128, 256, 64)
    assert tile(tensor(), 3, 5, 64, 128, 128)[0] == 1024


def test_k_is_padded_to_whole_steps():
    assert tile(tensor(k_step=32), 128, 256, 33) == tile(tensor(), 128, 256, 64)


def test_narrow_operands_are_faster_and_wide_ones_slower():
    assert tile(tensor(), 128, 256, 64, source=INT8)[0] == 1024
    assert tile(tensor(), 128, 256, 64, source=FP32)[0] == 4096


@pytest.mark.parametrize(("bits", "rate"), [(16, 1024), (8, 2048), (32, 512), (6, 2731)])
def test_the_peak_goes_with_the_width_of_the_factors(bits, rate):
    assert tensor().peak_macs_per_cycle(bits) == rate


def test_efficiency_stretches_the_main_loop():
    assert tile(tensor(efficiency=0.5), 128, 256, 64)[0] == 4096


def test_only_the_first_stretch_of_a_tile_pays_the_prologue():
    unit = tensor(prologue=100, drain=7)
    assert tile(unit, 128, 256, 64) == (2148, 2155)
    assert tile(unit, 128, 256, 64, flags=int(Flag.ACCUMULATE)) == (2048, 2055)


def test_small_tiles_are_limited_by_shared_memory():
    # 64 x 64 by four warps of 32 x 32: (4 x 64 + 128) x 2 B per k at 128 B per cycle, against 4
    # cycles of multiplication.
    assert tile(tensor(), 64, 64, 32, 64, 64)[0] == 32 * 6
    assert tile(tensor(shared_width=256), 64, 64, 32, 64, 64)[0] == 32 * 4


def test_a_warp_group_reads_its_operands_together():
    alone, group = tensor(), tensor(warp_tile="64x256", warp_group=4)
    shape = (128, 256)
    assert alone.shared_bytes_per_k(shape, 16) == (8 * 128 + 384) * 2
    assert group.shared_bytes_per_k(shape, 16) == (2 * 320 + 384) * 2


def test_panels_are_fetched_at_the_width_of_the_port():
    assert tile(tensor(fetch_width=64), 1, 64, 32, 64, 64, read=64 * 5000)[0] == 5000


def test_staged_operands_are_neither_fetched_nor_waited_for():
    unit = tensor(prologue=100, fetch_width=1)
    one = work(Opcode.MATMUL, 64, 64, 32, read=9000, held=4 * 64 * 64)
    staged = replace(one, staged_bytes=one.read_bytes)
    assert cycles(unit, one)[0] == 9100
    # Warps load their operands, 4 x 64 x 2 B per k, but nothing is stored into shared memory.
    assert cycles(unit, staged)[0] == 32 * 4
    assert unit.main_loop_cycles((64, 64), 32, 16, staged=True) == 32 * 4
    assert unit.main_loop_cycles((64, 64), 32, 16) == 32 * 6


def test_numbers_are_fp32_sums_in_ascending_k():
    a = np.array([[1e8, 1.0, -1e8]], dtype=np.float32)
    b = np.ones((3, 1), dtype=np.float32)
    assert tensor().multiply(a, b, None)[0, 0] == 0.0  # 1e8 + 1 rounds to 1e8
    assert tensor().multiply(a[:, ::-1].copy(), b, None)[0, 0] == 0.0
    assert tensor().summation_depth(5, None) == 4
    assert tensor().summation_depth(5, 3) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiles": ("128by256",)}, "'128by256' is no tile; accepted: ROWSxCOLS"),
        ({"tiles": ()}, "tiles must name at least one"),
        ({"efficiency": 0.0}, r"efficiency must be in \(0, 1\]"),
        ({"macs": 0}, "macs must be at least 1"),
        ({"prologue": -1}, "prologue must not be negative"),
    ],
)
def test_senseless_tensor_cores_are_refused(changes, message):
    with pytest.raises(AccelsimError, match=message):
        tensor(**changes).check()


def test_a_tile_is_written_as_rows_x_cols():
    assert shape_of("128x64") == (128, 64)


def lsu(**changes):
    return LoadStore(**{"lanes": 32, "access_slots": 8, "packet": 16, **changes})


def test_packets_cost_their_slots_once():
    # 1024 fp16 elements: 128 packets of 8 slots on 32 lanes.
    assert cycles(lsu(), work(Opcode.LOAD, 8, 128, read=2048)) == (32, 32)


def test_scalar_accesses_cost_their_slots_per_element():
    one = work(Opcode.LOAD, 8, 128, read=2048, flags=int(Flag.SCALAR))
    assert cycles(lsu(), one) == (256, 256)


def test_stores_count_the_format_in_memory():
    one = work(Opcode.STORE, 8, 128, write=2048, source=FP32, target=FP16)
    assert cycles(lsu(), one) == (32, 32)


def test_the_port_limits_what_is_moved():
    assert cycles(lsu(fetch_width=64), work(Opcode.LOAD, 8, 128, read=64 * 99))[0] == 99


def test_a_launch_takes_its_time_and_functions_theirs():
    lanes = Simt(lanes=64, memory=("registers",), latency=30, launch=1700, slots={"exp": 12})
    assert cycles(lanes, work(Opcode.LAUNCH, 0, 0)) == (1700, 1700)
    one = work(Opcode.VECTOR, 4, 64, function=int(Function.EXP), source=FP32)
    assert cycles(lanes, one) == (48, 78)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lsu(lanes=0), "lanes must be at least 1"),
        (lsu(access_slots=0), "access_slots must be at least 1"),
        (Simt(lanes=64, memory=("registers",), launch=-1), "launch must not be negative"),
    ],
)
def test_senseless_threads_are_refused(block, message):
    with pytest.raises(AccelsimError, match=message):
        block.check()
