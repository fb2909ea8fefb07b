"""Numbers as people read them: "69.7 ms", "1.18 J", "30.7 GB", "58.1 M", "79 %".

Three significant digits and decimal prefixes, for tables and headlines. What must be exact is
printed in full or stands in the JSON result.
"""

from __future__ import annotations

import math

_LARGE = ("", "k", "M", "G", "T", "P", "E", "Z")
_SMALL = ("", "m", "µ", "n", "p", "f")


def scaled(value: float, unit: str = "") -> str:
    """A magnitude with a decimal prefix: 30712733760, "B" -> "30.7 GB"; 0 stays "0 B"."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".rstrip()
    power = math.floor(math.log10(abs(value)) / 3)
    power = max(1 - len(_SMALL), min(power, len(_LARGE) - 1))
    if abs(float(f"{value / 1000.0**power:.3g}")) >= 1000 and power < len(_LARGE) - 1:
        power += 1
    digits = _three(value / 1000.0**power)
    prefix = _LARGE[power] if power >= 0 else _SMALL[-power]
    return f"{digits} {prefix}{unit}".rstrip()


def _three(value: float) -> str:
    """Three significant digits, and all digits of what is before the point."""
    rounded = float(f"{value:.3g}")
    places = 0 if abs(rounded) >= 100 else 1 if abs(rounded) >= 10 else 2
    return f"{rounded:.{places}f}"


def seconds_text(seconds: float) -> str:
    """A simulated time: "69.7 ms"."""
    return scaled(seconds, "s")


def energy_text(picojoules: float) -> str:
    """An energy: "1.18 J"."""
    return scaled(picojoules * 1e-12, "J")


def bytes_text(nbytes: float) -> str:
    """An amount of data in decimal units: "30.7 GB"."""
    return scaled(nbytes, "B")


def count_text(count: float) -> str:
    """How many: whole below 10,000, then with a prefix ("58.1 M")."""
    if abs(count) < 10_000 and float(count).is_integer():
        return f"{int(count):,}"
    return scaled(count)


def percent_text(share: float) -> str:
    """A share: "79 %"; one digit after the point below 10 %, and "< 0.1 %" below that."""
    percent = 100 * share
    if percent == 0:
        return "0 %"
    if abs(percent) < 0.1:
        return "< 0.1 %"
    # 99.96 must not read as "all of it".
    if 99.5 <= percent < 100:
        return f"{math.floor(percent * 10) / 10:.1f} %"
    return f"{percent:.1f} %" if abs(percent) < 9.95 else f"{percent:.0f} %"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 point", "12 points"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
