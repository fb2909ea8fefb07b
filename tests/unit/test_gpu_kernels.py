"""The kernels that run on a GPU, as far as a machine without one can tell: do they compile, and to
which instructions, and are Triton's right in its interpreter? Skipped without nvcc and triton.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from accelsim.validation.gpu import cases
from accelsim.validation.gpu.devices import nvcc

from accelsim.numerics import exp_kernels

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "validation" / "gpu" / "devices" / "kernels"
needs_nvcc = pytest.mark.skipif(not nvcc.find_nvcc(), reason="no nvcc on this machine")
needs_triton = pytest.mark.skipif(
    find_spec("triton") is None or find_spec("torch") is None, reason="no triton on this machine"
)

INSTRUCTIONS = {
    "instructions.cu": {
        "HMMA.16816.F32", "HMMA.16816.F16", "HMMA.16816.F32.BF16", "HMMA.1688.F32.TF32",
        "IMMA.16832.S8.S8", "HMMA.SP.16832.F32", "HMMA.SP.16832.F32.BF16", "IMMA.SP.16864.S8.S8",
    },
    "wgmma.cu": {
        "HGMMA.64x8x16.F32", "HGMMA.64x8x16.F16", "HGMMA.64x8x16.F32.BF16", "HGMMA.64x8x8.F32.TF32",
        "QGMMA.64x8x32.F32.E4M3.E4M3", "QGMMA.64x8x32.F16.E5M2.E5M2", "IGMMA.64x8x32.S8.S8",
        "HGMMA.SP.64x8x32.F32", "HGMMA.SP.64x8x32.F32.BF16", "QGMMA.SP.64x8x64.F32.E4M3.E4M3",
        "IGMMA.SP.64x8x64.S8.S8",
    },
    "vector.cu": {"MUFU.EX2", "MUFU.RCP", "MUFU.RSQ", "MUFU.LG2", "MUFU.TANH", "FFMA"},
    "attention.cu": {"HMMA.16816.F32", "FFMA"},
    "sweep.cu": {"MUFU.EX2", "MUFU.RCP", "MUFU.RSQ", "MUFU.LG2", "MUFU.TANH"},
}  # fmt: skip


@needs_nvcc
@pytest.mark.parametrize("source", sorted(INSTRUCTIONS))
def test_sources_compile_to_the_instructions_meant(source, tmp_path):
    cubin = nvcc.compile_source(source, "9.0", tmp_path)
    found = nvcc.opcodes(cubin)
    if not found:
        pytest.skip("no disassembler on this machine")
    assert set(found) >= INSTRUCTIONS[source]


@needs_nvcc
def test_sources_but_those_of_warp_groups_compile_for_ampere(tmp_path):
    for source in sorted(set(INSTRUCTIONS) - set(nvcc.NEEDS_WARP_GROUPS)):
        assert nvcc.compile_source(source, "8.0", tmp_path).is_file()


def kernels():
    """Entry points of the sources, macros expanded by name."""
    text = "\n".join(file.read_text() for file in sorted(KERNELS.glob("*.cu")))
    named = re.findall(r"^(?:WIDE|HALF|SPARSE|UNARY|CAST|SWEEP)\((\w+),", text, re.M)
    return {*named, *re.findall(r'extern "C" __global__ void (\w+)\(', text)}


def test_every_case_has_its_kernel():
    have = kernels()
    for one in cases.capture_sets():
        case = one.cases[0]
        group = "wgmma_" if case.arithmetic == "wgmma" else ""
        name = {
            "mma": f"mma_{case.a}_{case.out}", "wgmma": f"wgmma_{case.a}_{case.out}",
            "sparse": f"{group}sparse_{case.a}_{case.out}", "gemv": f"gemv_{case.a}",
            "attention": "attention_fp16", "unary": f"unary_{case.values}",
            "cast": f"cast_{cases.CASTS.get(case.out)}",
            "sweep_unary": f"sweep_{case.values}", "sweep_cast": f"sweep_{case.values}",
        }.get(case.kernel)  # fmt: skip
        assert name is None or name in have, one.name
        for source in one.sources:
            assert (KERNELS.parents[1] / source).is_file()


def test_the_exponential_of_attention_is_the_simulators():
    text = (KERNELS / "attention.cu").read_text()
    used = [float.fromhex(word) for word in re.findall(r"(0x1\.[0-9a-f]+p-\d+)f", text)]
    assert sorted(used) == sorted(float(c) for c in exp_kernels.EXP2)
    assert "12582912.0f" in text


def run_here(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


COMPILED = """
from accelsim.validation.gpu import cases
from accelsim.validation.gpu.devices import triton_kernels
for one in cases.capture_sets():
    if one.cases[0].kernel == "gemm":
        about = triton_kernels.compile_for(one.cases[0])
        names = list(about["instructions"])
        assert len(names) == 1 and names[0].startswith("wgmma.mma_async"), names
        print(one.name, names[0].split(".")[4], about["additions"] > 0)
"""


@needs_triton
def test_triton_compiles_to_the_declared_steps():
    said = run_here(COMPILED)
    shapes = dict(zip(said[0::3], said[1::3], strict=True))
    promotes = dict(zip(said[0::3], said[2::3], strict=True))
    assert shapes["gemm-fp16"] == "m64n64k16"
    assert shapes["gemm-fp8_e4m3"] == "m64n64k32"
    # Only sums that leave a narrow accumulator are added outside of the instructions.
    assert {name for name, adds in promotes.items() if adds == "True"} == {
        "promote-fp8_e4m3", "promote-fp8_e5m2",
    }  # fmt: skip


INTERPRETED = """
import numpy as np, torch
from accelsim.validation.gpu import cases, operands
from accelsim.validation.gpu.devices import triton_kernels
for name in ("gemm-fp16", "splitk-fp16", "splitk16-fp16", "promote-fp8_e4m3", "gemm-int8"):
    one = {one.name: one for one in cases.capture_sets(1, 64)}[name]
    case = operands.order_free(one.cases[0])
    given = operands.operands(case)
    put = lambda x: torch.from_numpy(np.ascontiguousarray(x).reshape(-1).view(np.uint8).copy())
    out = torch.full((4 * case.count,), 0x55, dtype=torch.uint8)
    triton_kernels.product(case, put(given["a"]), put(given["b"]), out, 3)
    got = out.numpy().view(operands.output_dtype(case)).reshape(case.m, case.n)
    assert (got == operands.exact_outputs(case, given)).all(), name
    assert np.count_nonzero(got) > 1000
    print(name)
"""


@needs_triton
def test_triton_is_exact_in_its_interpreter():
    # The interpreter multiplies words of bf16 as integers, so that bf16 is left out.
    assert len(run_here(INTERPRETED, TRITON_INTERPRET="1")) == 5
