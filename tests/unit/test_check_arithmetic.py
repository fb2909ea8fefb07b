"""What check says about arithmetic: orders that were declared, accumulators that are not there."""

import numpy as np
import pytest
from typer.testing import CliRunner

from accelsim import api
from accelsim.cli.main import app
from accelsim.errors import AccelsimError
from accelsim.functional.execute import takes_types
from accelsim.hw.systolic import Systolic
from accelsim.numerics.arithmetic import arithmetic as arithmetic_of
from accelsim.numerics.arithmetic import types_of
from accelsim.numerics.orders import Order, order_of
from accelsim.program.builder import Builder
from accelsim.program.table import OperatorInfo


def verdict(arch, work, **settings):
    found = api.check(arch, work, **settings)
    assert found.ok
    return found.operators[0]


@pytest.mark.parametrize(
    ("arch", "work", "arithmetic", "reduction"),
    [
        ("a100", "gemm:m=64,n=64,k=96", "ampere-mma (k8 f24 RZ fp32)", "chain:8"),
        (
            "a100",
            "gemm:m=64,n=64,k=2048",
            "ampere-mma (k8 f24 RZ fp32)",
            "split:8:32:forward:fp32;chain:8",
        ),
        (
            "a100",
            "gemm:m=64,n=64,k=2048,dtype=int8",
            "exact int32",
            "split:8:32:forward:int32;exact",
        ),
        (
            "h100",
            "gemm:m=64,n=64,k=256,dtype=fp8_e4m3",
            "hopper-wgmma (k32 f13 RZ-13 fp32; promote:128)",
            "promote:128;chain:32",
        ),
        ("h100", "gemm:m=9,n=9,k=64,dtype=fp16,accumulator=fp16", "k16 f25 RNE fp16", "chain:16"),
        (
            "systolic",
            "gemm:m=9,n=9,k=64,dtype=fp16",
            "sequential-fp32 (ws, folds of 32)",
            "fold:32",
        ),
        ("systolic", "gemm:m=9,n=9,k=64,dtype=int8", "exact int32", "exact"),
        (
            "hbm-npu",
            "attention:heads=1,q=40,kv=90,d=64,causal=true",
            "fp32 (1024 lanes)",
            "online:90;exp;p:bf16;sums:bf16:1024;reciprocal;fold:128",
        ),
        ("tpu-v3", "softmax:rows=4,cols=9", "fp32 (1024 lanes)", ""),
    ],
)
def test_arithmetic_and_order_are_told(arch, work, arithmetic, reduction):
    one = verdict(arch, work)
    assert arithmetic in one.arithmetic
    assert one.reduction == reduction


@pytest.mark.parametrize(
    ("name", "dataflow", "reduction"),
    [
        ("sequential-fp32", "os", "chain"),
        ("tree16-fp32", "os", "tree:16"),
        ("tree16-fp32", "ws", "fold:32;tree:16"),
        ("lanes4-fp32", "is", "fold:32;lanes:4"),
        ("fma-fp32", "os", "chain"),
    ],
)
def test_trees_and_lanes_are_told(name, dataflow, reduction):
    settings = {"array.arithmetic": name, "array.dataflow": dataflow}
    one = verdict("systolic", "gemm:m=9,n=9,k=64,dtype=fp16", overrides=settings)
    assert one.reduction == reduction
    types = types_of("fp16", "fp16", "fp32")
    rule = arithmetic_of(name).rule(types, order_of(reduction))
    array = api.as_arch("systolic", settings).units["array"]
    assert rule == array.rule(types)


