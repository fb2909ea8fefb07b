"""Casts: float64 or integers to the codes of a format, each rounded once, and codes to values.

A cast is exact integer arithmetic on the bits of the float64 (numerics.cast_kernels), so nothing is
rounded twice on the way, as it is where a library goes through fp32: 1 + 2^-8 + 2^-45 is
1.0078125 in bf16, not 1.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import Format, Overflow, Rounding

Array = npt.NDArray[Any]

ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
OVERFLOWS: tuple[Overflow, ...] = get_args(Overflow)

LARGEST_TABLE_BITS = 16
LARGEST_CODE_BITS = 32  # of the compiled casts; what is wider is float64 itself


def encode(fmt: Format, values: Array, rounding: Rounding, overflow: Overflow, seed: int) -> Array:
    """Stored elements; see Format.encode."""
    values = np.asarray(values)
    _check(fmt, values, rounding, overflow)
    if fmt.is_integer and values.dtype.kind in "iub":
        return _whole(fmt, values, overflow)
    if fmt.bits > LARGEST_CODE_BITS:
        return _double(fmt, values, rounding, overflow, seed)
    own = _correctly_rounded(fmt, values.dtype)
    if own is not None and rounding == "RNE" and overflow == "infinity":
        with np.errstate(over="ignore", invalid="ignore"):
            cast: Array = values.astype(own)
            return cast
    return stored(fmt, _rounded(fmt, values, rounding, overflow, seed))


def decode(fmt: Format, elements: Array) -> Array:
    """The exact values of stored elements, in the carrier type."""
    if fmt.is_float and fmt.storage_dtype.kind == "u":
        values: Array = _table(fmt)[codes(fmt, elements)]
        return values
    if fmt.padding:
        mask = np.uint32((1 << 32) - (1 << fmt.padding))
        return (elements.view(np.uint32) & mask).view(fmt.carrier)
    with np.errstate(invalid="ignore"):  # garbage may hold signalling NaNs
        wide: Array = elements.astype(fmt.carrier)
        return wide


def codes(fmt: Format, elements: Array) -> Array:
    """The bit patterns of stored elements, unsigned, in the width of the storage."""
    unsigned: Array = np.asarray(elements, order="C").view(f"<u{fmt.storage_dtype.itemsize}")
    if fmt.bits % 8:
        unsigned = unsigned & unsigned.dtype.type((1 << fmt.bits) - 1)
    return unsigned


def stored(fmt: Format, patterns: npt.ArrayLike) -> Array:
    """Stored elements of bit patterns; integers narrower than their storage get their sign."""
    size = fmt.storage_dtype.itemsize
    unsigned = np.asarray(patterns).astype(f"<u{size}", order="C")
    spare = 8 * size - fmt.bits
    if not spare:
        return unsigned.view(fmt.storage_dtype)
    if fmt.is_integer and fmt.signed:
        signed: Array = (unsigned << spare).view(fmt.storage_dtype) >> spare
        return signed
    low = unsigned & unsigned.dtype.type((1 << fmt.bits) - 1)
    return np.asarray(low.view(fmt.storage_dtype))


def values_of(fmt: Format, patterns: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """What bit patterns mean, by the definition of the format, in float64.

    Independent of ``decode``; every format of at most 64 bits is exact.
    """
    bits = np.asarray(patterns).astype(np.uint64)
    if fmt.is_integer:
        signed = bits.astype(np.int64)
        wraps = fmt.signed and (signed >> (fmt.bits - 1)) & 1
        return np.where(wraps, signed - (1 << fmt.bits), signed).astype(np.float64)
    bits = bits >> np.uint64(fmt.padding)
    field, man = fmt.exponent_bits + fmt.mantissa_bits, fmt.mantissa_bits
    magnitude = (bits & np.uint64((1 << field) - 1)).astype(np.int64)
    negative = (bits >> np.uint64(field)) & np.uint64(fmt.signed)
    e, m = magnitude >> man, magnitude & ((1 << man) - 1)
    hidden = (e > 0) | fmt.is_scale
    significand = np.where(hidden, m | (1 << man), m).astype(np.float64)
    exponent = np.where(hidden, e, 1) - fmt.bias - man
    # In two steps, so that the subnormals of fp64 are not flushed on the way.
    value = np.ldexp(np.ldexp(significand, exponent // 2), exponent - exponent // 2)
    value = np.where(negative == 1, -value, value)
    return _with_specials(fmt, value, magnitude, negative)


def _with_specials(fmt: Format, value: Array, magnitude: Array, negative: Array) -> Array:
    if fmt.specials == "ieee":
        top = (1 << fmt.exponent_bits) - 1 << fmt.mantissa_bits
        value = np.where(magnitude == top, np.where(negative == 1, -np.inf, np.inf), value)
        value = np.where(magnitude > top, np.nan, value)
    elif fmt.specials == "fn":
        value = np.where(magnitude > fmt.largest_code, np.nan, value)
    elif fmt.specials == "fnuz":
        value = np.where((magnitude == 0) & (negative == 1), np.nan, value)
    return value


def pack(fmt: Format, elements: Array) -> npt.NDArray[np.uint8]:
    """Rows as bytes, the first element in the lowest bits; the last byte is filled up with 0."""
    patterns = codes(fmt, elements)
    if fmt.bits % 8 == 0:
        rows: npt.NDArray[np.uint8] = patterns.view(np.uint8)
        return rows
    bits = np.unpackbits(patterns[..., None], axis=-1, count=fmt.bits, bitorder="little")
    flat = bits.reshape(*patterns.shape[:-1], patterns.shape[-1] * fmt.bits)
    return np.packbits(flat, axis=-1, bitorder="little")


def unpack(fmt: Format, packed: npt.NDArray[np.uint8]) -> Array:
    """Stored elements of rows of bytes, as many as there are whole ones."""
    packed = np.ascontiguousarray(packed)
    if fmt.bits % 8 == 0:
        return packed.view(fmt.storage_dtype)
    columns = packed.shape[-1] * 8 // fmt.bits
    bits = np.unpackbits(packed, axis=-1, count=columns * fmt.bits, bitorder="little")
    bits = bits.reshape(*packed.shape[:-1], columns, fmt.bits)
    return stored(fmt, np.packbits(bits, axis=-1, bitorder="little")[..., 0])


def _check(fmt: Format, values: Array, rounding: Rounding, overflow: Overflow) -> None:
    known = values.dtype.kind in "fiub" and values.dtype.itemsize <= 8
    if not known and values.dtype.kind != "V":  # ml_dtypes' own types widen exactly
        raise AccelsimError(f"cannot cast {values.dtype} to {fmt.name}: not a number type")
    if rounding not in ROUNDINGS:
        raise AccelsimError(f"unknown rounding {rounding!r}; accepted: {', '.join(ROUNDINGS)}")
    accepted = {
        "infinity": fmt.has_infinity,
        "nan": fmt.has_nan,
        "saturate": True,
        "wrap": fmt.is_integer and fmt.high - fmt.low + 1 == 1 << fmt.bits,
    }
    if not accepted.get(overflow, False):
        rules = ", ".join(rule for rule, can in accepted.items() if can)
        raise AccelsimError(f"{fmt.name} cannot overflow by {overflow!r}; accepted: {rules}")


def _correctly_rounded(fmt: Format, source: np.dtype[Any]) -> np.dtype[Any] | None:
    """The numpy type whose own cast from ``source`` rounds once, to nearest even."""
    native = fmt.storage.startswith("<f") and not fmt.padding  # ml_dtypes rounds to fp32 first
    return fmt.storage_dtype if native and source.kind == "f" else None


def _whole(fmt: Format, values: Array, overflow: Overflow) -> Array:
    """Integers to an integer format."""
    if overflow == "wrap":
        return stored(fmt, values.astype(np.int64).view(np.uint64))
    if values.dtype == fmt.storage_dtype and fmt.bits % 8 == 0:
        return values.copy()
    # Clipped in their own type, whose range the limits may exceed.
    own = np.iinfo(values.dtype) if values.dtype.kind != "b" else np.iinfo(np.uint8)
    low, high = max(fmt.low, own.min), min(fmt.high, own.max)
    result: Array = np.clip(values, low, high).astype(fmt.storage_dtype)
    return result


def _double(fmt: Format, values: Array, rounding: Rounding, overflow: Overflow, seed: int) -> Array:
    """Elements of fp64: only integers of more than 53 bits are rounded, only Inf is beyond."""
    if (fmt.exponent_bits, fmt.mantissa_bits, fmt.specials) != (11, 52, "ieee"):
        raise AccelsimError(f"cannot cast to {fmt.name}: of the wider formats only to fp64")
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        cast = _long_integers(values, rounding, seed)
    else:
        with np.errstate(invalid="ignore"):
            cast = values.astype(np.float64)
    if overflow == "infinity":
        return cast
    beyond = fmt.largest if overflow == "saturate" else np.nan
    return np.where(np.isinf(cast), np.copysign(beyond, cast), cast)


def _long_integers(values: Array, rounding: Rounding, seed: int = 0) -> npt.NDArray[np.float64]:
    """64-bit integers, each rounded once to float64."""
    from accelsim.numerics import cast_kernels as kernels

    out = np.empty(values.size, dtype=np.float64)
    negative = np.ascontiguousarray(values < 0).reshape(-1)
    key = np.uint64(seed & (2**64 - 1))
    with np.errstate(over="ignore"):
        kernels.to_doubles(_sizes(values), negative, out, ROUNDINGS.index(rounding), key)
    return out.reshape(values.shape)


def _sizes(values: Array) -> npt.NDArray[np.uint64]:
    """Absolute values of 64-bit integers."""
    sizes = np.where(values < 0, 0 - values, values)  # -2**63 wraps to itself, 2**63 unsigned
    return np.ascontiguousarray(sizes).reshape(-1).astype(np.uint64)


def _in_float64(values: Array) -> npt.NDArray[np.float64]:
    """``values`` such that rounding these to at most 32 bits rounds once.

    Integers of more than 53 bits are rounded to odd: cut off, and the last bit is set if anything
    was lost (Boldo and Melquiond, IEEE Transactions on Computers 57, 2008). The others are exact.
    """
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        cut = _long_integers(values, "RZ").reshape(-1)
        lost = np.abs(cut).astype(np.uint64) != _sizes(values)
        odd: npt.NDArray[np.float64] = (cut.view(np.uint64) | lost).view(np.float64)
        return odd
    with np.errstate(invalid="ignore"):  # garbage may hold signalling NaNs
        return np.ascontiguousarray(values, dtype=np.float64).reshape(-1)


def _rounded(
    fmt: Format, values: Array, rounding: Rounding, overflow: Overflow, seed: int
) -> npt.NDArray[np.uint32]:
    """Bit patterns of ``values``, whose formats have at most 32 bits."""
    from accelsim.numerics import cast_kernels as kernels

    shape = values.shape
    wide = _in_float64(values).view(np.uint64)
    out = np.empty(wide.shape, dtype=np.uint32)
    key = np.uint64(seed & (2**64 - 1))
    mode = ROUNDINGS.index(rounding)
    with np.errstate(over="ignore"):
        if fmt.is_integer:
            mask = (1 << fmt.bits) - 1
            wraps = overflow == "wrap"
            kernels.to_integers(wide, out, mode, key, fmt.low, fmt.high, mask, wraps)
        else:
            kernels.to_floats(wide, out, mode, key, *_layout(fmt, overflow))
    return out.reshape(shape)


def _layout(fmt: Format, overflow: Overflow) -> tuple[int, ...]:
    """What cast_kernels.to_floats needs to know of a format, in its order of arguments."""
    field = fmt.exponent_bits + fmt.mantissa_bits
    sign = 1 << field if fmt.signed else 0
    top = fmt.largest_code
    infinity = top + 1 if fmt.has_infinity else -1
    nan = {
        "ieee": infinity | 1 << max(fmt.mantissa_bits - 1, 0),
        "fn": (1 << field) - 1,
        "fnuz": sign,
        "finite": top,
    }[fmt.specials]
    beyond = {"infinity": infinity, "nan": nan, "saturate": top}[overflow]
    no_negative_zero = fmt.specials == "fnuz" or fmt.is_scale
    return (
        fmt.mantissa_bits, fmt.min_exponent, top, beyond, infinity, nan, sign, fmt.padding,
        OVERFLOWS.index(overflow), no_negative_zero, fmt.is_scale,
    )  # fmt: skip


_TABLES: dict[Format, Array] = {}


def _table(fmt: Format) -> Array:
    """The values of all codes of a narrow format, in the carrier type."""
    found = _TABLES.get(fmt)
    if found is None:
        if fmt.bits > LARGEST_TABLE_BITS:
            raise AccelsimError(f"format {fmt.name} needs a storage type that numpy can widen")
        found = _TABLES[fmt] = values_of(fmt, np.arange(1 << fmt.bits)).astype(fmt.carrier)
    return found
