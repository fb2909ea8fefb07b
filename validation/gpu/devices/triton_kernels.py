"""Matrix products in Triton whose order is declared: a chain, split-K with a merge, promotion.

Tiles of 64 x 64; k in steps that divide it, ascending, without tails. No autotuning, no fusing of
additions; operands enter tl.dot unconverted, so that the compiler has no reason to permute k.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import triton
import triton.language as tl

from ..cases import Case

TILE, STEP, PROMOTED_STEP = 64, 64, 128
FP8_TYPES = {"fp8_e4m3": "fp8e4nv", "fp8_e5m2": "fp8e5"}
TYPES = {"fp16": "fp16", "bf16": "bf16", "int8": "i8", **dict.fromkeys(FP8_TYPES, "u8")}


# How blocks are shifted must not make another kernel.
@triton.jit(do_not_specialize=["turn"])  # type: ignore[untyped-decorator]
def product_kernel(  # type: ignore[no-untyped-def]
    a, b, out, n, k, first, turn,
    LENGTH: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, PROMOTES: tl.constexpr,
    OPERAND: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Sums [m, n] over LENGTH of k, beginning with ``first``, of a[m, k] and b[n, k]: one tile."""
    i = (tl.program_id(0) + turn) % tl.num_programs(0)
    j = tl.program_id(1)
    rows = i * TILE + tl.arange(0, TILE)
    columns = j * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), SUM)
    for at in range(0, LENGTH, STEP):
        ks = first + at + tl.arange(0, STEP)
        x = tl.load(a + rows[:, None] * k + ks[None, :])
        y = tl.load(b + columns[None, :] * k + ks[:, None])
        if OPERAND is not None:
            x = x.to(OPERAND, bitcast=True)
            y = y.to(OPERAND, bitcast=True)
        if PROMOTES:
            # As many inexact additions as there are k in a step: then sums leave the narrow
            # accumulator for one of fp32.
            total = tl.dot(x, y, total, max_num_imprecise_acc=STEP, out_dtype=SUM)
        else:
            total = tl.dot(x, y, total, out_dtype=SUM)
    tl.store(out + rows[:, None] * n + columns[None, :], total)


@triton.jit  # type: ignore[untyped-decorator]
def merge_kernel(parts, out, count, SLICES: tl.constexpr, HELD: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Partial sums, as a workspace of type HELD has them, added in fp32 forward from slice 0."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(parts + at).to(HELD).to(tl.float32)
    for part in tl.static_range(1, SLICES):
        total = total + tl.load(parts + part * count + at).to(HELD).to(tl.float32)
    tl.store(out + at, total)


def settings(case: Case, length: int) -> dict[str, Any]:
    """The constants that a case's product is compiled with."""
    promotes = case.order.startswith("promote")
    operand = FP8_TYPES.get(case.a)
    return {
        "LENGTH": length,
        "TILE": TILE,
        "STEP": PROMOTED_STEP if promotes else STEP,
        "PROMOTES": promotes,
        "OPERAND": getattr(tl, {"fp8e4nv": "float8e4nv", "fp8e5": "float8e5"}[operand])
        if operand
        else None,
        "SUM": tl.int32 if case.out == "int32" else tl.float32,
    }


HELD = {"fp32": tl.float32, "fp16": tl.float16, "bf16": tl.bfloat16}
MERGED = 256


def product(case: Case, a: Any, b: Any, out: Any, turn: int) -> dict[str, Any]:
    """Run a case on bytes in GPU memory (or the interpreter's) and say what was compiled."""
    import torch

    held: dict[str, Any] = {"fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8}
    kind = torch.int32 if case.out == "int32" else torch.float32
    left, right = (x.view(held.get(case.a, torch.uint8)) for x in (a, b))
    sums, slices = out.view(kind), case.cuts
    count = sums.numel()
    whole = len(slices) == 1
    parts = sums if whole else torch.empty(len(slices) * count, dtype=kind, device=a.device)
    said: dict[str, Any] = {}
    for number, some in enumerate(slices):
        compiled = product_kernel[(case.m // TILE, case.n // TILE)](
            left, right, parts[number * count :], case.n, case.k, some.start, turn,
            **settings(case, len(some)), num_warps=4, num_stages=2, enable_fp_fusion=False,
        )  # fmt: skip
        said = said or about(compiled)
    if not whole:
        merge_kernel[(count // MERGED,)](
            parts, sums, count, SLICES=len(slices), HELD=HELD[case.order.split(":")[-1]],
            BLOCK=MERGED, enable_fp_fusion=False,
        )  # fmt: skip
    return said


def about(compiled: Any) -> dict[str, Any]:
    """The matrix instructions of a compiled kernel; nothing of an interpreted one."""
    ptx = getattr(compiled, "asm", {}).get("ptx", "")
    if not ptx:
        return {}
    found = re.findall(r"\b((?:wgmma\.mma_async|mma)\.sync\.aligned\S*)", ptx)
    return {
        "ptx": hashlib.sha256(ptx.encode()).hexdigest(),
        "instructions": {name: found.count(name) for name in sorted(set(found))},
        "additions": len(re.findall(r"\badd(?:\.rn)?\.f32\b", ptx)),
    }


def compile_for(case: Case, capability: int = 90) -> dict[str, Any]:
    """Compile a case's product for a GPU that is not there, and say what it became."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = settings(case, len(case.cuts[0]))
    operand, total = "*" + TYPES[case.a], "*i32" if case.out == "int32" else "*fp32"
    numbers = dict.fromkeys(("n", "k", "first", "turn"), "i32")
    signature = {"a": operand, "b": operand, "out": total, **numbers}
    source = ASTSource(
        fn=product_kernel,
        signature={**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
    )
    options = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": False}
    return about(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options))
