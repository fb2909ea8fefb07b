"""No sum is further from the exact one than its derived bound, on ordinary and adversarial data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.numerics import bounds
from accelsim.numerics.arithmetic import ProductTypes, arithmetic, types_of
from accelsim.numerics.formats import Format
from accelsim.numerics.orders import order_of
from accelsim.numerics.rules import Rule, TensorCoreRule
from accelsim.results.claims import Claim, Row

CLAIM = Claim(
    name="bounds",
    statement="sums further from the exact one than the derived bound (K 2^-F + 2^-p for each fused"
    " step, u for each addition)",
    source="sums in 80-bit floating point",
    tolerance=0.0,
)

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.longdouble]

KINDS = ("normal", "positive", "cancelling", "wide", "subnormal", "one large", "patterns")
UNITS = (
    ("volta-mma", "fp16", "fp32", "chain"),
    ("ampere-mma", "fp16", "fp32", "chain"),
    ("ampere-mma", "tf32", "fp32", "chain"),
    ("ampere-mma", "fp32", "fp32", "chain"),
    ("hopper-wgmma", "fp16", "fp32", "chain"),
    ("hopper-wgmma", "bf16", "fp32", "chain"),
    ("hopper-wgmma", "fp16", "fp16", "chain"),
    ("hopper-wgmma", "fp8_e4m3", "fp32", "chain"),
    ("hopper-wgmma", "fp8_e5m2", "fp32", "chain"),
    ("hopper-wgmma", "fp8_e4m3", "fp32", "promote:128"),
    ("hopper-mma", "fp8_e4m3", "fp32", "chain"),
    ("hopper-mma", "fp8_e4m3", "fp16", "chain"),
    ("ada-mma", "fp8_e4m3", "fp16", "chain"),
    ("blackwell-tcgen05", "fp6_e3m2", "fp32", "chain"),
    ("sequential-fp32", "fp16", "fp32", "chain"),
    ("sequential-fp16", "fp16", "fp16", "chain"),
    ("tree16-fp32", "bf16", "fp32", "chain"),
    ("tree16-bf16", "bf16", "bf16", "chain"),
    ("lanes32-fp32", "bf16", "fp32", "chain"),
    ("fma-fp32", "fp32", "fp32", "promote:64"),
    ("ampere-mma", "bf16", "fp32", "split:4:32:forward:bf16"),
    ("hopper-wgmma", "fp16", "fp32", "split:5:32:serial:bf16"),
    ("sequential-fp32", "bf16", "fp32", "fold:32"),
)
SIDE = 88
"""Rows and columns of each case: 23 units, 7 kinds of data, 88 x 88 sums are 1.25e6 cases."""
LENGTH = 320


def rows() -> Iterator[Row]:
    """Violations by unit, with the nearest that anything came to its bound."""
    for unit, name, accumulator, order in UNITS:
        types = types_of(name, name, accumulator)
        rule = arithmetic(unit).reduction(types, order_of(order), LENGTH)
        found = [ratios(rule, types, kind, SIDE, LENGTH, seed=i) for i, kind in enumerate(KINDS)]
        wrong = sum(int((~(one <= 1)).sum()) for one in found)
        worst = max(float(one.max()) for one in found)
        cases = sum(one.size for one in found)
        case = f"{unit} {types}, {order}: {cases:,} sums, at most {worst:.2g} of the bound"
        yield Row(case, 0, wrong, wrong == 0)


def ratios(rule: Rule, types: ProductTypes, kind: str, side: int, k: int, seed: int) -> Floats:
    """|computed - exact| / bound of ``side`` x ``side`` sums of ``k`` products."""
    a, b = operands(types.a, types.accumulator, kind, (side, k), seed)
    wide = a.astype(np.float64), b.astype(np.float64)
    bound = bounds.product(*wide, rule)
    if isinstance(rule, TensorCoreRule) and rule.a is types.a:
        bound = np.minimum(bound, bounds.running_steps(*wide, rule))
    got = rule.multiply(a, b, None)
    exact: Longs = a.astype(np.longdouble) @ b.astype(np.longdouble)
    return np.asarray(np.abs(got - exact) / bound, dtype=np.float64)


def operands(
    fmt: Format, accumulator: Format, kind: str, shape: tuple[int, int], seed: int
) -> tuple[Any, Any]:
    """a [rows, k] and b [k, rows] of one family, exact in their format; sums stay finite."""
    rng = np.random.default_rng(seed)
    # Half the exponents for each factor, and room for the sum of k of them.
    room = np.log2(accumulator.largest) - np.log2(shape[1]) - 6
    span = max(int(min(room / 2, np.log2(fmt.largest) - 2, 30)), 1)
    x = [rng.standard_normal(shape) for _ in range(2)]
    if kind == "positive":
        x = [np.abs(v) for v in x]
    elif kind == "cancelling":
        half = shape[1] // 2
        for v, sign in zip(x, (-1, 1), strict=True):
            v[:, half : 2 * half] = sign * v[:, :half][:, ::-1]
        x[0][:, ::7] += rng.standard_normal(x[0][:, ::7].shape) * 2.0**-8
    elif kind == "wide":
        x = [v * 2.0 ** rng.integers(-span, span, shape) for v in x]
    elif kind == "subnormal":
        x = [v * 2.0 ** (fmt.min_exponent - 1) for v in x]
        x[1] *= 2.0 ** rng.integers(0, min(span, 12), shape)
    elif kind == "one large":
        for v in x:
            v[:, seed % shape[1]] *= 2.0 ** (span - 1)
    elif kind == "patterns" and fmt.bits <= 16 and accumulator.bits == 32 and fmt.bias < 100:
        held = [fmt.decode(fmt.stored(rng.integers(0, 1 << fmt.bits, shape))) for _ in x]
        x = [np.where(np.isfinite(v), v, 1.0).astype(np.float64) for v in held]
    a, b = (fmt.decode(fmt.encode(v, overflow="saturate")) for v in x)
    return a, np.ascontiguousarray(b.T)
