"""Whole programs against a second interpreter: every mapper, every architecture, format by format
(training steps in test_scalar_steps).

What ``check`` executes, in the clock's order and in program order, must leave the same bytes in
every tensor as tests/equivalence/scalar_machine.py, which computes one element at a time and shares
no code with accelsim.functional and accelsim.numerics.
"""

import math
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import scalar_codes
import scalar_machine
import scalar_numbers
import scalar_products

from accelsim import api
from accelsim.engine.bind import bind
from accelsim.engine.merge import run as run_engine
from accelsim.functional.check import load_image
from accelsim.functional.coded import coded_weights
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.simulation import compile_program, plan_memory

FLOATS = ("fp16", "bf16", "fp8_e4m3", "fp8_e5m2", "fp32")
A100 = ("fp16", "bf16", "fp32")  # it has no fp8
ALL = (*FLOATS, "int8")
BANKS = ("fp16", "bf16")
SCORES = ("fp16", "bf16", "fp8_e5m2", "fp32")  # small ones are 0 in e4m3, and 0 / 0 a NaN
# Narrow operands and every bit of their sums.
SUMS = (*(f"{name},out=fp32" for name in FLOATS), "int8")
DECODE = "gpt2:layers=1,hidden=32,heads=2,ffn=20,vocab=37,positions=8,phase=decode,context=5"
SMALL = "layers=1,hidden=12,heads=2,ffn=20,vocab=9,tokens=3"

