"""A machine without a GPU that says so: everything around the kernels runs on it, in tests.

What is recorded from it is marked ``kind: fake``, and refused as evidence. Its arithmetic follows
the published descriptions of the units (see accelsim.numerics.tensor_core for them) in whole
numbers of 64 bits, and shares no code with the simulator, so that a replay on it compares two
implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import sweeps
from ..cases import FP8, Case, arithmetic_of
from ..inputs import INTEGERS, LAYOUTS, Codes
from ..operands import Ints, Operands, chosen, exact_outputs, integers_of, output_dtype, spread
from ..provenance import Sample

Float32 = npt.NDArray[np.float32]


def machine(name: str = "fake", capability: str = "9.0") -> dict[str, Any]:
    """Provenance as provenance.machine gives it, of no machine."""
    return {
        "kind": "fake", "name": name, "id": "0" * 16, "capability": capability,
        "multiprocessors": 132, "l2_bytes": 50 << 20, "memory_bytes": 80 << 30, "driver": "none",
        "cuda": "none", "python": "none", "numpy": "none", "torch": "none", "triton": "none",
        "cudnn": 0, "cusparselt": 0,
    }  # fmt: skip


class SteadyNvml:
    """Readings of a GPU whose clocks never move, unless told to."""

    def __init__(self, sm_mhz: float = 1980.0, watts: float = 300.0) -> None:
        self.sm_mhz, self.watts = sm_mhz, watts
        self.second = 0.0

    def driver(self) -> str:
        return "none"

    def sample(self) -> Sample:
        """The next reading, a fifth of a second after the last."""
        self.second += 0.2
        return Sample(self.second, self.sm_mhz, 2619.0, self.watts, 40.0, 0)


# --- a step of a tensor core in whole numbers

_NAN, _INF = 1, 2


@dataclass(frozen=True)
class Taken:
    """Words taken apart: (-1)^negative significand 2^(exponent - fraction), or special ones."""

    negative: npt.NDArray[np.bool_]
    significand: Ints
    exponent: Ints
    special: Ints
    fraction: int


def taken(fmt: str, codes: Codes) -> Taken:
    """Floating-point words taken apart."""
    layout = LAYOUTS[fmt]
    bits, man = codes.astype(np.int64) >> layout.padding, layout.mantissa_bits
    field = bits >> man & (1 << layout.exponent_bits) - 1
    mantissa = bits & (1 << man) - 1
    ones = field == (1 << layout.exponent_bits) - 1
    if layout.nan_only:
        special = np.where(ones & (mantissa == (1 << man) - 1), _NAN, 0)
    else:
        special = np.where(ones, np.where(mantissa > 0, _NAN, _INF), 0)
    significand = mantissa + np.where(field > 0, 1 << man, 0)
    exponent = np.maximum(field, 1) - layout.bias
    return Taken(bits >> (layout.exponent_bits + man) > 0, significand, exponent, special, man)


@dataclass(frozen=True)
class Unit:
    """What one step of a tensor core does: K products, F bits, and how it rounds to ``out``."""

    products: int
    fraction_bits: int
    out: str = "fp32"
    kept_bits: int = 23
    nearest: bool = False

    def chain(self, a_fmt: str, a: Codes, b: Codes, c: Codes, b_fmt: str = "") -> Codes:
        """Bits of c[n] + rows of a[n, k] times rows of b[n, k], step by step."""
        for first in range(0, a.shape[1], self.products):
            some = slice(first, first + self.products)
            c = self.step(taken(a_fmt, a[:, some]), taken(b_fmt or a_fmt, b[:, some]), c)
        return c

    def step(self, a: Taken, b: Taken, c: Codes) -> Codes:
        """Bits of one step."""
        held = taken(self.out, c)
        size = np.concatenate([a.significand * b.significand, held.significand[:, None]], axis=1)
        none = size == 0
        exponent = np.concatenate([a.exponent + b.exponent, held.exponent[:, None]], axis=1)
        counted = np.where(none, -(1 << 20), exponent)
        counted[:, -1] = np.where(none[:, -1], -126, counted[:, -1])
        top = counted.max(axis=1)
        fraction = np.full(size.shape[1], a.fraction + b.fraction)
        fraction[-1] = held.fraction
        shift = self.fraction_bits - fraction - (top[:, None] - exponent)
        cut = np.where(shift >= 0, size << np.clip(shift, 0, 40), size >> np.clip(-shift, 0, 62))
        cut = np.where(none, 0, cut)
        minus = np.concatenate([a.negative ^ b.negative, held.negative[:, None]], axis=1)
        total = np.where(minus, -cut, cut).sum(axis=1)
        bits = self.rounded(total, top - self.fraction_bits)
        return np.asarray(self._specials(bits, a, b, held, minus)).astype(LAYOUTS[self.out].dtype)

    def rounded(self, total: Ints, unit: Ints) -> Ints:
        """Bits of total 2^unit, rounded once."""
        layout = LAYOUTS[self.out]
        man, least, size = layout.mantissa_bits, 1 - layout.bias, np.abs(total)
        length = np.frexp(size.astype(np.float64))[1].astype(np.int64)
        top = np.maximum(unit + length - 1, least)
        right = top - self.kept_bits - unit
        down = np.clip(right, 0, 62)
        whole = np.where(right >= 0, size >> down, size << np.clip(-right, 0, 40))
        if self.nearest:
            rest = size - (whole << down)
            half = (np.int64(1) << down) >> 1
            up = (rest > half) | ((rest == half) & (whole & 1 == 1))
            whole = whole + np.where((right > 0) & up, 1, 0)
        lifted = whole << (man - self.kept_bits)
        # A significand that grew by a bit carries into the exponent; one without it is subnormal.
        code = lifted + np.where(lifted >> man > 0, (top - least) << man, 0)
        code = np.minimum(code, (layout.top + 1) << man)
        sign = np.where(total < 0, np.int64(1) << (layout.bits - 1), 0)
        return np.where(total == 0, 0, code | sign)

    def _specials(self, bits: Ints, a: Taken, b: Taken, c: Taken, minus: Any) -> Ints:
        layout = LAYOUTS[self.out]
        zero_a, zero_b = (x.significand == 0 for x in (a, b))
        nan = (a.special == _NAN) | (b.special == _NAN)
        nan |= ((a.special == _INF) & zero_b) | ((b.special == _INF) & zero_a)
        infinite = np.concatenate(
            [(a.special == _INF) | (b.special == _INF), (c.special == _INF)[:, None]], axis=1
        )
        plus, less = (infinite & ~minus).any(axis=1), (infinite & minus).any(axis=1)
        inf = np.int64(layout.top + 1) << layout.mantissa_bits
        bits = np.where(plus, inf, bits)
        bits = np.where(less, inf | np.int64(1) << (layout.bits - 1), bits)
        nowhere = nan.any(axis=1) | (c.special == _NAN) | (plus & less)
        return np.where(nowhere, (np.int64(1) << (layout.bits - 1)) - 1, bits)


def unit_of(name: str, fmt: str, out: str) -> Unit:
    """The step of a unit on a format; half-precision results are rounded to nearest."""
    hopper = name.startswith(("hopper", "blackwell"))
    products, bits, kept = (16, 25, 23) if hopper else (8, 24, 23)
    if fmt in ("tf32", "fp32"):
        products //= 2
    if fmt in FP8:
        products, bits, kept = (32, 13, 13) if hopper else (16, 13, 13)
    if out == "fp16":
        return Unit(products, bits, "fp16", 10, nearest=True)
    return Unit(products, bits, "fp32", kept)


# --- the kernels


@dataclass(frozen=True)
class FakeDevice:
    """Runs every kernel of our own on the CPU; libraries it has none.

    ``sparse_steps`` is how many steps a sparse instruction makes of its selected pairs.
    """

    capability: str = "9.0"
    sparse_steps: int = 1

    def machine(self) -> dict[str, Any]:
        """Its provenance, which says that it is no GPU."""
        return machine(capability=self.capability)

    def refusal(self, kernel: str) -> str:
        """Why it has not got a kernel, "" if it has."""
        own = ("mma", "wgmma", "sparse", "gemm", "gemv", "attention", "cast", "sweep_cast")
        return "" if kernel in own else f"a machine without a GPU has no {kernel}"

    def built(self, sources: Sequence[str]) -> dict[str, Any]:
        """Nothing is compiled."""
        return {}

    def answers(self) -> bool:
        """Always."""
        return True

    def run(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        """Outputs, and what the kernel says of itself; ``turn`` shifts blocks, of which it has
        none."""
        if case.out in INTEGERS:
            return self._integers(case, given), {}
        found = getattr(self, f"_{'mma' if case.kernel == 'wgmma' else case.kernel}")(case, given)
        return found.astype(output_dtype(case)), {}

    def _integers(self, case: Case, given: Operands) -> Codes:
        with np.errstate(over="ignore"):
            a = spread(given["a"], given["pairs"]) if "pairs" in given else given["a"]
            sums = integers_of(case.a, a) @ np.swapaxes(integers_of(case.b, given["b"]), -1, -2)
            sums = sums + integers_of("int32", given["c"]) if "c" in given else sums
        return (sums & 0xFFFFFFFF).astype(np.uint32).view(np.int32)

    def _unit(self, case: Case) -> Unit:
        return unit_of(arithmetic_of(self.capability, case), case.a, case.out)

    def _mma(self, case: Case, given: Operands) -> Codes:
        a, b = _paired(given["a"], given["b"])
        c = given["c"].reshape(-1)
        emulated = case.kernel == "mma" and case.a in FP8 and self.capability >= "9.0"
        if not emulated:
            return self._unit(case).chain(case.a, a, b, c).reshape(given["c"].shape)
        unit = Unit(16, 25, case.out, 10 if case.out == "fp16" else 23, case.out == "fp16")
        sums = np.zeros_like(c)
        late = np.arange(32) % 4 >= 2
        for some in (~late, late):
            sums = unit.step(taken(case.a, a[:, some]), taken(case.b, b[:, some]), sums)
        return _added(case.out, c, sums).reshape(given["c"].shape)

    def _sparse(self, case: Case, given: Operands) -> Codes:
        at = chosen(given["pairs"])[:, :, None, :]
        b = np.take_along_axis(np.repeat(given["b"][:, None], case.m, 1), at, axis=-1)
        a = np.repeat(given["a"][:, :, None], case.n, 2)
        whole = self._unit(case)
        products = case.k // 2 // self.sparse_steps
        unit = Unit(products, whole.fraction_bits, whole.out, whole.kept_bits, whole.nearest)
        left, right = (x.reshape(-1, case.k // 2) for x in (a, b))
        return unit.chain(case.a, left, right, given["c"].reshape(-1)).reshape(given["c"].shape)

    def _gemm(self, case: Case, given: Operands) -> Codes:
        a, b = _paired(given["a"], given["b"])
        length = len(case.cuts[0])
        if case.order.startswith("promote"):
            length = int(case.order.split(":")[1])
        unit, total = self._unit(case), np.zeros(len(a), dtype=np.float32)
        for number, first in enumerate(range(0, case.k, length)):
            some = slice(first, first + length)
            part = unit.chain(case.a, a[:, some], b[:, some], np.zeros(len(a), dtype="<u4"))
            sums = _stored(case.order, part.view(np.float32))
            with np.errstate(all="ignore"):
                total = sums if number == 0 else total + sums
        return _one_nan(total).reshape(case.m, case.n)

    def _gemv(self, case: Case, given: Operands) -> Codes:
        a, x = (_fp32_of(case.a, given[name]) for name in ("a", "b"))
        lanes = np.zeros((case.m, 32), dtype=np.float32)
        for first in range(0, case.k, 32):
            width = min(32, case.k - first)
            some = slice(first, first + width)
            lanes[:, :width] = fused(a[:, some], x[0, some][None], lanes[:, :width])
        half = 16
        while half:
            lanes = lanes[:, :half] + lanes[:, half:]
            half //= 2
        return _one_nan(np.float32(0) + lanes)

    def _attention(self, case: Case, given: Operands) -> Codes:
        unit = Unit(16, 25)
        q, k, v = given["q"], given["k"], given["v"]
        top = np.full(case.m, -np.inf, dtype=np.float32)
        total = np.zeros(case.m, dtype=np.float32)
        out = np.zeros((case.m, v.shape[1]), dtype=np.float32)
        factor = np.float32(SCALE * LOG2_E)
        for first in range(0, case.k, 64):
            a, b = _paired(q, k[first : first + 64])
            scores = unit.chain("fp16", a, b, np.zeros(len(a), dtype="<u4")).view(np.float32)
            x = scores.reshape(case.m, -1) * factor
            new = np.maximum(top, x.max(axis=1))
            p, alpha = exp2(x - new[:, None]), exp2(top - new)
            lanes = np.zeros((case.m, 4), dtype=np.float32)
            for column in range(64):
                lanes[:, column % 4] += p[:, column]
            sums = (lanes[:, 0] + lanes[:, 1]) + (lanes[:, 2] + lanes[:, 3])
            total = total * alpha + sums
            held = p.astype(np.float16).view("<u2")
            a, b = _paired(held, np.ascontiguousarray(v[first : first + 64].T))
            scaled = (out * alpha[:, None]).reshape(-1).view("<u4")
            out = unit.chain("fp16", a, b, scaled).view(np.float32).reshape(out.shape)
            top = new
        return (out / total[:, None]).view("<u4")

    def _sweep_cast(self, case: Case, given: Operands) -> Codes:
        blocks = (sweeps.block_words(case, block) for block in range(case.m))
        found = [sweeps.digest_of(words, narrowed(case.out, words)) for words in blocks]
        return np.array(found, dtype=np.uint64)

    def _cast(self, case: Case, given: Operands) -> Codes:
        if case.values == "integers":
            return exact_outputs(case, given)
        return narrowed(case.out, given["words"])


SCALE, LOG2_E = 0.125, 1.4426950408889634
_COEFFICIENTS = (
    "0x1.62e430p-1", "0x1.ebfbe0p-3", "0x1.c6aed0p-5", "0x1.3b29aap-7", "0x1.5f47b0p-10",
    "0x1.448fbcp-13",
)  # fmt: skip


def fused(a: Float32, b: Float32, c: Float32) -> Float32:
    """a b + c with one rounding: the product is exact in float64, the sum is rounded to odd."""
    product = a.astype(np.float64) * b.astype(np.float64)
    c64 = np.broadcast_to(c, product.shape).astype(np.float64)
    total = product + c64
    back = total - product
    rest = (product - (total - back)) + (c64 - back)
    even = (total.view(np.int64) & 1) == 0
    toward = np.where((rest > 0) == (total > 0), 1, -1)
    odd = np.where((rest != 0) & even, total.view(np.int64) + toward, total.view(np.int64))
    return np.asarray(odd.view(np.float64).astype(np.float32))


def exp2(x: Float32) -> Float32:
    """2^x as the kernels compute it: nearest whole number, degree 6 in the rest."""
    with np.errstate(all="ignore"):
        bound = np.clip(np.where(np.isfinite(x), x, 0), -127, 127).astype(np.float32)
        n = (bound + np.float32(12582912)) - np.float32(12582912)
        f = bound - n
        p = np.full_like(f, float.fromhex(_COEFFICIENTS[-1]))
        for text in (*_COEFFICIENTS[-2::-1], "0x1p+0"):
            p = fused(p, f, np.full_like(f, float.fromhex(text)))
        wide = np.ldexp(p.astype(np.float64), n.astype(np.int64))
        found = np.where(wide >= 2.0**-126, wide, 0).astype(np.float32)
    return np.where(x < -127, np.float32(0), found)


def narrowed(fmt: str, words: Codes) -> Codes:
    """fp32 words rounded to nearest even; fp8 saturates, and NaN is the cast's own."""
    layout = LAYOUTS[fmt]
    parts = taken("fp32", words)
    unit = Unit(1, 23, fmt, layout.mantissa_bits, nearest=True)
    code = unit.rounded(parts.significand, parts.exponent - 23)
    sign = np.where(parts.negative, np.int64(1) << (layout.bits - 1), 0)
    inf = np.int64(layout.top + 1) << layout.mantissa_bits
    ones = (np.int64(1) << (layout.bits - 1)) - 1
    size = np.where(parts.special == _INF, inf, code)
    if fmt in FP8:
        size = np.minimum(size, inf - 2 if layout.nan_only else inf - 1)
    found = size | sign
    return np.where(parts.special == _NAN, ones, found).astype(layout.dtype)