def test_integers_saturate_where_the_architecture_says_so():
    """Sums of int16 that leave int32 are right both ways, and not the same."""
    work = "gemm:m=9,n=9,k=300,dtype=int16"
    found = [
        api.check("systolic", work, overrides={"array.arithmetic": name})
        for name in ("sequential-fp32", "sequential-fp32-satfinite")
    ]
    assert all(one.ok for one in found)
    assert [one.operators[0].arithmetic for one in found] == ["exact int32", SATURATING]
    assert [one.operators[0].bounded for one in found] == [False, True]
    small = api.check("a100", "gemm:m=9,n=9,k=300,dtype=int8", overrides={
        "tensor.arithmetic": "ampere-mma-satfinite"
    })  # fmt: skip
    assert small.ok
    assert small.operators[0].arithmetic == SATURATING
    assert small.max_error_over_bound == 0  # no sum can leave int32: equality


SATURATING = "exact int32, saturating"


@pytest.mark.parametrize(
    ("merge", "reduction"),
    [
        ("compute-type", "split:8:32:forward:fp32;chain:8"),
        ("output-type", "split:8:32:forward:bf16;chain:8"),
        ("inplace", "split:8:32:serial:bf16;chain:8"),
    ],
)
@pytest.mark.parametrize("rest", ["", ",bias=true,residual=true,activation=relu"])
def test_slices_are_merged_as_declared(merge, reduction, rest):
    work = f"gemm:m=70,n=50,k=2048,dtype=bf16{rest}"
    one = verdict("a100", work, overrides={"tensor.merge": merge})
    assert one.reduction == reduction
    assert 0.01 < one.max_error_over_bound <= 1
    assert api.simulate("a100", work, overrides={"tensor.merge": merge}).cycles > 0


@pytest.mark.parametrize("name", ["tree16-fp32", "tree4-fp32", "sequential-fp16", "lanes4-fp32"])
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_arrays_of_other_adders_stay_in_their_bound(name, dataflow):
    settings = {"array.arithmetic": name, "array.dataflow": dataflow}
    one = verdict("systolic", "gemm:m=40,n=30,k=70,dtype=fp16", overrides=settings)
    assert name in one.arithmetic
    assert 0.001 < one.max_error_over_bound <= 1


@pytest.mark.parametrize(
    "dtype", ["fp4_e2m1", "fp6_e2m3", "int4", "int2", "ternary", "uint4", "uint1"]
)
@pytest.mark.parametrize("arch", ["systolic", "tpu-v3", "edge-npu"])
def test_formats_narrower_than_a_byte_are_packed_in_memory(arch, dtype):
    one = verdict(arch, f"gemm:m=16,n=24,k=64,dtype={dtype}")
    assert one.compared == 16 * 24


def test_packed_rows_survive_copies_and_the_vector_unit():
    verdict("tpu-v3", "softmax:rows=30,cols=40,dtype=fp4_e2m1")
    verdict("systolic", "elementwise:function=add,rows=30,cols=40,dtype=int4")


@pytest.mark.parametrize(
    ("arch", "work", "says"),
    [
        (
            "h100",
            "gemm:m=64,n=64,k=64,accumulator=fp16",
            "hopper-wgmma has no bf16 x bf16 -> fp16; supported: fp16 -> fp32, fp16 -> fp16,"
            " bf16 -> fp32, tf32 -> fp32, fp8 -> fp32, fp8 -> fp16, int8 -> int32",
        ),
        ("a100", "gemm:m=64,n=64,k=64,dtype=fp8_e4m3", "ampere-mma has no fp8_e4m3 x fp8_e4m3"),
        ("h100", "gemm:m=64,n=64,k=64,dtype=int4", "hopper-wgmma has no int4 x int4 -> int32"),
        ("systolic", "gemm:m=8,n=8,k=8,dtype=fp64", "supported: floating point of at most fp32"),
        ("a100", "gemm:m=64,n=64,k=4096,dtype=fp64", "the lanes compute in fp32"),
        ("h100", "gemm:m=8,n=8,k=8,accumulator=fp17", "accumulator: unknown dtype 'fp17'"),
        ("tpu-v3", "gemm:m=8,n=8,k=511,dtype=int4", "511 values of int4 do not fill whole bytes"),
    ],
)
def test_what_a_unit_lacks_is_refused_in_one_line(arch, work, says):
    with pytest.raises(AccelsimError) as fault:
        api.check(arch, work)
    assert says in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_bound_counts_what_is_cut_off_where_something_is():
    """tf32 from memory loses nothing on entry, fp32 does."""
    tight, wide = (
        verdict("h100", f"gemm:m=40,n=48,k=200,dtype={dtype}") for dtype in ("tf32", "fp32")
    )
    assert 0.01 < tight.max_error_over_bound <= 1
    assert 0.01 < wide.max_error_over_bound <= 1


