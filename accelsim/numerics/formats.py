"""Number formats: how many bits a value takes in memory and how those bits are read.

A format is one entry of ``FORMATS``. Every array of values outside memory is held in the format's
*carrier*, a numpy type that represents each of its values exactly; encoding rounds once
(numerics.cast), from any float64 or integer.

    kind       entry                                              values
    floating   exponent_bits, mantissa_bits, bias, specials       (-1)^s 1.m 2^(e-bias), subnormals
    scale      exponent_bits, mantissa_bits = 0, unsigned         2^(e-bias), no zero (E8M0)
    integer    low, high                                          two's complement, or unsigned

Sources: IEEE 754-2019 (fp64, fp32, fp16); OCP 8-bit Floating Point Specification 1.0, 2023 (fp8
e4m3, e5m2); OCP Microscaling Formats 1.0, 2023 (fp6, fp4, e8m0); Noune et al., 8-bit Numerical
Formats for Deep Neural Networks, 2022, arXiv 2206.02915 (the fnuz variants); NVIDIA A100 whitepaper
(tf32); Kalamkar et al., A Study of BFLOAT16, 2019, arXiv 1905.12322 (bf16); Ma et al., The Era of
1-bit LLMs, 2024, arXiv 2402.17764 (ternary).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from accelsim.errors import AccelsimError, unknown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Rounding = Literal["RNE", "RZ", "RU", "RD", "SR"]
"""To nearest with ties to even, toward zero, up, down, and stochastic (seeded)."""

Overflow = Literal["infinity", "nan", "saturate", "wrap"]
"""What becomes of a value beyond the largest finite one.

infinity   as IEEE 754 §7.4: Inf, or the largest finite value where the rounding points inwards
nan        as infinity, but NaN in its place (OCP FP8 1.0, §5.2.2: e4m3 without saturation)
saturate   the largest finite value, for Inf too (PTX cvt.satfinite)
wrap       modulo 2**bits, Inf becomes 0; integers that use all their bits only
"""

Specials = Literal["ieee", "fn", "fnuz", "finite"]
"""Which codes are not numbers.

