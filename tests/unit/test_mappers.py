"""Every built-in mapper computes the right numbers on machines of several shapes."""

import pytest

from accelsim.api import arch, check, simulate
from accelsim.errors import AccelsimError
from accelsim.mapping.registry import MAPPERS, load_builtin_mappers

ARCHS = ("tpu-v3", "edge-npu", "quad-npu", "systolic")
OPERATORS = (
    "gemm:m=100,n=150,k=70",
    "gemm:m=1,n=300,k=200",
    "gemm:m=33,n=65,k=97,dtype=int8",
    "gemm:m=33,n=65,k=97,dtype=int8,out=int8",
    "gemm:m=33,n=65,k=97,dtype=fp16,bias=true",
    "gemm:m=33,n=65,k=97,dtype=fp32,batch=3",
    "gemm:m=33,n=65,k=97,bias=true,residual=true,activation=silu,batch=2",
    "gemm:m=33,n=65,k=97,bias=true,residual=true,activation=relu,dtype=int8",
    "gemm:m=20,n=40,k=30,batch=5,broadcast_b=true,transpose_b=true",
    "gemv:n=129,k=257",
    "attention:heads=8,kv_heads=2,q=1,kv=100,d=64,batch=3",
    "attention:heads=4,kv_heads=1,q=30,kv=30,d=32",
    "attention:heads=4,kv_heads=4,q=30,kv=50,d=32,causal=true",
    "attention:heads=4,kv_heads=2,q=30,kv=50,d=32,causal=true,cached=false,batch=2,dtype=fp32",
    "linear_attention:heads=4,q=300,d=32",
    "linear_attention:heads=4,q=150,d=32,dv=48,batch=2,decay=gated,state=true,dtype=fp16",
    "state_update:heads=3,q=150,d=64,decay=fixed",
    "conv2d:h=20,w=18,cin=16,cout=24,fh=3,fw=3",
    "conv2d:h=14,w=15,cin=8,cout=16,fh=3,fw=5,padding=2,stride=2",
    "conv2d:h=10,w=10,cin=16,cout=16,fh=3,fw=3,padding=1,groups=16",
    "conv2d:h=9,w=8,cin=16,cout=8,fh=3,fw=3,padding=1,groups=4,dtype=int8,batch=2,bias=true",
    "conv2d:h=7,w=7,cin=3,cout=5,fh=1,fw=1",
    "conv2d:h=8,w=6,cin=5,cout=7,fh=3,fw=3,padding=1,batch=6,bias=true,residual=true",
    "conv2d:h=9,w=9,cin=20,cout=30,fh=1,fw=1,stride=2,bias=true,activation=gelu",
    "pool2d:function=max,h=9,w=8,channels=20,fh=3,fw=3,stride=2,padding=1,batch=3",
    "pool2d:function=max,h=6,w=7,channels=5,fh=2,fw=3,dtype=int8",
    "pool2d:function=max,h=5,w=5,channels=3,fh=3,fw=3,padding=1,dtype=fp8_e4m3",
    "pool2d:function=mean,h=7,w=7,channels=33,fh=7,fw=7,batch=2",
    "softmax:rows=100,cols=200",
    "layernorm:rows=70,cols=300",
    "rmsnorm:rows=70,cols=300",
    "rotary:heads=4,d=16,tokens=20",
    "rotary:heads=4,d=16,tokens=20,q=1,position=5",
    "rotary:heads=2,d=8,tokens=12,q=4,position=3",
    "activation:function=quick_gelu,rows=51,cols=300",
    "activation:function=gelu_tanh,rows=7,cols=33,dtype=fp32",
    "glu:function=silu,rows=51,cols=300",
    "glu:function=gelu_tanh,rows=7,cols=33,dtype=fp32",
    "elementwise:function=sub,rows=51,cols=300,broadcast_b=true",
    "elementwise:function=max,rows=51,cols=300,dtype=int8",
    "residual:rows=51,cols=300",
    "embedding:vocab=1000,hidden=64,tokens=20",
    "kv_append:kv_heads=3,q=5,d=16,batch=2,capacity=20,position=7",
    "grouped_gemm:m=5+0+100+1+5,n=65,k=97",
    "grouped_gemm:m=0+3,n=33,k=40,dtype=int8",
    "grouped_gemm:m=20+21+19+20+22+18+20+20,n=40,k=30,dtype=fp16,out=fp32",
    "expert_gate:tokens=51,experts=20,top_k=3,normalise=true,scale=2.5,bias=true",
    "expert_gate:tokens=3,experts=300,top_k=6,scale=16,dtype=fp32",
    "expert_gate:tokens=1,experts=8,top_k=1",
    "expert_combine:tokens=51,hidden=300,top_k=3,rows=70",
    "expert_combine:tokens=3,hidden=33,top_k=1,rows=2,dtype=fp16",
    "expert_combine:tokens=20,hidden=300,top_k=2,rows=9,copies=true,dtype=fp32",
)
ATTENTION = "attention:heads=4,kv_heads=2,q=30,kv=50,d=32,causal=true"
SMALL = "layers=2,hidden=64,ffn=96,vocab=100,batch=2"
STREAMING = ("stream-naive", "stream-naive-max", "stream-reordered", "stream-running-max")
NOT_ON_GPU = ("conv2d", "pool2d")
OTHER_GPU_ATTENTION = (
    *("gpu-attention", "gpu-flash-attention-unsplit", "gpu-unified-max-attention"),
)
GPU_STEP = "llama-2-7b:phase=train,layers=1,hidden=32,ffn=48,vocab=60,context=9,heads=4,kv_heads=2"
MODELS = (
    f"gpt2:{SMALL},heads=4,positions=64,tokens=12",
    f"opt-125m:{SMALL},heads=4,tokens=12",
    f"bert-base:{SMALL},heads=4,tokens=12",
    f"llama-2-7b:{SMALL},heads=4,kv_heads=4,tokens=12",
    f"llama-2-7b:{SMALL},heads=4,kv_heads=4,phase=decode,context=17",
    f"mistral-7b:{SMALL},heads=4,kv_heads=1,tokens=12",
    f"qwen2.5-7b:{SMALL},heads=4,kv_heads=2,phase=decode,context=17,dtype=fp16",
    f"mixtral-8x7b:{SMALL},heads=4,kv_heads=2,tokens=12",
)


