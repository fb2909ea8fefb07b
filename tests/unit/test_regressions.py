"""Faults that were found once, by reading or by use, and must not come back."""

import pytest

from accelsim.api import arch, check, simulate
from accelsim.arch import Architecture
from accelsim.engine.bind import bind
from accelsim.errors import AccelsimError
from accelsim.hw.systolic import Systolic
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.opcodes import Function
from accelsim.program.table import OperatorInfo, StorageInfo
from accelsim.program.verify import verify

BF16, FP32 = FORMATS["bf16"], FORMATS["fp32"]


@pytest.mark.parametrize("heads", [1, 3, 12, 14, 33])
@pytest.mark.parametrize("machine", ["edge-npu", "quad-npu", "systolic"])
def test_rotary_with_narrow_tables_fits_whatever_the_width(machine: str, heads: int) -> None:
    work = f"rotary:heads={heads},d=64,tokens=40,q=20"
    assert check(machine, work, overrides=_tight(machine)).ok


def _tight(machine: str) -> dict[str, object]:
    """Scratchpads so small that a tile fills them."""
    names = [n for n, m in arch(machine).memories.items() if not m.shared]
    return {f"{name}.capacity": 12 << 10 for name in names}


@pytest.mark.parametrize(
    "work", ["softmax:rows=50,cols=300", "layernorm:rows=50,cols=200", "rmsnorm:rows=9,cols=400"]
)
@pytest.mark.parametrize("kib", [6, 8, 10, 16])
def test_rowwise_operators_fit_or_refuse_never_overflow(work: str, kib: int) -> None:
    try:
        good = check("edge-npu", work, overrides={"spad.capacity": kib << 10}).ok
    except AccelsimError as refusal:
        good = "one row of" in str(refusal)
    assert good


def test_long_chains_of_unused_buffers_do_not_recurse() -> None:
    model = "llama-2-7b:layers=1,hidden=16,heads=2,kv_heads=2,ffn=16,vocab=20"
    assert simulate("tpu-v3", f"{model},phase=prefill,batch=1200,tokens=2").cycles > 0


def _machine(**units: Systolic) -> Architecture:
    whole = arch("tpu-v3")
    return Architecture.build(
        name="mixed",
        clock="1 GHz",
        units={**units, "vpu": whole.units["vpu"], "dma": whole.units["dma"]},
        memories=whole.memories,
    )


def _array(size: int, count: int = 1) -> Systolic:
    names = {"inputs": "vmem", "weights": "vmem", "outputs": "vmem"}
    return Systolic(rows=size, cols=size, count=count, **names)


def test_unlike_arrays_are_not_treated_alike() -> None:
    result = simulate(_machine(small=_array(8), big=_array(32)), "gemm:m=64,n=64,k=64")
    assert result.utilization["small"] == 0
    assert result.utilization["big"] > 0
    assert any("unit small is left idle" in text for text in result.approximations)
    assert check(_machine(small=_array(8), big=_array(32)), "gemm:m=64,n=64,k=64").ok


def _builder(machine: Architecture) -> tuple[Builder, dict[str, int]]:
    build = Builder(machine.unit_slots(), machine.address_spaces())
    build.begin_operator(OperatorInfo("probe", "gemm", "", 8**3))
    return build, {s.name: i for i, s in enumerate(build.spaces)}


def test_a_unit_reaches_only_its_own_memories() -> None:
    machine = arch("tpu-v3")
    build, spaces = _builder(machine)
    far = [
        build.storage(StorageInfo(name, spaces["hbm"], 4096 * i, 1024, "input")).view(8, 8, BF16)
        for i, name in enumerate("ab")
    ]
    out = build.storage(StorageInfo("c", spaces["vmem"], 0, 256, "buffer")).view(8, 8, FP32)
    build.matmul(0, out, *far, accumulate=False)
    with pytest.raises(AccelsimError, match="unit 'mxu0' does not reach memory 'hbm'"):
        bind(build.finish(), machine)


@pytest.mark.parametrize("start", ["fill", "vector"])
def test_a_shared_sum_waits_for_whoever_started_it(start: str) -> None:
    build, spaces = _builder(arch("tpu-v3"))
    slots = {s.name: i for i, s in enumerate(build.units)}
    names = {"a": 0, "b": 4096, "c": 8192}
    a, b, c = (
        build.storage(StorageInfo(name, spaces["vmem"], base, 1024, "buffer"))
        for name, base in names.items()
    )
    for storage in (a, b):
        build.fill(slots["dma0"], storage.view(8, 8, BF16), 1.0)
    total = c.view(8, 8, FP32)
    build.fill(slots["dma0"], total, 0.0)
    if start == "vector":
        build.vector(slots["vpu"], Function.MUL_IMM, total, total, imm=0.5)
    for half, array in ((slice(0, 4), "mxu0"), (slice(4, 8), "mxu1")):
        build.matmul(
            slots[array],
            total[half, :],
            a.view(8, 8, BF16)[half, :],
            b.view(8, 8, BF16),
            accumulate=True,
            part=True,
        )
    program = build.finish()
    verify(program)
    # The two halves do not wait for each other.
    assert 3 + (start == "vector") not in program.deps[-1]


