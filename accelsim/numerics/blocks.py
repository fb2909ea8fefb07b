"""Block formats: narrow elements that share a scale, MX and NVFP4.

    format        elements   block   scale    scale of a block
    mxfp8_*       fp8        32      e8m0     2^(floor(log2 max|x|) - emax of the element)
    mxfp6_*       fp6        32      e8m0     as above
    mxfp4_e2m1    fp4 e2m1   32      e8m0     as above
    mxint8        int8/64    32      e8m0     as above, emax 0
    nvfp4         fp4 e2m1   16      e4m3     RNE(max|x| / 6 / tensor scale), with an fp32 scale of
                                              the tensor, max|x| / (6 x 448)

Sources: OCP Microscaling Formats (MX) 1.0, 2023, §5.2, §6.3; NVIDIA, Pretraining Large Language
Models with NVFP4, 2025, arXiv 2509.25149, appendix on quantisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError, unknown
from accelsim.numerics.formats import Format, Rounding, number_format

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BlockFormat:
    """``block`` neighbouring elements of a row share one ``scale``.

    ``unit`` is what an element of 1 stands for (mxint8: 2**-6). ``tensor_scale``: whether an fp32
    scale of the whole tensor brings the scales into their range.
    """

    name: str
    element: str
    block: int = 32
    scale: str = "e8m0"
    unit: float = 1.0
    tensor_scale: bool = False

    @property
    def elements(self) -> Format:
        return number_format(self.element)

    @property
    def scales(self) -> Format:
        return number_format(self.scale)

    @property
    def largest(self) -> float:
        """The largest element."""
        return self.elements.largest * self.unit

    @property
    def bits_per_value(self) -> float:
        """Bits in memory per value, its share of the scale included."""
        return self.elements.bits + self.scales.bits / self.block

    def quantize(self, values: npt.ArrayLike, rounding: Rounding = "RNE", seed: int = 0) -> Blocks:
        """``values[..., n]`` in blocks along the last axis; n must be whole blocks.

        Elements saturate. A block that contains NaN or Inf gets a NaN scale. Quotients are taken in
        float64; those of fp32 values are far enough from every halfway point for that to be exact.
        Raises AccelsimError if blocks do not fill the rows.
        """
        x = np.asarray(values, dtype=np.float64)
        if x.ndim < 1 or x.shape[-1] % self.block:
            raise AccelsimError(
                f"{self.name} needs rows of whole blocks of {self.block} values, not"
                f" {x.shape[-1] if x.ndim else 'a number'}"
            )
        blocks = x.reshape(*x.shape[:-1], -1, self.block)
        largest = np.abs(blocks).max(axis=-1)
        whole = self._tensor_scale(largest)
        scales = self._scales(largest / whole)
        with np.errstate(divide="ignore", invalid="ignore"):
            by = self.scales.decode(scales).astype(np.float64) * whole * self.unit
            quotient = np.where(by[..., None] > 0, blocks / by[..., None], 0.0)
        elements = self.elements.encode(quotient.reshape(x.shape), rounding, "saturate", seed)
        return Blocks(self, elements, scales, whole)

    def _tensor_scale(self, largest: Floats) -> float:
        if not self.tensor_scale:
            return 1.0
        finite = largest[np.isfinite(largest)]
        whole = np.float32(finite.max(initial=0.0) / (self.largest * self.scales.largest))
        return float(whole) or 1.0

    def _scales(self, largest: Floats) -> Array:
        if not self.scales.is_scale:
            wanted = np.where(np.isfinite(largest), largest / self.largest, np.nan)
            return self.scales.encode(wanted, "RNE", "saturate")
        # floor(log2) by frexp, which is exact: 0.5 <= m < 1 makes it one less than the exponent.
        emax = np.frexp(self.largest)[1] - 1
        exponent = np.frexp(largest)[1].astype(np.int64) - 1 - emax
        power = np.ldexp(1.0, np.where(largest > 0, exponent, -self.scales.bias))
        return self.scales.encode(np.where(np.isfinite(largest), power, np.nan))


@dataclass(frozen=True)
class Blocks:
    """A tensor in a block format: stored ``elements[..., n]``, ``scales[..., n / block]``."""

    format: BlockFormat
    elements: Array
    scales: Array
    tensor_scale: float = 1.0

    def dequantize(self) -> Floats:
        """The values [..., n]: element times scale times tensor scale, in float64.

        Exact but for the tensor scale's product, which float64 rounds below its 53 bits never:
        4 + 4 + 24 bits.
        """
        fmt = self.format
        by = fmt.scales.decode(self.scales).astype(np.float64) * self.tensor_scale * fmt.unit
        values = fmt.elements.decode(self.elements).astype(np.float64)
        return np.asarray(values * np.repeat(by, fmt.block, axis=-1))


BLOCK_FORMATS: dict[str, BlockFormat] = {
    entry.name: entry
    for entry in (
        BlockFormat("mxfp8_e4m3", "fp8_e4m3"),
        BlockFormat("mxfp8_e5m2", "fp8_e5m2"),
        BlockFormat("mxfp6_e2m3", "fp6_e2m3"),
        BlockFormat("mxfp6_e3m2", "fp6_e3m2"),
        BlockFormat("mxfp4_e2m1", "fp4_e2m1"),
        BlockFormat("mxint8", "int8", unit=2.0**-6),
        BlockFormat("nvfp4", "fp4_e2m1", block=16, scale="fp8_e4m3", tensor_scale=True),
    )
}


def block_format(name: str) -> BlockFormat:
    """The block format called ``name``; raises AccelsimError naming the known ones."""
    try:
        return BLOCK_FORMATS[name]
    except KeyError:
        raise AccelsimError(unknown("block format", name, BLOCK_FORMATS)) from None