@pytest.mark.parametrize("order", ["program", "clock"])
@pytest.mark.parametrize("machine", ARCHS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_operator_is_exact(machine: str, operator: str, order: str) -> None:
    result = check(machine, operator, order=order)
    assert result.ok, result.first
    assert not result.unchecked


@pytest.mark.parametrize("machine", ARCHS)
@pytest.mark.parametrize("operator", [op for op in OPERATORS if op.startswith("attention")])
def test_unfused_attention_is_exact(machine: str, operator: str) -> None:
    result = check(machine, operator, mapper="unfused-attention")
    assert result.ok, result.first


@pytest.mark.parametrize("machine", ARCHS)
@pytest.mark.parametrize("model", MODELS)
def test_model_is_exact_in_clock_order(machine: str, model: str) -> None:
    result = check(machine, model)
    assert result.ok, result.first


@pytest.mark.parametrize("order", ["program", "clock"])
@pytest.mark.parametrize("operator", [op for op in OPERATORS if not op.startswith(NOT_ON_GPU)])
def test_gpu_operator_is_exact(operator: str, order: str) -> None:
    result = check("a100", operator, order=order, overrides={"cores": 5})
    assert result.ok, result.first
    assert not result.unchecked


@pytest.mark.parametrize("order", ["program", "clock"])
@pytest.mark.parametrize("operator", [op for op in OPERATORS if op.startswith("attention")])
@pytest.mark.parametrize("mapper", OTHER_GPU_ATTENTION)
def test_other_gpu_attention_is_exact(mapper: str, operator: str, order: str) -> None:
    result = check("a100", operator, order=order, mapper=mapper, overrides={"cores": 5})
    assert result.ok, result.first


@pytest.mark.parametrize("model", MODELS)
def test_gpu_model_is_exact_in_clock_order(model: str) -> None:
    result = check("h100", model, overrides={"cores": 7})
    assert result.ok, result.first


@pytest.mark.parametrize("kind", ["conv2d:h=7,w=7,cin=3,cout=5,fh=1,fw=1"])
def test_what_a_gpu_cannot_run_is_named(kind: str) -> None:
    with pytest.raises(AccelsimError, match=r"conv2d.*no unit of a100 can run it"):
        simulate("a100", kind)


@pytest.mark.parametrize("shape", ["m=300,n=200,k=100", "m=1,n=777,k=300", "m=640,n=640,k=90"])
@pytest.mark.parametrize("machine", ["onnxim-mobile", "onnxim-server"])
def test_gemmini_heuristic_is_exact(machine: str, shape: str) -> None:
    for extra in (
        "",
        ",dtype=int8,out=int8",
        ",transpose_b=true,batch=2",
        ",bias=true,residual=true",
    ):
        result = check(machine, f"gemm:{shape}{extra}")
        assert result.ok, result.first


def test_every_builtin_mapper_is_exercised_here() -> None:
    load_builtin_mappers()
    used = set()
    for operator in (*OPERATORS, *MODELS):
        for machine in ("tpu-v3", "edge-npu"):
            used.update(simulate(machine, operator).mapper.split("+"))
    used.update(simulate("onnxim-server", "gemm:m=9,n=9,k=9").mapper.split("+"))
    apart = {"vpu.memory": ["ofmap"]}
    used.update(simulate("systolic", ATTENTION, overrides=apart).mapper.split("+"))
    for operator in OPERATORS:
        if not operator.startswith(NOT_ON_GPU):
            gpu = simulate("a100", operator, overrides={"cores": 2})
            used.update(gpu.mapper.split("+"))
    short = "attention:heads=1,q=9,kv=9,d=8"
    used.update(simulate("hbm-npu", ATTENTION, mapper="unified-max-attention").mapper.split("+"))
    for name in STREAMING:
        used.update(simulate("stream-sdpa", short, mapper=name).mapper.split("+"))
    for name in OTHER_GPU_ATTENTION:
        used.update(simulate("a100", ATTENTION, mapper=name).mapper.split("+"))
    for network in ("resnet18-cifar:size=16", "vit-small:size=32,dtype=bf16"):
        used.update(simulate("edge-npu", f"{network},phase=train").mapper.split("+"))
    used.update(simulate("sat", "prune_weight:rows=16,cols=8,kept=2,group=8").mapper.split("+"))
    used.update(simulate("h200", "rmsnorm:rows=4,cols=64").mapper.split("+"))
    gpu = {"cores": 2}
    used.update(simulate("a100", GPU_STEP, overrides=gpu).mapper.split("+"))
    decode = "gpt3-7b:phase=decode,layers=1,heads=2,hidden=256,ffn=64,vocab=64,batch=2,context=9"
    used.update(simulate("neupims", decode, mapper="pim-attention").mapper.split("+"))
    used.update(simulate("neupims", "gemm:m=1,n=2048,k=2048,dtype=fp16").mapper.split("+"))
    used.update(simulate("pim-gpt", decode).mapper.split("+"))
    heads = "attention:heads=2,q=1,kv=37,d=64,dtype=fp16"
    used.update(simulate("attacc", heads, mapper="attacc-attention").mapper.split("+"))
    assert used == set(MAPPERS)


def test_integer_sum_saturates_into_a_narrow_result() -> None:
    # 127*127*500 overflows int8 by far: the comparison would fail if the store wrapped.
    assert check("systolic", "gemm:m=16,n=16,k=500,dtype=int8,out=int8").ok


@pytest.mark.parametrize("missing", ["vector", "dma"])
def test_an_operator_that_no_unit_can_run_is_named(missing: str) -> None:
    machine = arch("tpu-v3")
    kept = {name: unit for name, unit in machine.units.items() if unit.kind != missing}
    crippled = type(machine)(
        name="crippled", clocks=machine.clocks, units=kept, memories=machine.memories
    )
    with pytest.raises(AccelsimError, match=rf"softmax.*no unit of crippled.*needs .*{missing}"):
        simulate(crippled, "softmax:rows=4,cols=4")
