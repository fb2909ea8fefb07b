"""Physical quantities at the YAML edge: "16 MiB", "900 GB/s", "940 MHz", "120 ns", "3.9 pJ/bit".

Inside the simulator every quantity is a plain number in its base unit, and its name says which
(``latency_cycles``, ``energy_pj``). Text is read and written only here. The types of this module
annotate the fields of hardware blocks::

    capacity: Bytes            # an int, in bytes; an architecture file may say "16 MiB"

Prefixes mean what the standards say: k, M, G, T are powers of 1000 (1 kB = 1000 B) and Ki, Mi,
Gi, Ti powers of 1024 (1 KiB = 1024 B). Conversion is exact; a whole-numbered quantity refuses
what is not whole in its base unit instead of rounding it. pydantic is imported only when a field
of such a type is validated.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, TypeAlias, get_args

from accelsim.errors import AccelsimError

LARGEST = 2**63 - 1
"""Largest whole number: what an int64 column of a program can hold."""

_NUMBER_AND_UNIT = re.compile(
    r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*([^\d\s].*?)?\s*", re.ASCII
)
_DECIMAL = {"": Fraction(1), "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9)}
_LARGE = {**_DECIMAL, "T": Fraction(10**12), "P": Fraction(10**15)}
_BINARY = {
    prefix: Fraction(1024**power) for power, prefix in enumerate(("", "Ki", "Mi", "Gi", "Ti"))
}
_SMALL = {prefix: Fraction(1, 1000**power) for power, prefix in enumerate(("", "m", "u", "n", "p"))}


@dataclass(frozen=True)
class Quantity:
    """A physical dimension: the units that are accepted and the base unit that is stored.

    ``units`` maps a unit's name to its size in base units, ``shown`` are the units that ``format``
    may choose, and ``whole`` says that a value is a whole number of base units.
    """

    name: str
    base: str
    units: Mapping[str, Fraction]
    shown: tuple[str, ...]
    whole: bool

    def parse(self, value: object) -> int | float:
        """The value in base units; plain numbers are in base units already.

        Raises:
            AccelsimError: not a number, an unknown unit, or not whole where it must be.
        """
        exact = self._exact(value)
        if not self.whole:
            try:
                return float(exact)
            except OverflowError:
                raise AccelsimError(f"{_quoted(value)} is too large") from None
        if abs(exact) > LARGEST:
            raise AccelsimError(f"{_quoted(value)} is too large")
        if exact.denominator != 1:
            raise AccelsimError(
                f"{_quoted(value)} is not a whole number of {self.name} ({float(exact):.6g})"
            )
        return exact.numerator

    def _exact(self, value: object) -> Fraction:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise AccelsimError(f"{_quoted(value)} is not a quantity; {self.accepted()}")
        if not isinstance(value, str):
            if not math.isfinite(value):
                raise AccelsimError(f"{value} is not finite; {self.accepted()}")
            return Fraction(value)
        match = _NUMBER_AND_UNIT.fullmatch(value) if len(value) <= 64 else None
        if match is None:
            raise AccelsimError(f"{_quoted(value)} is not a quantity; {self.accepted()}")
        number, unit = Fraction(match[1].replace("_", "")), match[2]
        return number * self._size_of(unit.replace("µ", "u").replace("μ", "u") if unit else "")

    def _size_of(self, unit: str) -> Fraction:
        if not unit:
            return Fraction(1)
        if unit not in self.units:
            nearest = closest(unit, self.units)
            hint = f"did you mean {nearest!r}? " if nearest else ""
            raise AccelsimError(f"unknown unit {unit!r} for {self.name}; {hint}{self.accepted()}")
        return self.units[unit]

    def accepted(self) -> str:
        """What a message says about the accepted form."""
        return f"accepted: a number with one of {', '.join(self.units)}"

    def format(self, value: float) -> str:
        """Readable text in the unit that shows it most plainly: "16 GiB", "478.7 GB/s".

        A value that no unit shows in six significant digits is rounded to six.
        """
        exact = Fraction(value)
        largest_first = sorted(self.shown, key=lambda unit: self.units[unit], reverse=True)
        fitting = [unit for unit in largest_first if abs(exact) >= self.units[unit]]
        plain = [unit for unit in fitting if _is_plain(exact / self.units[unit])]
        smallest = self.base if exact == 0 else largest_first[-1]
        # Among the units that need no rounding, the fewest characters read best (64 KiB, 64 kB).
        chosen = min(plain, key=lambda unit: len(_digits(exact / self.units[unit])), default=None)
        unit = chosen or (fitting[0] if fitting else smallest)
        return f"{_digits(exact / self.units[unit])} {unit}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def read(value: object) -> int | float:
            try:
                return self.parse(value)
            except AccelsimError as fault:
                # Braces would be taken as fields of pydantic's message template.
                raise PydanticCustomError("quantity", "{text}", {"text": str(fault)}) from None

        return core_schema.no_info_plain_validator_function(read)


def _digits(value: Fraction) -> str:
    text = f"{float(value):.6g}"
    return str(int(float(text))) if "e" in text and abs(value) >= 1 else text


def _is_plain(value: Fraction) -> bool:
    return Fraction(_digits(value)) == value


def _quoted(value: object, limit: int = 60) -> str:
    text = repr(value) if isinstance(value, (str, float, bool, type(None))) else str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def closest(word: str, accepted: Iterable[str]) -> str | None:
    """The accepted word most like a misspelt one, or None when none is similar."""
    options = list(accepted)
    folded = {option.lower(): option for option in reversed(options)}
    cutoff = 0.5 if len(word) <= 3 else 0.6
    near = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=cutoff)
    if near:
        return folded[near[0]]
    # A short name inside a longer one ("bandwith_gbps") has a low ratio but is still a hint.
    inside = [name for name in folded if len(name) > 2 and name in word.lower()]
    return folded[max(inside, key=len)] if inside else None


def _scaled(prefixes: Mapping[str, Fraction], unit: str, size: int = 1) -> dict[str, Fraction]:
    return {prefix + unit: factor * size for prefix, factor in prefixes.items()}


BYTES = Quantity(
    "bytes",
    "B",
    {**_scaled(_LARGE, "B"), **_scaled(_BINARY, "B")},
    ("B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"),
    whole=True,
)
BYTES_PER_SECOND = Quantity(
    "bytes/s",
    "B/s",
    {**_scaled(_LARGE, "B/s"), **_scaled(_BINARY, "B/s")},
    ("B/s", "kB/s", "MB/s", "GB/s", "TB/s"),
    whole=True,
)
HERTZ = Quantity("Hz", "Hz", _scaled(_DECIMAL, "Hz"), ("Hz", "kHz", "MHz", "GHz"), whole=True)
SECONDS = Quantity("seconds", "s", _scaled(_SMALL, "s"), ("s", "ms", "us", "ns", "ps"), whole=False)
CYCLES = Quantity(
    "cycles", "cycles", {"cycles": Fraction(1), "cycle": Fraction(1)}, ("cycles",), whole=True
)
PICOJOULES = Quantity(
    "picojoules",
    "pJ",
    {"fJ": Fraction(1, 1000), "pJ": Fraction(1), "nJ": Fraction(1000), "uJ": Fraction(10**6)},
    ("pJ",),
    whole=False,
)
PICOJOULES_PER_BYTE = Quantity(
    "picojoules per byte",
    "pJ/B",
    {"pJ/B": Fraction(1), "pJ/byte": Fraction(1), "pJ/bit": Fraction(8), "nJ/B": Fraction(1000)},
    ("pJ/B",),
    whole=False,
)

Bytes: TypeAlias = Annotated[int, BYTES]
BytesPerSecond: TypeAlias = Annotated[int, BYTES_PER_SECOND]
Hertz: TypeAlias = Annotated[int, HERTZ]
Seconds: TypeAlias = Annotated[float, SECONDS]
Cycles: TypeAlias = Annotated[int, CYCLES]
Picojoules: TypeAlias = Annotated[float, PICOJOULES]
PicojoulesPerByte: TypeAlias = Annotated[float, PICOJOULES_PER_BYTE]


def quantity_of(annotation: object) -> Quantity | None:
    """The physical quantity that a field's type declares, or None for a plain type."""
    for extra in get_args(annotation)[1:]:
        if isinstance(extra, Quantity):
            return extra
    return None
