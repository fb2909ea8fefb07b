"""The operands of a case, and what order-free ones must give, in integers alone.

Every kernel first runs on whole numbers whose sums are exact in any order: what it gives must be
what integers give. A kernel with a wrong layout fails here, and nothing of it is recorded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.numerics.splitmix import key_of, splitmix64

from .cases import FP8, HEAD, UNARY, Case
from .inputs import (
    EXACT_BITS,
    INTEGERS,
    LAYOUTS,
    Codes,
    Values,
    draw,
    dtype_of,
    encode_integers,
    repeated,
    whole_limit,
)

Operands = dict[str, Codes]
Ints = npt.NDArray[np.int64]

FP8_EXACT_BITS = 14
"""Hopper's and Ada's accumulators of fp8 keep 13 bits of fraction."""
PAIRS = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], dtype=np.uint8)
"""Which two of four neighbours a 2:4 sparse operand keeps."""
THIN = 64
SPOT = 1024
"""A score that outweighs every other one, in the self-check of attention."""


def order_free(case: Case) -> Case:
    """The case that the kernel of another is checked with first."""
    return replace(case, values="integers", name=f"{case.name}-check")


def operands(case: Case) -> Operands:
    """Bit patterns by operand: those of a and b have k last."""
    match case.kernel:
        case "unary":
            return {"words": np.array(UNARY[case.values], dtype=np.uint64)}
        case "sweep_unary" | "sweep_cast":
            return {"words": np.array((case.m, case.k), dtype=np.uint64)}
        case "cast":
            return {"words": _cast_words(case)}
        case "attention" | "sdpa":
            return _attention(case)
        case "sparse" | "cusparselt":
            return _sparse(case)
    if case.values.startswith("P"):
        return probe(case)
    return _dense(case)


def _thin(case: Case) -> bool:
    """Whether so much is added up in 16 bits that order-free operands must be mostly zero."""
    held = case.order.split(":")[-1] if case.order.startswith("split") else case.out
    return held in ("fp16", "bf16") and case.kernel in ("cublaslt", "cusparselt", "gemm")


def _thinned(case: Case, a: Codes) -> Codes:
    """Order-free operands of which one in 64 is not zero, in every row elsewhere."""
    if case.values != "integers" or not _thin(case):
        return a
    k, row = np.arange(a.shape[-1]), np.arange(a.shape[-2])[:, None]
    return np.where((7 * k + 13 * row) % THIN == 0, a, 0).astype(a.dtype)


def _limit(case: Case) -> int:
    if _thin(case):
        return 1
    bits = EXACT_BITS.get(case.out, 8)
    if case.a in FP8:
        bits = min(bits, FP8_EXACT_BITS)
    return whole_limit(case.k, bits, case.a, case.b)


def _dense(case: Case) -> Operands:
    values: Values = case.values  # type: ignore[assignment]
    limit = _limit(case)
    inside = case.kernel in ("mma", "wgmma")
    lead = (case.batch,) if inside else ()
    a = draw(case.a, values, (*lead, case.m, case.k), f"{case.name}:a", limit)
    b = draw(case.b, values, (*lead, case.n, case.k), f"{case.name}:b", limit)
    if values == "cancellation":
        b = repeated(b)
    found = {"a": _thinned(case, a), "b": b}
    if inside:
        found["c"] = _sums(case, limit)
    return found


def _sums(case: Case, limit: int) -> Codes:
    """What an instruction adds to."""
    values: Values = case.values  # type: ignore[assignment]
    shape = (case.batch, case.m, case.n)
    return draw(case.out, values, shape, f"{case.name}:c", limit * limit)


def _sparse(case: Case) -> Operands:
    """The kept half of a, b of all of k, and for each four of k the two that are kept."""
    values: Values = case.values  # type: ignore[assignment]
    limit, inside = _limit(case), case.kernel == "sparse"
    lead = (case.batch,) if inside else ()
    key = f"{case.name}:a"
    kept = draw(case.a, values, (*lead, case.m, case.k // 2), key, limit)
    b = draw(case.b, values, (*lead, case.n, case.k), f"{case.name}:b", limit)
    groups = (*lead, case.m, case.k // 4)
    picks = splitmix64(key_of(f"{case.name}:pairs"), int(np.prod(groups))) % np.uint64(len(PAIRS))
    found = {
        "a": _thinned(case, kept),
        "b": b,
        "pairs": PAIRS[picks.astype(np.int64)].reshape(*groups, 2),
    }
    if inside:
        found["c"] = _sums(case, limit)
    return found


def chosen(pairs: Codes) -> Ints:
    """For each kept element the k that it stands for."""
    groups = np.arange(pairs.shape[-2], dtype=np.int64)[:, None] * 4
    return (groups + pairs).reshape(*pairs.shape[:-2], -1)


def spread(kept: Codes, pairs: Codes) -> Codes:
    """A sparse operand with its zeros."""
    dense = np.zeros((*kept.shape[:-1], kept.shape[-1] * 2), dtype=kept.dtype)
    np.put_along_axis(dense, chosen(pairs), kept, axis=-1)
    return dense


def _attention(case: Case) -> Operands:
    """q [rows, 64], k and v [keys, 64]."""
    shape, keys = (case.m, HEAD), (case.k, HEAD)
    if case.values == "integers":
        return _spotted(case)
    values: Values = case.values  # type: ignore[assignment]
    found = {
        name: draw(case.a, values, size, f"{case.name}:{name}")
        for name, size in (("q", shape), ("v", keys))
    }
    # Scores of a few units: weights of all sizes, not one that outweighs the others.
    k = draw(case.a, "small", keys, f"{case.name}:k")
    if values == "positive":
        k &= np.uint16(0x7FFF)
    return {**found, "k": repeated(k) if values == "cancellation" else k}


def _spotted(case: Case) -> Operands:
    """Every query sees one key alone: all other weights are zero, results are rows of v."""
    half = HEAD // 2
    spot = spotted_keys(case)
    key = np.arange(case.k)
    k = np.zeros((case.k, HEAD), dtype=np.int64)
    k[key, key % half] = 1
    k[key, half + key // half % half] += 1
    v = draw(case.b, "integers", (case.k, HEAD), f"{case.name}:v", 1024)
    found = {"q": k[spot] * SPOT, "k": k}
    return {**{name: encode_integers(case.a, x) for name, x in found.items()}, "v": v}


def spotted_keys(case: Case) -> Ints:
    """The key that each query of the self-check sees."""
    words = splitmix64(key_of(f"{case.name}:spot"), case.m)
    return (words % np.uint64(min(case.k, (HEAD // 2) ** 2))).astype(np.int64)


def _cast_words(case: Case) -> Codes:
    """fp32 words; ``near-FORMAT`` are halfway points of a format and their neighbours."""
    shape, key = (case.m,), f"{case.name}:words"
    if case.values == "integers":
        return encode_integers("fp32", splitmix_small(key, case.m))
    if not case.values.startswith("near-"):
        return draw("fp32", case.values, shape, key)  # type: ignore[arg-type]
    layout = LAYOUTS[case.out]
    codes = draw(case.out, "wide", shape, key).astype(np.uint32)
    size = codes & np.uint32((1 << (layout.bits - 1)) - 1)
    man = layout.mantissa_bits
    # The fp32 word of the code read as a normal number, then half of its last place, -1, 0 or 1.
    word = (size << np.uint32(23 - man)) + np.uint32((127 - layout.bias) << 23)
    nudge = splitmix64(key_of(f"{key}:nudge"), case.m) % np.uint64(3)
    word = word + np.uint32(1 << (22 - man)) + nudge.astype(np.uint32) - np.uint32(1)
    return word | (codes >> np.uint32(layout.bits - 1)) << np.uint32(31)


def splitmix_small(key: str, count: int) -> Ints:
    """Whole numbers from -8 to 8, which every format holds."""
    return (splitmix64(key_of(key), count) % np.uint64(17)).astype(np.int64) - 8


def probe(case: Case) -> Operands:
    """The corners on which published models differ, one variant for each row and column.

    P1   a zero times 2^127 beside products of 2^-30: does the product of zero count for alignment?
    P2   1 to 16 products near 2^-152, c = 0: is the alignment bounded from below?
    P3   2^-25 and a product near 2^-48, fp16 results: the same there
    P4   a product below half the smallest number, negative: is the sign of zero kept?
    """
    a = np.full((case.batch, case.m, case.k), _NOTHING)
    b = np.full((case.batch, case.n, case.k), _NOTHING)
    row, column = np.arange(case.m) % 16, np.arange(case.n)
    negative = case.values.startswith("P4")
    match case.values:
        case "P1":
            b[:, :, 0], a[:, :, 1], b[:, :, 1] = 127, -row, -30 - column
        case "P2":
            for k in range(case.k):
                a[:, :, k] = np.where(k <= row, -76, _NOTHING)
            b[:] = (-76 - column)[:, None]
        case "P3":
            a[:, :, 0], b[:, :, 0] = -12, -13
            a[:, :, 1], b[:, :, 1] = -24 + row, -24 + column
        case "P4":
            a[:, :, 0], b[:, :, 0] = -13 - row % 8, -13 - column
        case _:
            a[:, :, 0], b[:, :, 0] = -75 - row, -75 - column
    found = {"a": _powers(case.a, a, negative), "b": _powers(case.b, b, False)}
    found["c"] = np.zeros((case.batch, case.m, case.n), dtype=dtype_of(case.out))
    return found


_NOTHING = -1000


def _powers(fmt: str, exponents: Ints, negative: bool) -> Codes:
    """Powers of two as bit patterns, subnormal ones among them; zero for ``_NOTHING``."""
    layout = LAYOUTS[fmt]
    field = exponents + layout.bias
    below = np.maximum(layout.mantissa_bits - 1 + field, 0)
    code = np.where(field > 0, field << layout.mantissa_bits, np.int64(1) << below)
    code = np.where(exponents == _NOTHING, 0, code)
    if negative:
        code = np.where(code == 0, 0, code | 1 << (layout.bits - 1))
    return code.astype(layout.dtype)


# --- what order-free operands give


def integers_of(fmt: str, codes: Codes) -> Ints:
    """Whole numbers from bit patterns."""
    if fmt in INTEGERS:
        return codes.astype(np.int64)
    layout = LAYOUTS[fmt]
    bits = codes.astype(np.int64) >> layout.padding
    man = layout.mantissa_bits
    size = bits & ((1 << (layout.exponent_bits + man)) - 1)
    significand = (size & ((1 << man) - 1)) | np.where(size >> man > 0, 1 << man, 0)
    shift = (size >> man) - layout.bias - man
    value: Ints = np.where(shift >= 0, significand << np.clip(shift, 0, 40),
                     significand >> np.clip(-shift, 0, 60))  # fmt: skip
    return np.where(bits >> (layout.exponent_bits + man) & 1 == 1, -value, value)


def exact_outputs(case: Case, given: Operands) -> Codes:
    """The one right output of order-free operands, as bit patterns; ``case`` is of integers."""
    match case.kernel:
        case "cast":
            return encode_integers(case.out, integers_of("fp32", given["words"]))
        case "attention" | "sdpa":
            rows = integers_of(case.b, given["v"])[spotted_keys(case)]
            return encode_integers(case.out, rows)
    a, b = given["a"], given["b"]
    if "pairs" in given:
        a = spread(a, given["pairs"])
    sums = integers_of(case.a, a) @ np.swapaxes(integers_of(case.b, b), -1, -2)
    if "c" in given:
        sums = sums + integers_of(case.out, given["c"])
    return encode_integers(case.out, sums)


def output_dtype(case: Case) -> np.dtype[Any]:
    """The type in which a case's outputs are kept: bit patterns, or digests of 64 bits."""
    if case.kernel.startswith("sweep"):
        return np.dtype("<u8")
    return dtype_of(case.out)


def output_shape(case: Case) -> tuple[int, ...]:
    """The shape of a case's output."""
    if case.kernel in ("cast", "unary", "sweep_unary", "sweep_cast"):
        return (case.m,)
    inside = case.kernel in ("mma", "wgmma", "sparse")
    return (case.batch, case.m, case.n) if inside else (case.m, case.n)
