"""Arrays of N:M cells: cycles against cells that are stepped one by one, what moves, and bits."""

import itertools

import numpy as np
import pytest

import accelsim.api as xs
from accelsim.errors import AccelsimError
from accelsim.functional.check import load_image
from accelsim.functional.coded import coded_weights
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.hw.block import Work
from accelsim.hw.sparse_systolic import SparseSystolic, pattern_of
from accelsim.hw.systolic import Systolic
from accelsim.program.opcodes import Opcode

MEMORIES = {"inputs": "a", "weights": "b", "outputs": "c"}


def array(**parameters):
    return SparseSystolic(**{"rows": 4, "cols": 3, **MEMORIES, **parameters})


def cycles(unit, m, n, k):
    return tuple(int(x[0]) for x in unit.cycles(*(np.array([d]) for d in (m, n, k))))


def product(m, n, k):
    one = np.ones(1, dtype=np.int64)
    return Work(
        one * Opcode.MATMUL, 0 * one, 0 * one, one * m, one * n, one * k,
        0 * one, 0 * one, one, one, 0 * one,
    )  # fmt: skip


def test_dense_products_run_as_on_any_array():
    rng = np.random.default_rng(1)
    for _ in range(300):
        settings = {
            "rows": int(rng.choice([4, 8, 32])), "cols": int(rng.choice([4, 8, 32])),
            "dataflow": str(rng.choice(["ws", "os", "is"])), "pipelined": bool(rng.integers(2)),
            "load_used_rows": bool(rng.integers(2)), "switch": int(rng.integers(3)),
        }  # fmt: skip
        plain, sparse = Systolic(**settings, **MEMORIES), SparseSystolic(**settings, **MEMORIES)
        dims = tuple(int(d) for d in rng.integers(1, 100, 3))
        assert cycles(plain, *dims) == cycles(sparse, *dims)
        work = product(*dims)
        for mine, theirs in zip(
            sparse.operand_passes(work), plain.operand_passes(work), strict=True
        ):
            assert mine.tolist() == theirs.tolist()


class Cells:
    """A grid of cells stepped product by product: one multiplication per cell and cycle, an adder
    of some latency, operands that move on by one cell per cycle."""

    def __init__(self, rows, cols, latency):
        self.rows, self.cols, self.latency = rows, cols, latency
        self.issued = {}

    def run_down(self, items, turns, interleave):
        """Partial sums run down the rows; every cell adds ``turns`` products to each."""
        for r, c in itertools.product(range(self.rows), range(self.cols)):
            clock = -1
            for first in range(0, items, interleave):
                batch = range(first, min(first + interleave, items))
                for turn, item in itertools.product(range(turns), batch):
                    start = clock + 1
                    if turn:
                        start = max(start, self.issued[r, c, item, turn - 1] + self.latency)
                    elif r:
                        above = self.issued[r - 1, c, item, turns - 1] + self.latency
                        start = max(start, above)
                    if c:
                        start = max(start, self.issued[r, c - 1, item, turn] + 1)
                    clock = self.issued[r, c, item, turn] = start
        return max(self.issued.values()) + self.latency

    def stay(self, results, products):
        """Every cell keeps ``results`` sums and takes ``products`` onto each."""
        for r, c in itertools.product(range(self.rows), range(self.cols)):
            clock = r + c - 1
            for step, result in itertools.product(range(products), range(results)):
                start = clock + 1
                if step:
                    start = max(start, self.issued[r, c, result, step - 1] + self.latency)
                clock = self.issued[r, c, result, step] = start
        return max(self.issued.values()) + self.latency


PATTERNS = ("nm:1:4", "nm:2:4", "nm:2:8", "nm:4:8", "nm:3:5", "nm:4:4")


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("latency", "interleave"), [(1, 1), (4, 1), (4, 4), (3, 8)])
@pytest.mark.parametrize("groups", ["time", "rows"])
def test_a_stationary_fold_takes_what_its_cells_take(name, latency, interleave, groups):
    kept, group = pattern_of(name).kept, pattern_of(name).group
    unit = array(
        accumulate_latency=latency, interleave=interleave, pipelined=False, groups=groups,
    ).taking(name)  # fmt: skip
    depth = (4 if groups == "time" else 4 // kept) * group
    turns, items = (kept if groups == "time" else 1), 2 * interleave
    cells = Cells(4, 3, latency).run_down(items, turns, interleave)
    load = 4 * turns
    for dataflow, dims in {"ws": (items, 3, depth), "is": (3, items, depth)}.items():
        one = SparseSystolic(
            **{f: getattr(unit, f) for f in ("rows", "cols", "pipelined", "groups")},
            accumulate_latency=latency, interleave=interleave, dataflow=dataflow, **MEMORIES,
        ).taking(name)  # fmt: skip
        assert cycles(one, *dims)[1] == load + cells
        deeper = (*dims[:2], depth + group)
        assert cycles(one, *deeper)[0] == 2 * (load + cells)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("latency", "interleave"), [(1, 1), (4, 1), (4, 4), (3, 8), (6, 2)])