ieee     the largest exponent holds Inf and NaN
fn       one NaN of either sign, all exponent and mantissa bits set; no Inf (unsigned: one NaN)
fnuz     one NaN, in the place of -0; no Inf
finite   none
"""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One number format.

    ``bits`` is the size in memory and ``storage`` the numpy (or ml_dtypes) type of one element;
    formats narrower than a byte take a byte of their own in arrays and are packed by ``pack``.
    ``carrier`` is the numpy type that holds every value exactly. A floating-point word is sign,
    ``exponent_bits``, ``mantissa_bits`` from the top; bits below them are ignored when read and
    written as 0 (tf32). ``exponent_bits`` 0 makes it an integer from ``low`` to ``high``.
    ``overflow`` is the rule unless a cast names another.
    """

    name: str
    bits: int
    storage: str
    carrier: str = "<f4"
    exponent_bits: int = 0
    mantissa_bits: int = 0
    bias: int = 0
    specials: Specials = "ieee"
    signed: bool = True
    low: int = 0
    high: int = 0
    overflow: Overflow = "infinity"
    result_format: str = ""

    @property
    def is_integer(self) -> bool:
        return self.exponent_bits == 0

    @property
    def is_float(self) -> bool:
        return not self.is_integer

    @property
    def is_scale(self) -> bool:
        """A power of two without sign or zero."""
        return self.is_float and not self.signed

    @property
    def result(self) -> str:
        """Format in which a matrix product of this format is stored unless asked otherwise."""
        return self.result_format or self.name

    @property
    def significand_bits(self) -> int:
        """Significand bits with the hidden one; 0 for integers."""
        return 0 if self.is_integer else self.mantissa_bits + 1

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number (of the smallest number, if a scale)."""
        return -self.bias if self.is_scale else 1 - self.bias

    @property
    def padding(self) -> int:
        """Bits below the mantissa, which nothing reads."""
        if self.is_integer:
            return 0
        return self.bits - self.signed - self.exponent_bits - self.mantissa_bits

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of one rounding to nearest (0 for integers)."""
        return 0.0 if self.is_integer else 2.0**-self.significand_bits

    @property
    def smallest_quantum(self) -> float:
        """Spacing of the subnormals: the absolute floor of a rounding error is half of it."""
        return 0.0 if self.is_integer else 2.0 ** (self.min_exponent - self.mantissa_bits)

    @property
    def has_infinity(self) -> bool:
        return self.is_float and self.specials == "ieee"

    @property
    def has_nan(self) -> bool:
        return self.is_float and self.specials != "finite"

    @property
    def largest_code(self) -> int:
        """Code of the largest finite value, padding left out."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        if self.specials == "ieee":
            return top - (1 << self.mantissa_bits)
        return top - (self.specials == "fn")

    @property
    def largest(self) -> float:
        """The largest finite value."""
        if self.is_integer:
            return float(self.high)
        exponent, mantissa = divmod(self.largest_code, 1 << self.mantissa_bits)
        return (1.0 + mantissa * 2.0**-self.mantissa_bits) * 2.0 ** (exponent - self.bias)

    @cached_property
    def storage_dtype(self) -> np.dtype[Any]:
        """numpy dtype of one element (ml_dtypes is imported only for formats that need it)."""
        import numpy as np

        try:
            dtype: np.dtype[Any] = np.dtype(self.storage)
        except TypeError:
            import ml_dtypes

            dtype = np.dtype(getattr(ml_dtypes, self.storage))
        width = 8 * dtype.itemsize
        if self.bits != width and not self.bits < width == 8:
            raise AccelsimError(
                f"format {self.name}: {self.bits} bits in elements of {width}; accepted: as many,"
                " or fewer in elements of 8"
            )
        return dtype

    def encode(
        self,
        values: npt.NDArray[np.generic],
        rounding: Rounding = "RNE",
        overflow: Overflow | Literal[""] = "",
        seed: int = 0,
    ) -> npt.NDArray[np.generic]:
        """``values`` (float64 or narrower, or integers), each rounded once, as stored elements.

        ``overflow`` "" is the format's own rule. NaN stays NaN; where there is none it becomes the
        largest finite value (PTX ISA 8.6, cvt to e2m1, e2m3, e3m2), or 0 for integers. With "SR"
        element i is rounded away from zero with the probability of what would be cut off, decided
        by word i of splitmix64 keyed by ``seed``. Raises AccelsimError for a rule that the format
        cannot follow.
        """
        from accelsim.numerics import cast

        return cast.encode(self, values, rounding, overflow or self.overflow, seed)

    def decode(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The exact values of stored elements, in the carrier type."""
        from accelsim.numerics import cast

        return cast.decode(self, stored)

    def codes(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.unsignedinteger[Any]]:
        """The bit patterns of stored elements as unsigned integers."""
        from accelsim.numerics import cast

        return cast.codes(self, stored)

    def stored(self, codes: npt.ArrayLike) -> npt.NDArray[np.generic]:
        """Stored elements of bit patterns; bits beyond ``bits`` are ignored."""
        from accelsim.numerics import cast

        return cast.stored(self, codes)

    def pack(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        """Rows of stored elements as bytes [..., row_bytes], the first element lowest."""
        from accelsim.numerics import cast

        return cast.pack(self, stored)

    def unpack(self, packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
        """Stored elements of the rows that ``pack`` gave."""
        from accelsim.numerics import cast

        return cast.unpack(self, packed)


FORMATS: dict[str, Format] = {}
FORMAT_NAMES: list[str] = []
FORMAT_CODES: dict[str, int] = {}


def register_format(fmt: Format) -> Format:
    """Make a number format known under its name; its code is its place in ``FORMAT_NAMES``."""
    if fmt.is_float and fmt.padding < 0:
        raise AccelsimError(f"format {fmt.name}: its fields need more than {fmt.bits} bits")
    if fmt.is_integer and fmt.low >= fmt.high:
        raise AccelsimError(f"format {fmt.name}: low {fmt.low} is not below high {fmt.high}")
    if fmt.name not in FORMATS:
        FORMAT_CODES[fmt.name] = len(FORMAT_NAMES)
        FORMAT_NAMES.append(fmt.name)
    FORMATS[fmt.name] = fmt
    return fmt


def floating(
    name: str, exponent_bits: int, mantissa_bits: int, storage: str, **settings: Any
) -> Format:
    """An entry for a floating-point format; the bias is IEEE's unless given."""
    settings.setdefault("bits", 1 + exponent_bits + mantissa_bits)
    settings.setdefault("bias", (1 << (exponent_bits - 1)) - 1)
    return Format(
        name=name,
        storage=storage,
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        **settings,
    )


def integer(name: str, bits: int, storage: str, low: int, high: int) -> Format:
    """An entry for an integer format; a product of it is stored in int32."""
    return Format(
        name=name, bits=bits, storage=storage, carrier="<i4", low=low, high=high,
        signed=low < 0, overflow="saturate", result_format="int32",
    )  # fmt: skip


for _built_in in (
    floating("fp32", 8, 23, "<f4"),
    floating("fp16", 5, 10, "<f2"),
    floating("bf16", 8, 7, "bfloat16"),
    integer("int8", 8, "<i1", -128, 127),
    integer("int16", 16, "<i2", -32768, 32767),
    integer("int32", 32, "<i4", -(2**31), 2**31 - 1),
    floating("fp64", 11, 52, "<f8", carrier="<f8"),
    floating("tf32", 8, 10, "<f4", bits=32, result_format="fp32"),
    floating(
        "fp8_e4m3", 4, 3, "float8_e4m3fn", specials="fn", overflow="nan", result_format="bf16"
    ),
    floating("fp8_e5m2", 5, 2, "float8_e5m2", result_format="bf16"),
    floating(
        "fp8_e4m3fnuz", 4, 3, "float8_e4m3fnuz", bias=8,
        specials="fnuz", overflow="nan", result_format="bf16",
    ),
    floating(
        "fp8_e5m2fnuz", 5, 2, "float8_e5m2fnuz", bias=16,
        specials="fnuz", overflow="nan", result_format="bf16",
    ),
    floating("fp6_e2m3", 2, 3, "u1", specials="finite", overflow="saturate", result_format="bf16"),
    floating("fp6_e3m2", 3, 2, "u1", specials="finite", overflow="saturate", result_format="bf16"),
    floating("fp4_e2m1", 2, 1, "u1", specials="finite", overflow="saturate", result_format="bf16"),
    floating("e8m0", 8, 0, "u1", bits=8, signed=False, specials="fn", overflow="saturate"),
    integer("int4", 4, "<i1", -8, 7),
    integer("int2", 2, "<i1", -2, 1),
    integer("ternary", 2, "<i1", -1, 1),
    integer("uint8", 8, "<u1", 0, 255),
    integer("uint4", 4, "<u1", 0, 15),
    integer("uint2", 2, "<u1", 0, 3),
    integer("uint1", 1, "<u1", 0, 1),
):  # fmt: skip
    register_format(_built_in)


def number_format(name: str) -> Format:
    """The format called ``name``; raises AccelsimError naming the known ones."""
    try:
        return FORMATS[name]
    except KeyError:
        raise AccelsimError(unknown("number format", name, FORMATS)) from None


def row_bytes(columns: int, fmt: Format) -> int:
    """Bytes of ``columns`` packed values; a row must fill whole bytes."""
    bits = columns * fmt.bits
    if bits % 8:
        raise AccelsimError(f"{columns} values of {fmt.name} do not fill whole bytes")
    return bits // 8