# architecture, mapper, workload, formats; "-" chooses the mapper as ``check`` does.
LATENT = "attention:heads=2,kv_heads=1,q=2,kv=21,d=6,rope_dim=4,latent=true"
PAGED = "kv_append:kv_heads=2,q=7,d=6,batch=2,capacity=20,position=8,page=4,prefix=8"
PREFIX = "attention:heads=4,kv_heads=2,q=1,kv=45,d=6,batch=2,page=8,prefix=16"
LINEAR = "heads=3,q=11,d=6,dv=5,chunk=4,state=true"
CASES = [
    # Matrix products: K beyond one fold, remainders in every dimension.
    ("tpu-v3", "systolic-gemm", "gemm:m=3,n=5,k=133", SUMS),
    ("hbm-npu", "systolic-gemm", "gemm:m=3,n=5,k=133", ALL),
    ("onnxim-server", "systolic-gemm", "gemm:m=3,n=5,k=133", SUMS),
    ("edge-npu", "systolic-gemm", "gemm:m=5,n=19,k=37", SUMS),
    ("mesh-npu", "systolic-gemm", "gemm:m=35,n=33,k=5", SUMS),
    ("quad-npu", "systolic-gemm", "gemm:m=3,n=5,k=37,batch=3,transpose_b=true", ALL),
    ("systolic", "systolic-gemm", "gemm:m=3,n=5,k=37,bias=true,residual=true,activation=relu", ALL),
    # Weights in encodings, each tile decoded before it is multiplied.
    ("coded-npu", "systolic-gemm", "gemm:m=3,n=5,k=136,sparsity=2:4", ALL),
    ("coded-npu", "systolic-gemm", "gemm:m=3,n=9,k=35,sparsity=2:5,transpose_b=true", SUMS),
    ("coded-npu", "systolic-gemm", "gemm:m=3,n=5,k=133,sparsity=0.3", ALL),
    ("coded-npu", "-", "gemm:m=2,n=131,k=133,sparsity=0.2,encoding=tiled-csl", ("fp16", "bf16")),
    ("coded-npu", "-", "gemm:m=3,n=5,k=133,encoding=int4:g32", ("fp16", "bf16", "fp32")),
    ("coded-npu", "-", "gemm:m=2,n=3,k=37,encoding=int3:g7,batch=2", ("fp16", "bf16")),
    ("coded-npu", "-", "grouped_gemm:m=3+0+2,n=5,k=16,sparsity=1:4", ("bf16", "int8")),
    # Weights that the cells of an array read as they are stored, and copies of weights made so.
    ("sat", "systolic-gemm", "gemm:m=3,n=5,k=136,sparsity=2:8", SUMS),
    ("sat", "systolic-gemm", "gemm:m=3,n=5,k=35,sparsity=3:5,transpose_b=true", ("fp16", "int8")),
    ("sat", "im2col-conv", "conv2d:h=4,w=3,cin=8,cout=5,fh=2,fw=2,sparsity=1:4", ("bf16",)),
    ("sat", "prune-weight", "prune_weight:rows=16,cols=5,kept=2,group=8", ALL),
    ("sat", "prune-weight", "prune_weight:rows=3,cols=8,kept=1,group=4,along_cols=true", ("fp16",)),
    ("sat", "prune-weight", "prune_weight:taps=6,rows=8,cols=5,kept=2,group=4,turned=true", ALL),
    ("onnxim-mobile", "gemmini-gemm", "gemm:m=11,n=9,k=19", SUMS),
    ("quad-npu", "gemmini-gemm", "gemm:m=5,n=33,k=37", ALL),
    ("edge-npu", "-", "gemm:m=3,n=5,k=20,bias=true,activation=gelu", FLOATS),
    ("tpu-v3", "-", "gemv:n=9,k=21,out=fp32", FLOATS),
    ("edge-npu", "-", "gemm:m=3,n=5,k=20,out=int8", ("int8",)),
    ("a100", "gpu-gemm", "gemm:m=5,n=7,k=37", (*A100, "int8")),
    ("a100", "gpu-gemm", "gemm:m=4,n=9,k=70", SUMS[:2]),
    ("a100", "gpu-gemm", "gemm:m=3,n=5,k=43,accumulator=fp16", ("fp16",)),
    ("a100", "gpu-gemm", "gemm:m=2,n=3,k=1100,bias=true,activation=silu", A100),
    ("t4", "gpu-gemm", "gemm:m=5,n=7,k=37", ("fp16", "int8")),
    ("rtx-2080ti", "gpu-gemm", "gemm:m=5,n=7,k=37", ("fp16", "int8")),
    ("xeon-6154", "gpu-gemm", "gemm:m=5,n=7,k=37", FLOATS),
    ("xeon-6154", "gpu-softmax", "softmax:rows=3,cols=70", ("fp32",)),
    ("a100", "gpu-gemm", "gemm:m=3,n=5,k=136,sparsity=2:4", (*SUMS[:2], "int8")),
    ("a100", "gpu-gemm", "gemm:m=2,n=3,k=1100,sparsity=2:4,bias=true", ("fp16",)),
    ("a100", "gpu-gemm", "gemm:m=2,n=5,k=140,encoding=tiled-csl,sparsity=0.3", ("fp16", "bf16")),
    ("a10", "gpu-gemm", "gemm:m=3,n=5,k=136,encoding=int4:g32", ("fp16", "bf16")),
    ("h100", "gpu-gemm", "gemm:m=3,n=5,k=136,sparsity=2:4", SUMS[:4]),
    ("h200", "-", "grouped_gemm:m=3+0+2,n=5,k=144,sparsity=2:4", ("bf16",)),
    ("h100", "gpu-gemm", "gemm:m=5,n=7,k=37", SUMS),
    ("h100", "gpu-gemm", "gemm:m=2,n=3,k=300,bias=true,residual=true", FLOATS),
    ("h100", "gpu-gemm", "gemm:m=2,n=5,k=300", SUMS[2:4]),
    ("h100", "gpu-gemm", "gemm:m=3,n=5,k=43,accumulator=fp16", ("fp16",)),
    # Products of several experts, one without rows.
    ("edge-npu", "systolic-grouped-gemm", "grouped_gemm:m=3+0+18+1,n=5,k=37", SUMS),
    ("quad-npu", "systolic-grouped-gemm", "grouped_gemm:m=3+0+1,n=21,k=37", ALL),
    ("mesh-npu", "systolic-grouped-gemm", "grouped_gemm:m=2+5,n=9,k=21", SUMS[:2]),
    ("a100", "gpu-grouped-gemm", "grouped_gemm:m=3+0+18+1,n=5,k=37", (*A100, "int8")),
    ("h100", "gpu-grouped-gemm", "grouped_gemm:m=2+1,n=3,k=1100", FLOATS),
    # Convolutions and pooling.
    ("edge-npu", "im2col-conv", "conv2d:h=5,w=6,cin=3,cout=5,fh=3,fw=2,padding=1,stride=2", ALL),
    ("onnxim-mobile", "im2col-conv", "conv2d:h=4,w=5,cin=3,cout=5,fh=2,fw=2", SUMS),
    ("mesh-npu", "im2col-conv", "conv2d:h=4,w=5,cin=4,cout=6,fh=3,fw=3,padding=1,groups=2", ALL),
    ("tpu-v3", "tapwise-conv", "conv2d:h=4,w=5,cin=3,cout=5,fh=3,fw=3,padding=1,batch=3", SUMS),
    ("hbm-npu", "tapwise-conv", "conv2d:h=5,w=4,cin=4,cout=6,fh=2,fw=3,stride=2,bias=true", ALL),
    ("edge-npu", "tapwise-conv", "conv2d:h=3,w=3,cin=5,cout=7,fh=1,fw=1", SUMS),
    ("edge-npu", "tapwise-pool", "pool2d:function=max,h=5,w=6,channels=5,fh=2,fw=3", ALL),
    ("tpu-v3", "tapwise-pool", "pool2d:function=max,h=5,w=5,channels=3,fh=3,fw=3,padding=1", ALL),
    ("quad-npu", "tapwise-pool", "pool2d:function=mean,h=6,w=5,channels=5,fh=3,fw=2", FLOATS),
    # Attention: several heads a key, causal masks, single queries.
    ("edge-npu", "unfused-attention", "attention:heads=2,kv_heads=1,q=3,kv=21,d=6", FLOATS),
    ("mesh-npu", "unfused-attention", "attention:heads=2,q=5,kv=5,d=8,causal=true", FLOATS),
    ("onnxim-server", "unfused-attention", "attention:heads=4,kv_heads=2,q=1,kv=9,d=8", FLOATS),
    ("hbm-npu", "flash-attention", "attention:heads=2,q=5,kv=37,d=6,causal=true", FLOATS),
    ("quad-npu", "flash-attention", "attention:heads=4,kv_heads=2,q=1,kv=139,d=8", FLOATS),
    ("tpu-v3", "multipass-attention", "attention:heads=2,q=3,kv=21,d=6,causal=true", FLOATS),
    ("hbm-npu", "flash-attention", "attention:heads=2,q=9,kv=37,d=6,causal=true,window=5", FLOATS),
    ("quad-npu", "flash-attention", "attention:heads=4,kv_heads=2,q=3,kv=4,d=6,alibi=true", FLOATS),
    ("edge-npu", "flash-attention", f"{LATENT},page=8,kv_dtype=int8", FLOATS),
    ("hbm-npu", "flash-attention", f"{PREFIX},kv_dtype=fp8_e4m3", FLOATS),
    ("mesh-npu", "unfused-attention", f"{LATENT},page=8", FLOATS),
    ("hbm-npu", "unfused-attention", f"{PREFIX},window=30,causal=true,alibi=true", FLOATS),
    ("tpu-v3", "multipass-attention", f"{PREFIX},window=30,causal=true,alibi=true", FLOATS),
    ("a100", "gpu-attention", f"{LATENT},alibi=true,window=7,causal=true", A100),
    ("hbm-npu", "multipass-attention", "attention:heads=4,kv_heads=2,q=1,kv=9,d=8", FLOATS),
    ("a100", "gpu-attention", "attention:heads=2,kv_heads=1,q=3,kv=21,d=6,causal=true", A100),
    ("h100", "gpu-attention", "attention:heads=2,kv_heads=1,q=3,kv=139,d=6", FLOATS),
    ("quad-npu", "unified-max-attention", "attention:heads=4,kv_heads=2,q=1,kv=139,d=8", FLOATS),
    ("a100", "gpu-unified-max-attention", "attention:heads=2,q=5,kv=37,d=6,causal=true", A100),
    ("h100", "gpu-unified-max-attention", "attention:heads=2,kv_heads=1,q=1,kv=1500,d=6", FLOATS),
    ("stream-sdpa", "stream-naive", "attention:heads=2,q=3,kv=5,d=6", FLOATS),
    ("stream-sdpa", "stream-naive-max", "attention:heads=2,kv_heads=1,q=3,kv=5,d=6", FLOATS),
    ("stream-sdpa", "stream-reordered", "attention:heads=4,kv_heads=2,q=1,kv=9,d=4", FLOATS),
    ("stream-sdpa", "stream-running-max", "attention:heads=2,kv_heads=1,q=3,kv=9,d=6", FLOATS),
    ("a100", "gpu-flash-attention", "attention:heads=2,kv_heads=1,q=3,kv=139,d=6,causal=true",
     A100),
    ("h100", "gpu-flash-attention", "attention:heads=2,kv_heads=1,q=1,kv=1500,d=6", FLOATS),
    ("h100", "gpu-flash-attention-unsplit", "attention:heads=2,kv_heads=1,q=2,kv=300,d=6", FLOATS),
    # Linear attention: several chunks, the last one shorter; states that are read and handed on.
    ("hbm-npu", "chunked-linear-attention", f"linear_attention:{LINEAR},decay=gated", FLOATS),
    ("quad-npu", "chunked-linear-attention", f"linear_attention:{LINEAR},decay=fixed", FLOATS),
    ("systolic", "chunked-linear-attention", f"linear_attention:{LINEAR},decay=gated", FLOATS),
    ("tpu-v3", "chunked-linear-attention", "linear_attention:heads=2,q=7,d=6,chunk=3", FLOATS),
    ("edge-npu", "chunked-linear-attention", f"state_update:{LINEAR},decay=gated", FLOATS),
    ("a100", "gpu-linear-attention", f"linear_attention:{LINEAR},decay=gated", A100),
    ("h100", "gpu-linear-attention", "linear_attention:heads=2,q=7,d=6,chunk=3", FLOATS),
    ("h100", "gpu-linear-attention", f"state_update:{LINEAR},decay=fixed", FLOATS),
    # Rows on vector units.
    ("systolic", "vector-softmax", "softmax:rows=3,cols=37", FLOATS),
    ("onnxim-mobile", "vector-softmax", "softmax:rows=3,cols=21", FLOATS),
    ("quad-npu", "vector-layernorm", "layernorm:rows=3,cols=37", FLOATS),
    ("edge-npu", "vector-rmsnorm", "rmsnorm:rows=3,cols=37", FLOATS),
    ("npu-only", "vector-rmsnorm", "rmsnorm:rows=3,cols=37", FLOATS),
    ("mesh-npu", "vector-glu", "glu:function=gelu_tanh,rows=3,cols=9", FLOATS),
    ("systolic", "vector-elementwise", "elementwise:function=sub,rows=3,cols=9", ALL),
    ("hbm-npu", "vector-elementwise", "elementwise:function=mul,rows=3,cols=9,broadcast_b=true",
     ALL),
    ("onnxim-server", "vector-elementwise", "residual:rows=3,cols=9", ALL),
    ("edge-npu", "vector-rotary", "rotary:heads=2,d=6,tokens=4,q=2,position=3", FLOATS),
    ("tpu-v3", "vector-rotary", "rotary:heads=2,d=6,tokens=4,q=1,position=3", FLOATS),
    ("tpu-v3", "multipass-softmax", "softmax:rows=3,cols=37", FLOATS),
    ("hbm-npu", "multipass-layernorm", "layernorm:rows=3,cols=37", FLOATS),
    ("tpu-v3", "multipass-rmsnorm", "rmsnorm:rows=3,cols=37", FLOATS),
    # Rows on GPUs; long ones are read in several passes.
    ("a100", "gpu-softmax", "softmax:rows=3,cols=70", A100),
    ("dgx-a100a", "gpu-softmax", "softmax:rows=3,cols=70", A100),
    ("h100", "gpu-softmax", "softmax:rows=1,cols=1100", FLOATS),
    ("h100", "gpu-layernorm", "layernorm:rows=3,cols=70", FLOATS),
    ("a100", "gpu-rmsnorm", "rmsnorm:rows=3,cols=70", A100),
    ("h200", "gpu-rmsnorm-packets", "rmsnorm:rows=3,cols=70", A100),
    ("h100", "gpu-glu", "glu:function=silu,rows=3,cols=9", FLOATS),
    ("h100", "gpu-elementwise", "elementwise:function=max,rows=3,cols=9", ALL),
    ("a100", "gpu-elementwise", "residual:rows=3,cols=9", (*A100, "int8")),
    ("h100", "gpu-rotary", "rotary:heads=2,d=6,tokens=4,q=2,position=3", FLOATS),
    # Data movement.
    ("edge-npu", "dma-gather", "embedding:vocab=20,hidden=9,tokens=5", ALL),
    ("mesh-npu", "dma-kv-append", "kv_append:kv_heads=2,q=3,d=6,capacity=9,position=4", ALL),
    ("edge-npu", "dma-kv-append", f"{PAGED},kv_dtype=fp8_e5m2", FLOATS),
    ("a100", "gpu-kv-append", f"{PAGED},kv_dtype=int8", A100),
    ("a100", "gpu-gather", "embedding:vocab=20,hidden=9,tokens=5", (*A100, "int8")),
    ("h100", "gpu-kv-append", "kv_append:kv_heads=2,q=3,d=6,batch=2,capacity=9,position=4", ALL),
    # Gates and weighted sums of experts.
    ("edge-npu", "vector-expert-gate",
     "expert_gate:tokens=5,experts=9,top_k=3,normalise=true,scale=2.5,bias=true", SCORES),
    ("tpu-v3", "vector-expert-gate", "expert_gate:tokens=3,experts=21,top_k=2,scale=16", FLOATS),
    ("h100", "gpu-expert-gate", "expert_gate:tokens=5,experts=9,top_k=3,normalise=true", SCORES),
    ("quad-npu", "vector-expert-combine",
     "expert_combine:tokens=9,hidden=21,top_k=3,rows=11,copies=true", FLOATS),
    ("tpu-v3", "vector-expert-combine", "expert_combine:tokens=5,hidden=9,top_k=1,rows=3", FLOATS),
    ("a100", "gpu-expert-combine", "expert_combine:tokens=9,hidden=21,top_k=2,rows=11", A100),
    # In the banks of main memory: several rows of tokens, heads side by side, rows of inputs.
    ("neupims", "pim-attention", "attention:heads=4,kv_heads=2,q=1,kv=37,d=32", BANKS),
    ("npu-pim", "pim-attention", "attention:heads=1,q=1,kv=519,d=32", BANKS[:1]),
    ("neupims", "pim-gemv", "gemm:m=2,n=64,k=530,bias=true", BANKS),
    ("aim", "pim-gemv", "gemm:m=2,n=37,k=1050,bias=true", BANKS),
    ("hbm-pim", "pim-gemv", "gemm:m=2,n=48,k=300,bias=true", BANKS[:1]),
    ("aim", "pim-spread-attention", "attention:heads=2,q=1,kv=37,d=32", BANKS[1:]),
    ("pim-gpt", "pim-gemv", "gemm:m=1,n=150,k=1050,bias=true,residual=true", BANKS),
    ("pim-gpt", "pim-gemv", "gemm:m=2,n=37,k=20,transpose_b=true,activation=gelu_tanh", BANKS),
    ("pim-gpt", "pim-spread-attention", "attention:heads=4,kv_heads=2,q=1,kv=37,d=32", BANKS),
    ("pim-gpt", "pim-spread-attention", "attention:heads=1,q=1,kv=1030,d=16", BANKS[1:]),
    ("pim-gpt", "pim-kv-append", "kv_append:kv_heads=2,q=1,d=48,capacity=9,position=4", BANKS),
    ("pim-gpt", "-", DECODE, ("bf16",)),
    ("neupims", "pim-kv-append", "kv_append:kv_heads=2,q=1,d=6,batch=2,capacity=9,position=4", ALL),
    ("attacc", "attacc-attention", "attention:heads=2,kv_heads=1,q=1,kv=37,d=128", BANKS[:1]),
    ("attacc", "attacc-attention", "attention:heads=2,q=1,kv=67,d=32", BANKS[:1]),
    ("attacc", "pim-kv-append",
     "kv_append:kv_heads=2,q=1,d=16,batch=2,capacity=9,position=4", ALL[:1]),
    # Operators one after another, on numbers that a machine has made.
    ("tpu-v3", "-", f"gpt2:{SMALL},positions=8", ("bf16",)),
    ("quad-npu", "-", f"llama-2-7b:{SMALL},kv_heads=2", ("fp16",)),
    ("h100", "-", f"llama-2-7b:{SMALL},kv_heads=2", ("fp8_e4m3",)),
    ("edge-npu", "-", f"mixtral-8x7b:{SMALL},kv_heads=1,experts=3", ("bf16",)),
    ("a100", "-", f"mixtral-8x7b:{SMALL},kv_heads=1,experts=3,copy_experts=2", ("fp16",)),
]  # fmt: skip
for function in ("relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh", "sigmoid", "exp"):
    work = f"activation:function={function},rows=3,cols=7"
    CASES.append(("edge-npu", "vector-activation", work, ALL if function == "relu" else FLOATS))
    CASES.append(("a100", "gpu-activation", work, A100))