def test_a_fold_of_results_takes_what_its_cells_take(name, latency, interleave):
    pattern = pattern_of(name)
    unit = array(
        accumulate_latency=latency, interleave=interleave, dataflow="os", pipelined=False
    ).taking(name)
    for results in range(1, interleave + 1):
        found = cycles(unit, 4 * results, 3, 6 * pattern.group)[1]
        assert found == Cells(4, 3, latency).stay(results, 6 * pattern.kept)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_without_interleaving_a_sum_waits_for_its_adder(dataflow):
    def busy(**parameters):
        unit = array(rows=32, cols=32, dataflow=dataflow, accumulate_latency=8, **parameters)
        return cycles(unit.taking("nm:2:8"), 1024, 1024, 1024)[0]

    slowed = busy(interleave=1) / busy(interleave=8)
    # Where sums run down the rows only the second of two products waits: 1 + 8 cycles for 2.
    assert slowed == pytest.approx(8.0 if dataflow == "os" else 4.5, rel=0.01)
    assert busy(interleave=8) == busy(interleave=16)


@pytest.mark.parametrize("groups", ["time", "rows"])
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("name", ["nm:1:4", "nm:2:4", "nm:2:8", "nm:2:16", "nm:4:8", "nm:8:8"])
def test_large_products_gain_what_is_left_out(groups, dataflow, name):
    unit = array(rows=32, cols=32, groups=groups, dataflow=dataflow)
    pattern = pattern_of(name)
    dims = (2048, 2048, 2048)
    gain = cycles(unit, *dims)[0] / cycles(unit.taking(name), *dims)[0]
    assert gain == pytest.approx(pattern.group / pattern.kept, rel=0.001)


# -- programs: what moves, and the bits ----------------------------------------------------------

SMALL = {"array.rows": 8, "array.cols": 8, "array.interleave": 2}


def text(m, n, k, pattern, dtype, **more):
    rest = "".join(f",{key}={value}" for key, value in more.items())
    return f"gemm:m={m},n={n},k={k},dtype={dtype},sparsity={pattern}{rest}"


def chains(a, w, kept, group, fold, width=np.float32):
    """Sums of kept products only, in ascending k, in folds of ``fold`` of k; one loop per step."""
    (m, k), n = a.shape, w.shape[1]
    total = np.zeros((m, n), width)
    for first in range(0, k, fold or k):
        psum = total if not fold else np.zeros((m, n), width)
        for g in range(first, min(first + (fold or k), k), group):
            places = np.argsort(-np.abs(w[g : g + group].astype(np.float64)), axis=0, kind="stable")
            places = np.sort(places[:kept], axis=0)
            for j in range(kept):
                values = np.take_along_axis(w[g : g + group], places[j][None], axis=0)
                psum = psum + a[:, g + places[j]] * values
        total = psum if not fold else total + psum
    return total


@pytest.mark.parametrize("groups", ["time", "rows"])
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("pattern", ["1:4", "2:4", "2:8", "4:8", "3:5"])
def test_bits_are_those_of_kept_products_in_the_arrays_order(groups, dataflow, pattern):
    kept, group = (int(part) for part in pattern.split(":"))
    m, n, k = 19, 21, group * 13
    overrides = {**SMALL, "array.dataflow": dataflow, "array.groups": groups}
    arch = xs.arch("sat", overrides)
    graph = xs.workload(text(m, n, k, pattern, "fp16", out="fp32"))
    run = xs.simulate(arch, graph)
    values = graph_values(graph)
    coded = coded_weights(graph, values)
    program = run.segments[0].bound.program
    memory = Memory(program)
    load_image(program, memory, values, coded)
    captures = execute(program, [arch.units[slot.unit] for slot in program.units], memory)
    found = captures.tensors[("gemm", graph.operators[0].output)]
    a, w = (values[name].astype(np.float32).reshape(s) for name, s in zip(
        graph.operators[0].inputs, ((m, k), (k, n)), strict=True))  # fmt: skip
    rows = 8 if groups == "time" else 8 // kept
    fold = 0 if dataflow == "os" else rows * group
    expected = chains(a, w, kept, group, fold)
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))
    if fold and fold < k:  # the cut of the folds shows in the bits
        assert not np.array_equal(expected, chains(a, w, kept, group, fold + group))