def test_partial_sums_are_read_back_once_per_added_fold() -> None:
    # 8 rows and K = 64: 8 folds, of which 7 add to an earlier one. Sums are 16 x 16 fp32.
    settings = {"array.rows": 8, "array.cols": 16, "ofmap.capacity": "1 MiB"}
    moved = {
        dataflow: simulate(
            "systolic",
            "gemm:m=16,n=16,k=64",
            memory="ideal",
            overrides={**settings, "array.dataflow": dataflow},
        ).traffic_bytes["ofmap"]
        for dataflow in ("ws", "os")
    }
    sums = 16 * 16 * 4
    assert moved["ws"] == {"read": (7 + 1) * sums, "write": 8 * sums}
    assert moved["os"] == {"read": sums, "write": sums}


def test_energy_of_a_gemm_by_hand() -> None:
    result = simulate("tpu-v3", "gemm:m=128,n=128,k=128", memory="ideal")
    machine = arch("tpu-v3")
    mxu = machine.units["mxu"]
    assert result.energy_pj["mxu"] == pytest.approx(128**3 * mxu.mac_pj)  # type: ignore[attr-defined]
    operand = 128 * 128 * 2
    # HBM2: 909 pJ open a row of 1 KiB, and a bit costs 3.48 pJ.
    price = 3 * operand * (909 / 1024 + 8 * 3.48)
    assert result.energy_pj["hbm"] == pytest.approx(price)


def test_slow_descriptors_make_the_dma_the_bottleneck() -> None:
    result = simulate("tpu-v3", "gemm:m=512,n=512,k=512", overrides={"dma.issue": 20000})
    assert result.bottleneck == "dma"


def test_what_takes_no_time_has_no_bottleneck() -> None:
    result = simulate("quad-npu", "embedding:vocab=10,hidden=64,tokens=4", memory="ideal")
    assert (result.cycles, result.bottleneck, result.operators[0].bottleneck) == (0, "none", "none")


def test_masked_work_is_not_counted_as_useful() -> None:
    half = simulate("tpu-v3", "attention:heads=4,q=256,kv=256,d=64,causal=true")
    whole = simulate("tpu-v3", "attention:heads=4,q=256,kv=256,d=64")
    assert half.bounds["mxu"] / whole.bounds["mxu"] == pytest.approx(half.macs / whole.macs)


def test_tile_choices_are_remembered_across_operators() -> None:
    from accelsim.mapping.tiling import promising_tilings

    promising_tilings.cache_clear()
    simulate(
        "tpu-v3", "llama-2-7b:layers=1,hidden=256,heads=4,kv_heads=4,ffn=512,vocab=99,tokens=9"
    )
    assert promising_tilings.cache_info().hits >= 3


def test_a_huge_convolution_is_refused_before_it_is_built() -> None:
    with pytest.raises(AccelsimError, match="tile instructions, more than the limit"):
        simulate(
            "systolic",
            "conv2d:h=1000000,w=1000000,cin=3,cout=16,fh=3,fw=3",
            overrides={"dram.capacity": "100 TiB"},
        )


@pytest.mark.parametrize("path", ["array.inputs", "array.outputs"])
def test_a_unit_on_a_shared_memory_is_refused(path: str) -> None:
    with pytest.raises(AccelsimError, match=r"unit 'array' works on 'dram', which all cores share"):
        simulate("systolic", "gemm:m=8,n=8,k=8", overrides={path: "dram"})


def test_negative_energy_is_refused() -> None:
    with pytest.raises(AccelsimError, match="mac_pj must not be negative"):
        arch("systolic", {"array.mac_pj": -1})


def test_every_vector_function_has_a_cost() -> None:
    from accelsim.hw.vector import SLOTS

    assert set(SLOTS) == {f.name.lower() for f in Function if f is not Function.NONE}


def test_spread_addresses_are_ranked_in_order() -> None:
    import numpy as np

    from accelsim.program.verify.cell_kernels import _rank

    generator = np.random.default_rng(0)
    for size in (1, 2, 3, 50, 1000):
        values = generator.integers(0, 1 << 40, size) // 3 * 3
        values = np.concatenate([values, values[: size // 2]])
        ranks, cuts = np.empty_like(values), np.empty_like(values)
        count = _rank(values, ranks, cuts)
        expected, positions = np.unique(values, return_inverse=True)
        assert np.array_equal(cuts[:count], expected)
        assert np.array_equal(ranks, positions)
