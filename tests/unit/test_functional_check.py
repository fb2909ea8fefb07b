"""The verdict: right programs pass near their bound, faulty ones fail and name the element."""

import numpy as np
import pytest
import tiny_machine as tiny

from accelsim.functional.check import check, compare
from accelsim.functional.execute import Captures
from accelsim.functional.lowering import Lowering, lowerings
from accelsim.functional.reference import reference
from accelsim.functional.values import graph_values
from accelsim.numerics.splitmix import splitmix64
from accelsim.program.opcodes import Function, Opcode
from accelsim.program.table import OperatorInfo, StorageInfo
from accelsim.workload.operators import (
    Attention,
    Conv2d,
    EmbeddingGather,
    Gemm,
    KvAppend,
    RmsNorm,
    Rotary,
    Softmax,
)

GEMM = Gemm("mm", ("a", "b"), ("c",), m=8, n=8, k=44)
ROLES = ("input", "weight", "output")
FP16 = tiny.graph_of(GEMM, ("fp16", "fp16", "fp16"), ROLES)
INT8 = tiny.graph_of(GEMM, ("int8", "int8", "int32"), ROLES)


@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
@pytest.mark.parametrize("seed", [0, 1])
def test_right_program_passes_and_comes_near_its_bound(dataflow, seed):
    program = tiny.gemm_program(GEMM, FP16)
    verdict = check(tiny.arch(dataflow=dataflow), FP16, program, seed=seed)
    assert verdict.ok
    assert verdict.order == "program"
    assert 0.3 < verdict.max_error_over_bound <= 1.0
    assert not verdict.loose
    assert verdict.operators[0].compared == 64
    assert "sequential-fp32" in verdict.operators[0].arithmetic


def test_integers_must_be_equal():
    verdict = check(tiny.arch(), INT8, tiny.gemm_program(GEMM, INT8))
    assert verdict.ok
    assert verdict.max_error_over_bound == 0.0
    assert verdict.operators[0].arithmetic == "exact int32"


@pytest.mark.parametrize("graph", [FP16, INT8], ids=["fp16", "int8"])
@pytest.mark.parametrize(
    "mutation",
    [
        tiny.Mutation(drop_last_k=True),
        tiny.Mutation(skip_first_reset=True),
        tiny.Mutation(shift_b=2),
    ],
    ids=["dropped remainder", "accumulates onto garbage", "wrong address"],
)
def test_faulty_mapping_fails_and_names_the_element(graph, mutation):
    verdict = check(tiny.arch(), graph, tiny.gemm_program(GEMM, graph, mutation))
    assert not verdict.ok
    assert verdict.mismatches > 32
    assert verdict.first is not None
    assert str(verdict.first).startswith("mm: c[0, 0] is ")


def test_clock_order_reports_a_race():
    program = tiny.without_dependencies(tiny.gemm_program(GEMM, FP16), Opcode.MATMUL, tiny.LOADER)
    assert check(tiny.arch(), FP16, program).ok
    schedule = tiny.clock(program, [30, 5, 4, 1])
    verdict = check(tiny.arch(), FP16, program, schedule)
    assert verdict.order == "clock"
    assert not verdict.ok


def test_one_wrong_bit_beyond_the_bound_is_seen():
    program = tiny.gemm_program(GEMM, FP16)
    values = graph_values(FP16)
    operands = [values[n].astype(np.float64) for n in ("a", "b")]
    got = reference(GEMM, operands).astype(np.float16)
    facts = [Lowering(depth=4)]
    right = Captures("program", {("mm", "c"): got})
    assert compare(FP16, program, right, values, facts).ok
    wrong = got.copy()
    wrong[3, 5] = np.nextafter(np.nextafter(wrong[3, 5], np.float16(9)), np.float16(9))
    verdict = compare(FP16, program, Captures("program", {("mm", "c"): wrong}), values, facts)
    assert verdict.mismatches == 1
    assert verdict.first.index == (3, 5)


@pytest.mark.parametrize("garbage", [np.nan, np.inf], ids=str)
def test_garbage_is_a_mismatch(garbage):
    program = tiny.gemm_program(GEMM, FP16)
    captures = Captures("program", {("mm", "c"): np.full((8, 8), garbage, np.float16)})
    assert compare(FP16, program, captures, graph_values(FP16), [Lowering()]).mismatches == 64


