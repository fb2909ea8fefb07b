"""Number formats: how many bits a value takes in memory and how those bits are read.

A format is one entry of ``FORMATS``. Every array of values outside memory is held in the format's
*carrier*, a numpy type that represents each of its values exactly; encoding rounds once, to
nearest even, from the carrier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Format:
    """One number format.

    ``bits`` is the size in memory. ``storage`` names the numpy (or ml_dtypes) type whose bytes are
    the memory image; ``carrier`` the numpy type that holds its values exactly.
    ``significand_bits`` counts the hidden bit (0 for integers), so one rounding to nearest is off
    by at most ``2**-significand_bits`` relative; ``min_exponent`` is that of the smallest normal.
    """

    name: str
    bits: int
    storage: str
    carrier: str
    significand_bits: int = 0
    min_exponent: int = 0

    @property
    def is_integer(self) -> bool:
        return self.significand_bits == 0

    @property
    def is_float(self) -> bool:
        return not self.is_integer

    @property
    def result(self) -> str:
        """Format in which a matrix product of this format is stored unless asked otherwise."""
        return "int32" if self.is_integer else self.name

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of one rounding to nearest (0 for integers)."""
        return 0.0 if self.is_integer else 2.0**-self.significand_bits

    @property
    def smallest_quantum(self) -> float:
        """Spacing of the subnormals: the absolute floor of a rounding error is half of it."""
        return 0.0 if self.is_integer else 2.0 ** (self.min_exponent - self.significand_bits + 1)

    @cached_property
    def storage_dtype(self) -> np.dtype[Any]:
        """numpy dtype of the memory image (ml_dtypes is imported only for formats that need it)."""
        import numpy as np

        try:
            return np.dtype(self.storage)
        except TypeError:
            import ml_dtypes

            dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self.storage))
            return dtype

    def encode(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Round values to this format in its storage type: nearest even, integers saturate.

        Floating values beyond the largest finite one become infinite. NaN has no integer; it
        becomes 0.
        """
        import numpy as np

        if self.is_integer:
            return self._saturate(values)
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(self.carrier, copy=False).astype(self.storage_dtype)

    def _saturate(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        import numpy as np

        if values.dtype == self.storage_dtype:
            return values.copy()
        limits = np.iinfo(self.storage)
        if values.dtype.kind == "f":
            whole = np.rint(values.astype(np.float64))
            values = np.where(np.isnan(whole), 0.0, whole)
        stored: npt.NDArray[np.generic] = np.clip(values, limits.min, limits.max).astype(
            self.storage_dtype
        )
        return stored

    def decode(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The exact values of stored elements, in the carrier type."""
        return stored.astype(self.carrier)


FORMATS: dict[str, Format] = {}
FORMAT_NAMES: list[str] = []
FORMAT_CODES: dict[str, int] = {}


def register_format(fmt: Format) -> Format:
    """Make a number format known under its name; its code is its place in ``FORMAT_NAMES``."""
    if fmt.name not in FORMATS:
        FORMAT_CODES[fmt.name] = len(FORMAT_NAMES)
        FORMAT_NAMES.append(fmt.name)
    FORMATS[fmt.name] = fmt
    return fmt


for _built_in in (
    Format("fp32", 32, "<f4", "<f4", significand_bits=24, min_exponent=-126),
    Format("fp16", 16, "<f2", "<f4", significand_bits=11, min_exponent=-14),
    Format("bf16", 16, "bfloat16", "<f4", significand_bits=8, min_exponent=-126),
    Format("int8", 8, "<i1", "<i4"),
    Format("int16", 16, "<i2", "<i4"),
    Format("int32", 32, "<i4", "<i4"),
):
    register_format(_built_in)


def number_format(name: str) -> Format:
    """The format called ``name``; raises AccelsimError naming the known ones."""
    try:
        return FORMATS[name]
    except KeyError:
        known = ", ".join(FORMAT_NAMES)
        raise AccelsimError(f"unknown number format {name!r}; known formats: {known}") from None


def row_bytes(columns: int, fmt: Format) -> int:
    """Bytes of ``columns`` packed values; a row must fill whole bytes."""
    bits = columns * fmt.bits
    if bits % 8:
        raise AccelsimError(f"{columns} values of {fmt.name} do not fill whole bytes")
    return bits // 8