@pytest.mark.parametrize(
    ("work", "scale", "loose"),
    [
        ("gemm:m=8,n=8,k=64,dtype=bf16", 1.0, False),  # the store alone comes near
        ("gemm:m=8,n=8,k=2048,dtype=fp16,out=fp32", 1.0, True),
        ("gemm:m=4,n=4,k=20,dtype=fp8_e4m3", 2.0**-12, True),  # nothing but zeros
        ("gemm:m=8,n=8,k=64,dtype=int8", 1.0, False),  # judged by equality
        ("elementwise:function=max,rows=3,cols=4", 1.0, False),
    ],
)
def test_a_test_that_is_loose_says_so(work, scale, loose):
    found = api.check("systolic", work, scale=scale)
    assert found.ok
    assert found.loose is loose
    told = CliRunner().invoke(app, ["check", "systolic", work, "--scale", str(scale)]).stdout
    assert ("the bounds test little here" in told) is loose


@pytest.mark.parametrize("memory", ["ideal", "bandwidth"])
@pytest.mark.parametrize(
    ("arch", "dtype", "says"),
    [
        ("a100", "fp8_e4m3", "gemm on core0.tensor: ampere-mma has no fp8_e4m3 x .* bf16 -> fp32"),
        ("h100", "fp6_e2m3", "hopper-wgmma has no fp6_e2m3 .* supported: fp16 -> fp32"),
        ("systolic", "fp64", "gemm on array: sequential-fp32 has no fp64"),
    ],
)
def test_what_a_unit_lacks_is_not_timed_either(arch, dtype, says, memory):
    with pytest.raises(AccelsimError, match=says):
        api.simulate(arch, f"gemm:m=8,n=8,k=8,dtype={dtype}", memory=memory)


def test_the_command_says_it_and_exits_with_2():
    done = CliRunner().invoke(app, ["check", "h100", "gemm:m=8,n=8,k=8,accumulator=fp16"])
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("accelsim: error: instruction 1 of gemm on core0.tensor: hopper-wgmma")


@pytest.mark.parametrize(
    ("arch", "path", "value", "says"),
    [
        ("h100", "tensor.arithmetic", "hoper-wgmma", "did you mean 'hopper-wgmma'"),
        ("systolic", "array.arithmetic", "hopper-wgmma", "one of adders, not hopper-wgmma"),
        ("systolic", "array.arithmetic", "tree3-fp32", "unknown arithmetic 'tree3-fp32'"),
        ("h100", "tensor.promote_fp8", -1, "promote_fp8 must not be negative"),
    ],
)
def test_architectures_name_arithmetic_that_exists(arch, path, value, says):
    with pytest.raises(AccelsimError, match=says):
        api.as_arch(arch, {path: value})


def test_units_of_others_need_not_know_formats():
    class Plain(Systolic):
        def multiply(self, a, b, acc):
            return np.zeros((a.shape[0], b.shape[1]), dtype=np.float32)

    array = {"rows": 8, "cols": 8, "inputs": "sp", "weights": "sp", "outputs": "sp"}
    assert takes_types(Systolic(**array))
    assert not takes_types(Plain(**array))


def test_kernels_of_one_operator_promote_and_skip_alike():
    build = Builder((), ())
    build.begin_operator(OperatorInfo("attention", "attention", "", 0))
    for order in (Order(promote=128), Order(2, 128, 128), Order(promote=128)):
        build.reduce(order)
    with pytest.raises(AccelsimError, match="promote and skip alike"):
        build.reduce(Order())