EACH = [(a, m, w, d) for a, m, w, formats in CASES for d in formats]


@cache
def machine_of(arch):
    return api.as_arch(arch)


def compiled(arch, mapper, workload, scale=1.0):
    machine, graph = machine_of(arch), api.as_graph(workload)
    wanted = () if mapper == "-" else (mapper,)
    plan = plan_memory(graph, machine, "bandwidth", wanted)
    program = compile_program(graph, graph.operators, machine, plan, "bandwidth", wanted)
    values = Values(graph_values(graph, 1, scale=scale))
    for spec in graph.tensors.values():
        if spec.coding:
            kept = spec.coding.kept(spec.shape)
            values.codings[spec.name] = spec.coding, None if kept is None else kept.tolist()
    values.coded = coded_weights(graph, values)
    return machine, program, values


class Values(dict):
    """Drawn values by tensor, and of coded weights what is stored of them."""

    def __init__(self, drawn):
        super().__init__(drawn)
        self.codings, self.coded = {}, {}


def executed(machine, program, values, clock):
    """Bytes of every tensor that an operator wrote."""
    memory = Memory(program)
    load_image(program, memory, values, values.coded)
    schedule = run_engine(bind(program, machine, "bandwidth").timed) if clock else None
    blocks = [machine.units[slot.unit] for slot in program.units]
    captures = execute(program, blocks, memory, schedule)
    return {key: stored.tobytes() for key, stored in captures.tensors.items()}