def test_an_output_that_was_never_written_is_a_mismatch():
    program = tiny.gemm_program(GEMM, FP16)
    verdict = compare(FP16, program, Captures("program"), graph_values(FP16), [Lowering()])
    assert verdict.mismatches == 64


def softmax_program(op, graph, through):
    """Softmax of one tile whose exponentials are kept in ``through``."""
    build = tiny.machine()
    store = tiny.tensors(build, graph, {op.output: 0})
    build.begin_operator(OperatorInfo(op.name, op.kind, "hand", 0))
    x, out = (store[n].view(op.rows, op.cols, tiny.FP32) for n in (op.inputs[0], op.output))
    place = iter(range(0, 1 << 20, 1 << 16))

    def buffer(cols, fmt):
        extent = build.storage(
            StorageInfo("t", tiny.PAD, next(place), 4 * op.rows * cols, "buffer")
        )
        return extent.view(op.rows, cols, fmt)

    tile, e = buffer(op.cols, tiny.FP32), buffer(op.cols, tiny.number_format(through))
    top, y = buffer(1, tiny.FP32), buffer(op.cols, tiny.FP32)
    F, lanes = Function, tiny.LANES
    build.load(tiny.LOADER, tile, x)
    build.vector(lanes, F.ROW_MAX, top, tile)
    build.vector(lanes, F.SUB, e, tile, top)
    build.vector(lanes, F.EXP, e, e)
    build.vector(lanes, F.ROW_SUM, top, e)
    build.vector(lanes, F.RECIPROCAL, top, top)
    build.vector(lanes, F.MUL, y, e, top)
    build.store(tiny.STORER, out, y)
    return build.finish()


@pytest.mark.parametrize("through", ["fp32", "fp16", "bf16"])
def test_coarse_intermediates_widen_the_bound_and_nothing_else(through):
    op = Softmax("soft", ("x",), ("y",), rows=6, cols=37)
    graph = tiny.graph_of(op, ("fp32", "fp32"), ("input", "output"))
    program = softmax_program(op, graph, through)
    arch = tiny.arch()
    (fact,) = lowerings(program, [arch.units[s.unit] for s in program.units])
    assert fact.vector_format.name == through
    assert fact.row_sum_depth(37) == 9 + 2
    verdict = check(arch, graph, program)
    assert verdict.ok
    assert verdict.max_error_over_bound > 0.05


def test_lowering_reads_the_depth_of_sums():
    arch = tiny.arch(rows=4)
    program = tiny.gemm_program(GEMM, FP16)
    (fact,) = lowerings(program, [arch.units[s.unit] for s in program.units])
    # k = 44 in tiles of 8, folds of 4: the first product passes 3 + 1 + 2 * 4 + 1 additions.
    assert fact.depth == 13
    assert fact.summation(44).depth == 13


def test_accumulating_onto_an_unknown_sum_assumes_the_worst_order():
    program = tiny.gemm_program(GEMM, FP16, tiny.Mutation(skip_first_reset=True))
    arch = tiny.arch()
    (fact,) = lowerings(program, [arch.units[s.unit] for s in program.units])
    assert fact.depth is None
    assert fact.summation(44).depth == 44


