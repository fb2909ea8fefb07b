"""Coded weights on GPUs: cycles by hand, tiles, numbers, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from accelsim.api import arch, check, simulate, workload
from accelsim.encoding.encodings import CodedForm, encoding
from accelsim.engine.bind import bind
from accelsim.engine.merge import run
from accelsim.errors import AccelsimError
from accelsim.functional.check import load_image
from accelsim.functional.coded import coded_weights
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.hw.block import Work
from accelsim.hw.expansion import Expansion, Weights
from accelsim.hw.tensor_core import TensorCore
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMAT_CODES, number_format
from accelsim.numerics.orders import order_of
from accelsim.program.opcodes import Opcode
from accelsim.simulation import compile_program, plan_memory

FP16, FP32 = (FORMAT_CODES[name] for name in ("fp16", "fp32"))


def tensor(**changes):
    return TensorCore(**{
        "macs": 1024, "operands": "hbm", "accumulators": "registers",
        "tiles": ("128x256", "64x64"), "coded_tiles": ("16x256", "64x256"), "shared_width": 1 << 20,
        "fetch_width": 1 << 20, "sparse": True, "decode": {"int4": 64, "tiled-csl": 32}, **changes,
    })  # fmt: skip


def work(name, m, n, k, nbytes, rows, cols):
    """One product with a coded operand, on a CTA tile of ``rows`` x ``cols``."""
    one = (Opcode.MATMUL, 0, 0, m, n, k, nbytes, 0, FP16, FP32, 4 * rows * cols, 0, 0, nbytes)
    columns = [np.array([column], dtype=np.int64) for column in one]
    return Work(*columns, forms=(CodedForm(name, "fp16", k, n, True),))


def cycles(unit, *one):
    return int(unit.cost(work(*one)).occupancy_cycles[0])


def code_bytes(name, k, n, kept=None):
    return encoding(name).nbytes(n, k, number_format("fp16"), kept)


def test_sparse_weights_are_multiplied_at_twice_the_rate():
    nbytes = code_bytes("nm:2:4", 64, 256)
    cost = tensor().cost(work("nm:2:4", 128, 256, 64, nbytes, 128, 256))
    assert int(cost.occupancy_cycles[0]) == 1024  # 2048 of dense ones
    assert int(cost.actions["mac"][0]) == 128 * 256 * 64 // 2
    assert int(cost.actions["decoded"][0]) == 0


def test_codes_are_expanded_at_the_rate_of_the_threads():
    nbytes = code_bytes("int4:g128", 128, 256)
    cost = tensor().cost(work("int4:g128", 16, 256, 128, nbytes, 16, 256))
    # 16 x 256 x 128 products at 1024 per cycle are as many cycles as 128 x 256 codes at 64.
    assert int(cost.occupancy_cycles[0]) == 512
    assert int(cost.actions["decoded"][0]) == 128 * 256
    assert cycles(tensor(decode={"int4": 16}), "int4:g128", 16, 256, 128, nbytes, 16, 256) == 2048


def test_each_row_of_warps_expands_the_codes_again():
    nbytes, unit = code_bytes("int4:g128", 128, 256), tensor(decode={"int4": 8})
    short = cycles(unit, "int4:g128", 64, 256, 128, nbytes, 64, 256)
    again = cycles(replace(unit, warp_tile="16x64"), "int4:g128", 64, 256, 128, nbytes, 64, 256)
    assert (short, again) == (4096, 4 * 4096)


def test_a_scatter_takes_turns_with_the_other_accesses_to_shared_memory():
    unit, words = tensor(shared_width=128, tiles=("64x64",)), 4096
    # Of 64 k: 4 warps of 16 x 64 load 80 x 4 elements of each, 16 + 256 are stored, two bytes each.
    moved = (16 * 4 + 64 * 4 + 16 + 256) * 2 / 128 * 64
    assert cycles(unit, "tiled-csl", 16, 256, 64, 4 * words, 16, 256) == moved + words / 32


def test_codes_pass_through_shared_memory_as_they_are():
    unit = tensor(shared_width=8, decode={"int4": 1 << 20})
    nbytes = code_bytes("int4:g128", 128, 256)
    bits = nbytes * 8 / (128 * 256)
    moved = ((16 * 4 + 16) * 16 + (64 * 4 + 256) * bits) / 8 / 8 * 128
    assert cycles(unit, "int4:g128", 16, 256, 128, nbytes, 16, 256) == moved


@pytest.mark.parametrize(
    ("name", "bits", "stored"),
    [("nm:2:4", 9.0, 0.5), ("int4:g128", 4.125, 1.0), ("tiled-csl", 12.8, 0.4)],
)
def test_the_closed_form_knows_the_same_pipes(name, bits, stored):
    unit = tensor(shared_width=32, decode={"int4": 8, "tiled-csl": 4})
    weights = Weights(unit.expansion(name, 16), bits, stored)
    rows = unit.shapes_for(weights)[0][0]
    nbytes = round(bits * 256 * 128 / 8)
    expected = unit.main_loop_cycles((rows, 256), 128, 16, weights=weights)
    assert cycles(unit, name, rows, 256, 128, nbytes, rows, 256) == pytest.approx(
        expected, rel=0.01
    )


def test_what_is_read_and_how():
    unit = tensor()
    assert unit.expansion("nm:2:4", 16) == Expansion("multiplied", speedup=2)
    assert unit.expansion("nm:1:2", 32).speedup == 2
    assert unit.expansion("int4:col", 16) == Expansion("registers", 64)
    assert unit.expansion("tiled-csl", 16) == Expansion("scattered", 32)
    assert [unit.decodes(name) for name in ("nm:2:4", "nm:1:4", "bitmap")] == [True, False, False]


@pytest.mark.parametrize("name", ["nm:1:2", "nm:4:8", "bitmap", "int3:g128"])
def test_other_encodings_are_refused_in_one_line(name):
    with pytest.raises(AccelsimError, match=r"accepted: nm:2:4, int4:g128, tiled-csl$"):
        tensor().expansion(name, 16)


def test_bad_rates_are_refused():
    with pytest.raises(AccelsimError, match="must be positive"):
        tensor(decode={"int4": 0}).check()
    with pytest.raises(AccelsimError, match="unknown encoding"):
        tensor(decode={"zip": 1}).check()


def test_a_gpu_without_kernels_says_so():
    with pytest.raises(AccelsimError, match=r"stored as int4:g128; accepted: nm:2:4"):
        simulate(arch("a100", {"tensor.decode": {}}), "gemm:m=8,n=256,k=256,encoding=int4:g128")


@pytest.mark.parametrize(
    "how", ["sparsity=2:4", "encoding=int4:g128", "encoding=tiled-csl,sparsity=0.2"]
)
def test_numbers_of_coded_weights_with_k_in_parts(how):
    machine = arch("a100", {"cores": 6})
    result = check(machine, f"gemm:m=20,n=200,k=1152,dtype=fp16,bias=true,{how}")
    assert result.ok
    assert result.max_error_over_bound > 0


def test_experts_of_coded_weights():
    assert check(arch("a100", {"cores": 4}), "grouped_gemm:m=9+0+30,n=96,k=256,sparsity=2:4").ok


def test_only_stored_bytes_are_read():
    run = simulate("a100", "gemm:m=16,n=4096,k=4096,dtype=fp16,encoding=int4:g128")
    stored = 4096 * 4096 * 4.125 / 8
    assert stored <= run.traffic_bytes["hbm"]["read"] <= 1.02 * stored + 16 * 4096 * 2
    assert run.operators[0].macs == 16 * 4096 * 4096


def test_the_bound_of_sparse_products_is_half_that_of_dense_ones():
    bounds = [
        simulate("a100", f"gemm:m=256,n=256,k=4096,dtype=fp16{how}").bounds["tensor"]
        for how in ("", ",sparsity=2:4")
    ]
    assert bounds[0] == pytest.approx(2 * bounds[1], rel=1e-6)


def pruned(k, n, seed):
    """Weights with two of every four along k left, and the places of these."""
    rng = np.random.default_rng(seed)
    places = np.stack([
        np.sort(rng.permuted(np.tile(np.arange(4), (n, 1)), axis=1)[:, :2], axis=1)
        for _ in range(k // 4)
    ]) + 4 * np.arange(k // 4)[:, None, None]  # fmt: skip
    kept = places.transpose(1, 0, 2).reshape(n, k // 2)
    w = np.zeros((k, n), dtype=np.float32)
    for column, at in enumerate(kept):
        w[at, column] = rng.standard_normal(k // 2).astype(np.float16)
    return w, kept


@pytest.mark.parametrize(("name", "k"), [("ampere-mma", 64), ("hopper-wgmma", 96)])
def test_a_sparse_step_is_the_dense_step_on_the_selected_pairs(name, k):
    types = types_of("fp16", "fp16", "fp32")
    dense, sparse = (arithmetic(name).rule(types, order_of(tag)) for tag in ("chain", "sparse:2"))
    a = np.random.default_rng(3).standard_normal((5, k)).astype(np.float16).astype(np.float32)
    w, kept = pruned(k, 6, seed=4)
    found = sparse.multiply(a, w, None)
    for column, at in enumerate(kept):
        alone = dense.multiply(a[:, at], w[at, column : column + 1], None)
        assert found[:, column].tobytes() == alone[:, 0].tobytes()
    assert found.tobytes() != dense.multiply(a, w, None).tobytes()  # other steps, other bits


def test_the_order_of_sparse_products_is_told():
    order = tensor(arithmetic="hopper-wgmma").order(
        number_format("fp16"), 3, number_format("fp32"), number_format("fp16"), grain=128, speedup=2
    )
    assert str(order) == "split:3:128:forward:fp32;sparse:2"
    assert order_of(str(order)) == order
    with pytest.raises(AccelsimError, match="no sparse steps"):
        arithmetic("sequential-fp32").rule(types_of("fp16", "fp16", "fp32"), order_of("sparse:2"))


def test_waves_of_few_ctas_do_not_use_the_whole_memory():
    """96 wide tiles would leave 24 of 72 multiprocessors alone in a second wave."""
    run = simulate("a10", "gemm:m=16,n=24576,k=8192,dtype=fp16")
    assert run.seconds < 1.05 * 24576 * 8192 * 2 / (0.91 * 600e9)


@pytest.mark.parametrize(
    "how", ["sparsity=2:4", "encoding=int4:g128", "encoding=tiled-csl,sparsity=0.2"]
)
def test_a_program_gives_the_bits_of_its_order(how):
    """Tiles, chunks and parts of K that are executed are those that the order tells."""
    machine, k = arch("a100", {"cores": 12}), 3200
    graph = workload(f"gemm:m=20,n=150,k={k},dtype=fp16,{how}")
    plan = plan_memory(graph, machine, "bandwidth")
    program = compile_program(graph, graph.operators, machine, plan, "bandwidth")
    values = graph_values(graph, seed=7)
    coded = coded_weights(graph, values)
    memory = Memory(program)
    load_image(program, memory, values, coded)
    blocks = [machine.units[slot.unit] for slot in program.units]
    schedule = run(bind(program, machine).timed)
    (found,) = execute(program, blocks, memory, schedule).tensors.values()
    order = order_of(program.operators[0].order)
    assert order.slices > 1
    rule = arithmetic("ampere-mma").reduction(types_of("fp16", "fp16", "fp32"), order, k)
    a = values["gemm.a"].reshape(20, k).astype(np.float32)
    w = coded["gemm.b"].elements().reshape(k, 150).astype(np.float32)
    expected = rule.multiply(a, w, None).astype(np.float16)
    assert np.asarray(found).reshape(20, 150).tobytes() == expected.tobytes()


def test_whoever_reads_the_same_weight_cuts_it_alike(tmp_path):
    path = tmp_path / "tied.yaml"
    one = "kind: gemm, n: 1280, k: 2304, dtype: fp16, encoding: 'int4:g128'"
    path.write_text(
        f"name: tied\noperators:\n  - {{name: few, m: 8, {one}}}\n"
        f"  - {{name: many, m: 300, {one}, inputs: {{b: few.b}}}}\n"
    )
    machine, graph = arch("a100", {"cores": 10}), workload(str(path))
    plan = plan_memory(graph, machine, "bandwidth")
    program = compile_program(graph, graph.operators, machine, plan, "bandwidth")
    tiles = [tile for info in program.storages for tile in info.tiles]
    assert sum(tile.rows * tile.cols for tile in tiles) == 1280 * 2304  # none of it twice
    assert check(machine, graph).ok