def wrong_elements(program, want, got, may_be_nan=False):
    """(tensor, index, expected, found) of elements whose bits differ, and of every NaN unless it
    is expected, whatever its sign and payload."""
    formats = {s.name: s.format for s in program.storages}
    assert want.keys() == got.keys()
    assert want
    for (operator, tensor), right in want.items():
        name = formats[tensor]
        size, found = scalar_numbers.size_of(name), got[operator, tensor]
        assert len(right) == len(found) > 0
        for i in range(0, len(right), size):
            codes = [int.from_bytes(raw[i : i + size], "little") for raw in (right, found)]
            a, b = (scalar_numbers.decode(name, code) for code in codes)
            equal = codes[0] == codes[1] and a == a
            if not equal and not (may_be_nan and a != a and b != b):
                yield tensor, i // size, a, b


def scalar(arch, program, values):
    units = scalar_machine.units_of(arch)
    return scalar_machine.Machine(program, units).run(values)


@pytest.mark.parametrize("scale", [1.0, 2.0**-12, 16.0], ids=["", "subnormal", "overflow"])
@pytest.mark.parametrize(("arch", "mapper", "workload", "dtype"), EACH)
def test_programs_equal_the_scalar_machine(arch, mapper, workload, dtype, scale):
    machine, program, values = compiled(arch, mapper, f"{workload},dtype={dtype}", scale)
    assert mapper in ("-", program.operators[0].mapper)
    want = scalar(arch, program, values)
    for clock in (False, True):
        got = executed(machine, program, values, clock)
        # Where e4m3 and Inf - Inf overflow, they do so on both machines.
        wrong = wrong_elements(program, want, got, may_be_nan=scale > 1)
        assert next(wrong, None) is None, clock