@pytest.mark.parametrize("dtype", ["int8", "fp16", "bf16"])
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_products_and_convolutions_are_right(dataflow, dtype):
    overrides = {**SMALL, "array.dataflow": dataflow}
    for workload in (
        text(33, 17, 96, "2:8", dtype),
        text(5, 40, 48, "3:4", dtype, transpose_b="true", bias="true", activation="relu"),
        text(9, 20, 32, "2:16", dtype, batch=2, broadcast_b="true"),
        f"conv2d:h=6,w=5,cin=16,cout=12,fh=3,fw=3,padding=1,dtype={dtype},sparsity=2:4",
        f"conv2d:h=6,w=6,cin=16,cout=32,fh=3,fw=3,groups=2,stride=2,dtype={dtype},sparsity=2:8",
    ):
        assert xs.check("sat", workload, overrides=overrides).ok, workload


def test_weights_come_compact_with_their_indices():
    run = {p: xs.simulate("sat", text(64, 512, 2048, p, "fp16")) for p in ("2:4", "2:8", "1:4")}
    moved = {p: r.traffic_bytes["ddr"]["read"] for p, r in run.items()}
    activations = 64 * 2048 * 2
    weights = 2048 * 512 * 2
    # 16 bits and an index of log2 M of N in M.
    for pattern, bits in (("2:4", 9), ("2:8", 4.75), ("1:4", 4.5)):
        assert moved[pattern] - activations == pytest.approx(weights * bits / 16, rel=0.01)


def test_kept_products_and_choices_are_counted():
    run = xs.simulate("sat", text(64, 64, 256, "2:8", "fp16"))
    assert run.macs == 64 * 64 * 64
    counted = run.segments[0].bound.actions["array"]
    assert {name: int(count.sum()) for name, count in counted.items()} == {
        "mac": 64 * 64 * 64, "mux": 64 * 64 * 64, "index_bit": 64 * 64 * 3,
    }  # fmt: skip


def test_activations_come_m_over_n_times_as_fast():
    """Where the activation memory gives no more than a dense array takes, nothing is gained."""
    narrow = {"activations.width": 2}
    dense = xs.simulate("sat", "gemm:m=512,n=512,k=512,dtype=fp16", overrides=narrow).cycles
    sparse = xs.simulate("sat", text(512, 512, 512, "2:8", "fp16"), overrides=narrow).cycles
    wide = xs.simulate("sat", text(512, 512, 512, "2:8", "fp16")).cycles
    assert sparse > 0.9 * dense
    assert wide < 0.3 * dense


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ("gemm:m=4,n=8,k=12,sparsity=5:4", "5:4 keeps 5 of 4; accepted: N:M with 1 <= N <= M"),
        ("gemm:m=4,n=8,k=10,sparsity=2:4", "k 10 is not a whole number of groups of 4"),
        ("gemm:m=4,n=8,k=10,sparsity=2:4", "padded with zeros to 12"),
        ("gemm:m=8,n=8,k=64,sparsity=2:32", "nm:2:32.*no decoder"),
        ("gemm:m=8,n=8,k=64,sparsity=0.5", "bitmap.*no decoder"),
    ],
)
def test_what_the_cells_do_not_take_is_refused(workload, said):
    with pytest.raises(AccelsimError, match=said):
        xs.simulate("sat", workload)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"mux": 0}, "mux must be from 1 to 256"),
        ({"interleave": 0}, "interleave must be at least 1"),
        ({"accumulate_latency": 0}, "accumulate_latency must be at least 1"),
        ({"arithmetic": "tree16-fp32"}, "one product after the other"),
    ],
)
def test_bad_parameters_are_named(parameters, said):
    with pytest.raises(AccelsimError, match=said):
        array(**parameters).check()