# -- references against loops of a few lines ------------------------------------------------------


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_conv2d_reference_is_the_definition():
    op = Conv2d(
        "c", ("x", "w"), ("y",), batch=2, h=6, w=5, cin=4, fh=3, fw=2, cout=6, stride=(2, 1),
        padding=(1, 0, 0, 1), groups=2,
    )  # fmt: skip
    x, w = random(2, 6, 5, 4), random(3, 2, 2, 6, seed=1)
    got = reference(op, (x, w))
    for b, y, z, c in np.ndindex(got.shape):
        total = 0.0
        for i, j, k in np.ndindex(3, 2, 2):
            row, col = 2 * y - 1 + i, z + j
            if 0 <= row < 6 and 0 <= col < 5:
                total += x[b, row, col, c // 3 * 2 + k] * w[i, j, k, c]
        assert got[b, y, z, c] == pytest.approx(total, abs=1e-12)


def test_attention_reference_groups_heads_and_masks():
    op = Attention(
        "a", ("q", "k", "v"), ("o",), batch=2, heads=4, kv_heads=2, q_len=3, kv_len=5, head_dim=2,
        causal=True,
    )  # fmt: skip
    q, k, v = random(6, 8), random(2, 2, 5, 2, seed=1), random(2, 2, 5, 2, seed=2)
    got = reference(op, (q, k, v))
    for s, h, i in np.ndindex(2, 4, 3):
        seen = 5 - 3 + i + 1
        query = q[3 * s + i, 2 * h : 2 * h + 2]
        p = np.exp([query @ k[s, h // 2, j] / np.sqrt(2) for j in range(seen)])
        expected = (p / p.sum()) @ v[s, h // 2, :seen]
        assert got[3 * s + i, 2 * h : 2 * h + 2] == pytest.approx(expected, abs=1e-12)


def test_rotary_reference_rotates_pairs():
    op = Rotary(
        "r", ("x", "cos", "sin"), ("y",), heads=2, head_dim=4, tokens=3, q_len=3, table_rows=9,
        position=5,
    )  # fmt: skip
    angle = np.concatenate([random(9, 2), np.zeros((9, 2))], axis=1)
    angle[:, 2:] = angle[:, :2]
    x = random(3, 8, seed=1)
    got = reference(op, (x, np.cos(angle), np.sin(angle)))
    for t, h, i in np.ndindex(3, 2, 2):
        one, two = 4 * h + i, 4 * h + i + 2
        turned = (x[t, one] + 1j * x[t, two]) * np.exp(1j * angle[5 + t, i])
        assert got[t, one] == pytest.approx(turned.real)
        assert got[t, two] == pytest.approx(turned.imag)


def test_kv_append_reference_replaces_rows_only():
    op = KvAppend(
        "k", ("new", "cache"), ("cache",), batch=1, kv_heads=2, q_len=2, head_dim=3, kv_capacity=5,
        position=1,
    )  # fmt: skip
    new, cache = random(2, 6), random(1, 2, 5, 3, seed=1)
    got = reference(op, (new, cache))
    assert np.array_equal(got[0, 1, 2], new[1, 3:])
    assert np.array_equal(got[0, :, [0, 3, 4]], cache[0, :, [0, 3, 4]])


# -- seeded values --------------------------------------------------------------------------------


def test_splitmix64_is_the_published_sequence():
    # First outputs for seed 1234567, from the reference implementation of Vigna.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(1234567, 3).tolist() == expected


def test_values_depend_on_seed_and_name_only():
    first, again, other = (graph_values(FP16, seed) for seed in (1, 1, 2))
    assert first["a"].tobytes() == again["a"].tobytes()
    assert first["a"].tobytes() != other["a"].tobytes()
    assert set(first) == {"a", "b"}


def test_values_are_sized_for_their_consumers():
    values = graph_values(tiny.graph_of(
        Gemm("mm", ("a", "b"), ("c",), m=4, n=64, k=1024), ("fp16", "fp16", "fp16"), ROLES
    ))  # fmt: skip
    assert float(values["b"].std()) == pytest.approx(0.577 / 32, rel=0.05)
    norm = RmsNorm("n", ("x", "w"), ("y",), rows=4, cols=256)
    weight = graph_values(
        tiny.graph_of(norm, ("fp32", "fp32", "fp32"), ("input", "weight", "output"))
    )["w"]
    assert float(weight.mean()) == pytest.approx(1, abs=0.05)
    gather = EmbeddingGather("e", ("t", "i"), ("o",), vocab=10, hidden=4, tokens=200)
    ids = graph_values(
        tiny.graph_of(gather, ("fp16", "int32", "fp16"), ("weight", "input", "output"))
    )["i"]
    assert set(ids.tolist()) == set(range(10))


def test_integers_use_their_full_range():
    values = graph_values(INT8)["a"]
    assert values.min() < -120
    assert values.max() > 120


def test_blocks_do_not_show_in_the_values(monkeypatch):
    whole = graph_values(FP16)
    monkeypatch.setattr("accelsim.functional.values.BLOCK", 7)
    cut = graph_values(FP16)
    assert all(whole[name].tobytes() == cut[name].tobytes() for name in whole)