def cut_off(name, n, d):
    """Rounded to nearest and then, if that was away from zero, to the number before it."""
    right = NEAREST(name, n, d)
    quantum = math.ldexp(1.0, scalar_numbers.exponent_of(name, right))
    quantum *= 2.0 ** -scalar_numbers.LAYOUTS[name].mantissa
    return right - math.copysign(quantum, right) if abs(right) * d > abs(n) else right


def unrounded(a, b):
    return a * b


def from_the_top(numbers, width):
    return BITS([n for pair in zip(numbers[1::2], numbers[::2], strict=True) for n in pair], width)


def one_chain(row, lanes, whole):
    total = 0.0
    for v in row:
        total = scalar_numbers.add(total, v)
    return total


def unfused(a, b, c):
    return scalar_numbers.add(scalar_numbers.mul(a, b), c)


TPU_GEMM = ("tpu-v3", "-", "gemm:m=3,n=5,k=133,out=fp32,dtype=fp32")
A100_GEMM = ("a100", "-", "gemm:m=4,n=9,k=70,out=fp32,dtype=fp16")
CODED_GEMM = ("coded-npu", "-", "gemm:m=3,n=5,k=136,sparsity=2:4,dtype=int8")
QUANTISED = ("coded-npu", "-", "gemm:m=3,n=5,k=64,encoding=int4:g32,dtype=bf16")
H100_FP8 = ("h100", "-", "gemm:m=2,n=3,k=300,out=fp32,dtype=fp8_e4m3")
SOFTMAX = ("edge-npu", "-", "softmax:rows=9,cols=37,dtype=fp32")
WRONG = {
    "sums cut off": (scalar_numbers, "nearest", cut_off, SOFTMAX),
    "products not rounded": (
        scalar_products, "mul", unrounded, ("edge-npu", "-", "gemm:m=3,n=5,k=99,dtype=fp32"),
    ),
    "operands not rounded": (
        scalar_products, "cast", lambda name, value: value, TPU_GEMM,
    ),
    "another fold": (
        scalar_machine, "units_of",
        lambda arch: {k: {**u, "rows": 64} for k, u in UNITS_OF(arch).items()}, TPU_GEMM,
    ),
    "longer steps": (
        scalar_products, "STEPS",
        {**scalar_products.STEPS, ("ampere-mma", "fp16"): scalar_products.Step(16, 24)}, A100_GEMM,
    ),
    "a guard bit": (
        scalar_products, "STEPS",
        {**scalar_products.STEPS, ("ampere-mma", "fp16"): scalar_products.Step(8, 25)}, A100_GEMM,
    ),
    "no promotion": (scalar_products, "_promoted", lambda chain, length: chain, H100_FP8),
    "row sums in one chain": (scalar_machine, "row_sum", one_chain, SOFTMAX),
    "places from the top": (scalar_codes, "_bits", from_the_top, CODED_GEMM),
    "codes rounded up": (scalar_codes, "_nearest_integer", lambda n, d: -(-n // d), QUANTISED),
    "unfused exponential": (scalar_numbers, "fma", unfused, SOFTMAX),
}  # fmt: skip
UNITS_OF, NEAREST = scalar_machine.units_of, scalar_numbers.nearest
BITS = scalar_codes._bits


@pytest.mark.parametrize("wrong", WRONG)
def test_a_machine_with_another_rounding_is_told_apart(wrong, monkeypatch):
    module, name, replacement, case = WRONG[wrong]
    machine, program, values = compiled(*case)
    got = executed(machine, program, values, clock=True)
    assert next(wrong_elements(program, scalar(case[0], program, values), got), None) is None
    monkeypatch.setattr(module, name, replacement)
    assert any(wrong_elements(program, scalar(case[0], program, values), got))