def _paired(a: Codes, b: Codes) -> tuple[Codes, Codes]:
    """Rows of a[.., m, k] beside rows of b[.., n, k], one pair for each output."""
    m, n = a.shape[-2], b.shape[-2]
    left = np.repeat(a[..., :, None, :], n, axis=-2)
    right = np.repeat(b[..., None, :, :], m, axis=-3)
    return left.reshape(-1, a.shape[-1]), right.reshape(-1, b.shape[-1])


def _fp32_of(fmt: str, codes: Codes) -> Float32:
    if fmt == "fp16":
        return codes.view(np.float16).astype(np.float32)
    wide = codes.astype(np.uint32) << np.uint32(16) if fmt == "bf16" else codes
    return np.asarray(wide).astype(np.uint32).view(np.float32)


def _stored(order: str, sums: Float32) -> Float32:
    """Partial sums as a workspace of some format holds them."""
    fmt = order.split(":")[-1]
    if not order.startswith("split") or fmt == "fp32":
        return sums
    return _fp32_of(fmt, narrowed(fmt, sums.view("<u4")))


def _one_nan(sums: Float32) -> Codes:
    """Words of fp32 sums, with the NaN of a GPU's adders."""
    return np.where(np.isnan(sums), np.uint32(0x7FFFFFFF), sums.view(np.uint32))


def _added(fmt: str, c: Codes, sums: Codes) -> Codes:
    """Two words added and rounded once, with the NaN of an adder of that format."""
    with np.errstate(all="ignore"):
        if fmt == "fp16":
            total = c.view(np.float16) + sums.view(np.float16)
            return np.where(np.isnan(total), np.uint16(0x7FFF), total.view(np.uint16))
        return _one_nan(c.view(np.float32) + sums.view(np.float32))
