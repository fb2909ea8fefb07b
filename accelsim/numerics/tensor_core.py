"""Tensor cores: fused dot products, K at a time, aligned and truncated, as NVIDIA's GPUs compute.

One *step* computes d = T(c + sum over i < K of a_i b_i):

    1. operands are taken apart into sign, integer significand and exponent; subnormals keep the
       smallest normal exponent and are neither flushed nor normalised
    2. products are exact and not normalised: significand m_a m_b, exponent e_a + e_b
    3. E is the largest exponent of the terms that are not zero; that of c = 0 is -126
    4. every term is cut off (toward zero) below 2^(E - F), with no guard or sticky bits
    5. the terms are added exactly; nothing overflows on the way
    6. the sum is normalised and rounded once: toward zero to fp32 (to 13 fraction bits where fp8 is
       accumulated by Ada and Hopper), to nearest even to fp16; what is too large becomes Inf
    7. NaN, Inf x 0 and Inf - Inf give the NaN with all bits set but the sign; a sum of exactly
       zero is +0

A longer product is a chain of steps in ascending k. Sources: bits captured on V100, A100, A2, Ada,
L40S, H100, H200 and B200 by Khattak and Mikaitis (MATLAB-tensor-core, arXiv 2510.15884), which this
model reproduces (validation/tensor_cores); Fasi et al., PeerJ CS e330, 2021; Xie et al., MMA-Sim,
2025, arXiv 2511.10909.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import Format, number_format

if TYPE_CHECKING:
    from accelsim.numerics.dot_kernels import StepNumbers

Array = npt.NDArray[Any]
Bits = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int32]

NEVER = -(1 << 30)
"""An exponent that is never the largest."""

PARALLEL_MACS = 1 << 18
"""Products of fewer multiply-accumulates are not worth a second thread."""


@dataclass(frozen=True, kw_only=True)
class DotStep:
    """The arithmetic of one step; see the module for the model.

    ``products`` is K and ``fraction_bits`` F. ``result`` is the format of c and d, of whose
    fraction ``kept_bits`` are delivered. The others settle corners that ordinary numbers do not
    reach, and on which published models differ:

    ``zero_c_exponent``    exponent of c = 0 (None: c = 0 is left out)
    ``zero_products``      whether products of zero count for E, with the exponents of their factors
    ``least_exponent``     E is no smaller than this (None: not limited)
    ``normalizes_c``       whether a subnormal c is normalised before it is aligned
    ``signed_underflow``   whether what is rounded to zero keeps its sign
    """

    products: int
    fraction_bits: int
    result: Literal["fp32", "fp16"] = "fp32"
    kept_bits: int = 23
    rounding: Literal["RZ", "RNE"] = "RZ"
    zero_c_exponent: int | None = -126
    zero_products: bool = False
    least_exponent: int | None = None
    normalizes_c: bool = False
    signed_underflow: bool = True

    def __post_init__(self) -> None:
        most = number_format(self.result).mantissa_bits
        if self.products < 1 or not 0 < self.fraction_bits <= 40 or not 0 < self.kept_bits <= most:
            raise AccelsimError(
                f"a dot step of {self.products} products, {self.fraction_bits} fraction bits and"
                f" {self.kept_bits} kept bits: accepted are 1 or more, 1 to 40, and 1 to {most}"
            )

    @property
    def format(self) -> Format:
        """The format of c and d."""
        return number_format(self.result)

    def numbers(self, product_fraction: int) -> StepNumbers:
        """What the kernels need, for products with so many fraction bits."""
        from accelsim.numerics.dot_kernels import StepNumbers

        fmt = self.format
        return StepNumbers(
            products=self.products,
            fraction_bits=self.fraction_bits,
            lift=self.fraction_bits - product_fraction,
            kept_bits=self.kept_bits,
            nearest=self.rounding == "RNE",
            zero_c_exponent=NEVER if self.zero_c_exponent is None else self.zero_c_exponent,
            least_exponent=NEVER if self.least_exponent is None else self.least_exponent,
            normalizes_c=self.normalizes_c,
            signed_underflow=self.signed_underflow,
            mantissa=fmt.mantissa_bits,
            bias=fmt.bias,
            top=fmt.largest_code + 1,
        )

    def multiply(self, a: Parts, b: Parts, c: Bits) -> Bits:
        """Bits of ``a[m, k] @ b[n, k].T`` as a chain of steps from the bits ``c[m, n]``.

        k is filled up to whole steps with zeros, which change nothing. Rows are shared out over
        the processors that this process may use.
        """
        from accelsim.numerics import dot_kernels

        d = np.empty_like(c)
        step = self.numbers(a.fraction + b.fraction)
        parts = [self._whole(x) for x in (a, b)]
        (sa, ea), (sb, eb) = ((x.significand, x.exponent) for x in parts)
        threads = min(_processors(), len(c))
        if threads < 2 or c.size * sa.shape[1] < PARALLEL_MACS:
            dot_kernels.products(sa, ea, sb, eb, c, d, step)
            return d
        cuts = np.linspace(0, len(c), 4 * threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(threads) as pool:
            jobs = [
                pool.submit(
                    dot_kernels.products, sa[i:j], ea[i:j], sb, eb, c[i:j], d[i:j], step
                )
                for i, j in pairwise(cuts)
                if j > i
            ]  # fmt: skip
            for job in jobs:
                job.result()
        return d

    def dots(self, a: Parts, b: Parts, c: Bits) -> Bits:
        """Bits of the dot products of the rows of ``a[n, k]`` and ``b[n, k]``, from ``c[n]``."""
        from accelsim.numerics import dot_kernels

        d = np.empty_like(c)
        a_, b_ = self._whole(a), self._whole(b)
        dot_kernels.dots(
            a_.significand, a_.exponent, b_.significand, b_.exponent, c, d,
            self.numbers(a.fraction + b.fraction),
        )  # fmt: skip
        return d

    def _whole(self, parts: Parts) -> Parts:
        """Rows of whole steps, zeros as the step sees them."""
        from accelsim.numerics.dot_kernels import ZERO

        missing = -parts.significand.shape[1] % self.products
        zero = parts.least_exponent if self.zero_products else ZERO
        significand = np.pad(parts.significand, ((0, 0), (0, missing)))
        exponent = np.pad(parts.exponent, ((0, 0), (0, missing)), constant_values=ZERO)
        if zero != ZERO:
            own = exponent[:, : parts.exponent.shape[1]]
            own[own == ZERO] = zero
        return Parts(significand, exponent, parts.fraction, parts.least_exponent)


@dataclass(frozen=True)
class Parts:
    """Operands taken apart: value = significand 2**(exponent - fraction), [rows, k].

    ``exponent`` of zero, Inf and NaN are those of dot_kernels; ``least_exponent`` is that of the
    format's subnormals.
    """

    significand: Ints
    exponent: Ints
    fraction: int
    least_exponent: int

    def columns(self, chosen: Any) -> Parts:
        """Some of the k, in the order given."""
        return Parts(
            np.ascontiguousarray(self.significand[:, chosen]),
            np.ascontiguousarray(self.exponent[:, chosen]),
            self.fraction,
            self.least_exponent,
        )

    def scaled(self, exponents: Ints, block: int) -> Parts:
        """Every ``block`` of k times 2**``exponents[rows, k / block]`` (MX scales)."""
        shift = np.repeat(exponents, block, axis=1)[:, : self.exponent.shape[1]]
        return Parts(self.significand, self.exponent + shift, self.fraction, self.least_exponent)


def parts_of_codes(fmt: Format, codes: npt.ArrayLike) -> Parts:
    """Operands [rows, k] from the bit patterns of a floating-point format, padding included."""
    from accelsim.numerics import dot_kernels as d

    if fmt.is_integer or fmt.is_scale or fmt.bits > 32:
        raise AccelsimError(f"a tensor core takes no {fmt.name} apart: floating point of 32 bits")
    bits = np.asarray(codes).astype(np.int64) >> fmt.padding
    man, field = fmt.mantissa_bits, fmt.exponent_bits + fmt.mantissa_bits
    magnitude, negative = bits & ((1 << field) - 1), (bits >> field) & 1
    exponent_field = magnitude >> man
    normal = exponent_field > 0
    significand = np.where(normal, (magnitude & ((1 << man) - 1)) | (1 << man), magnitude)
    exponent = np.where(normal, exponent_field, 1) - fmt.bias
    exponent = np.where(significand == 0, d.ZERO, exponent)
    special = magnitude > fmt.largest_code
    if fmt.specials == "fnuz":
        special = (magnitude == 0) & (negative == 1)
    infinite = special & fmt.has_infinity & (magnitude == fmt.largest_code + 1)
    exponent = np.where(special, d.NOT_A_NUMBER, exponent)
    exponent = np.where(infinite, d.INFINITE, exponent)
    significand = np.where(special, 1, significand)
    signed = np.where(negative == 1, -significand, significand)
    return Parts(
        np.ascontiguousarray(signed.astype(np.int32)),
        np.ascontiguousarray(exponent.astype(np.int32)),
        man,
        1 - fmt.bias,
    )


def parts_of(fmt: Format, values: Array) -> Parts:
    """Operands [rows, k] from carriers; bits that the format does not have are cut off."""
    if fmt.padding or fmt.name == "fp32":
        return parts_of_codes(fmt, np.ascontiguousarray(values, dtype=np.float32).view(np.uint32))
    return parts_of_codes(fmt, fmt.codes(fmt.encode(values)))


@cache
def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
