"""Tensor cores on block formats: operands whose neighbours share a scale (MX, NVFP4).

PTX ISA, tcgen05.mma with block scaling; the terms of a step (numerics.tensor_core) are

    kind        formats            products  F   a term
    mxf8f6f4    mxfp8, 6 and 4     32        25  one product, its exponent moved by both scales'
    mxf4nvf4    mxfp4, nvfp4       64        35  the exact sum of 16 products, times the
                                                 significands of both scales; its exponent is the
                                                 sum of the scales' exponents

and everything else is as without scales. The tensor scales of nvfp4 are not the instruction's work:
kernels multiply the result by them, fl(d fl(t_a t_b)) in fp32.

Source: Xie et al., MMA-Sim, 2025, arXiv 2511.10909, whose authors tested it on the hardware. There
is no capture at hand that this model was compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.numerics.blocks import BlockFormat, Blocks
from accelsim.numerics.tensor_core import Bits, DotStep, Parts, parts_of_codes

Array = npt.NDArray[Any]

HALVES = 2
"""Elements of fp4 e2m1 are multiples of one half, their products of a quarter: 2 fraction bits."""


@dataclass(frozen=True)
class ScaledRule:
    """A chain of steps over operands in blocks, each term the sum of ``group`` products.

    ``step.products`` counts terms.
    """

    step: DotStep
    group: int
    format: BlockFormat

    @property
    def tag(self) -> str:
        step, groups = self.step, f"sums of {self.group}, " if self.group > 1 else ""
        k = step.products * self.group
        return (
            f"k{k} {groups}f{step.fraction_bits} {step.rounding} fp32, {self.format.scale} scales"
        )

    def multiply(self, a: Blocks, b: Blocks) -> npt.NDArray[np.float32]:
        """``a[m, k] @ b[n, k].T`` in fp32, tensor scales included."""
        for one in (a, b):
            if one.format != self.format:
                raise AccelsimError(f"operands in {one.format.name}, not {self.format.name}")
        bits = self._grouped(a, b) if self.group > 1 else self._single(a, b)
        with np.errstate(all="ignore"):
            whole = np.float32(a.tensor_scale) * np.float32(b.tensor_scale)
            return np.asarray(bits.view(np.float32) * whole, dtype=np.float32)

    def _single(self, a: Blocks, b: Blocks) -> Bits:
        """Terms of one product each: scales are powers of two, which move exponents."""
        left, right = (
            parts_of_codes(x.format.elements, x.format.elements.codes(x.elements)).scaled(
                scale_parts(x).exponent, x.format.block
            )
            for x in (a, b)
        )
        return self.step.multiply(left, right, _nothing(a, b))

    def _grouped(self, a: Blocks, b: Blocks) -> Bits:
        """Terms that are sums of a group: row by row of a, all rows of b at once."""
        from accelsim.numerics.dot_kernels import ZERO

        left, right = _units(a, self.group), _units(b, self.group)
        repeat = self.format.block // self.group
        scale_a, scale_b = (_repeated(scale_parts(x), repeat) for x in (a, b))
        bits = _nothing(a, b)
        for i in range(len(bits)):
            # [groups, n, 16] @ [groups, 16, 1]: at most 16 x 144 quarters, exact in fp32.
            sums = np.matmul(right.transpose(1, 0, 2), left[i][..., None])[..., 0].T
            terms = sums.astype(np.int32) * scale_a.significand[i]
            exponent = np.where(sums == 0, ZERO, 0)
            # A scale that is NaN outweighs a sum that is zero.
            exponent = (exponent + scale_a.exponent[i]).astype(np.int32)
            rows = Parts(np.ascontiguousarray(terms), exponent, scale_a.fraction + 2, 0)
            bits[i] = self.step.dots(rows, scale_b, bits[i])
        return bits


def scale_parts(blocks: Blocks) -> Parts:
    """Scales [rows, blocks] taken apart; a sign that a scale may have is ignored."""
    from accelsim.numerics.dot_kernels import NOT_A_NUMBER

    fmt = blocks.format.scales
    codes = fmt.codes(blocks.scales).astype(np.int64)
    if not fmt.is_scale:
        return parts_of_codes(fmt, codes & ((1 << (fmt.bits - 1)) - 1))
    nan = codes > fmt.largest_code
    exponent = np.where(nan, NOT_A_NUMBER, codes - fmt.bias).astype(np.int32)
    return Parts(np.ones_like(exponent), exponent, 0, fmt.min_exponent)


def _repeated(parts: Parts, times: int) -> Parts:
    """Every scale once for each group of its block."""
    columns = np.repeat(np.arange(parts.significand.shape[1]), times)
    return parts.columns(columns)


def _units(blocks: Blocks, group: int) -> npt.NDArray[np.float32]:
    """Elements in halves, [rows, groups, group]."""
    values = blocks.format.elements.decode(blocks.elements).astype(np.float32) * HALVES
    return values.reshape(len(values), -1, group)


def _nothing(a: Blocks, b: Blocks) -> Bits:
    return np.zeros((len(a.elements), len(b.elements)), dtype=np.uint32)
