"""Wording shared by the readers of this room: suggestions and whole-number checks."""

from __future__ import annotations

import math
from collections.abc import Iterable

from accelsim.errors import AccelsimError, is_whole
from accelsim.errors import shown as shown

MAX_DIMENSION = 2**31 - 1
"""Largest accepted tensor dimension; a larger one is a typing error, not a workload."""


def did_you_mean(word: str, accepted: Iterable[str]) -> str:
    """Suggestion in parentheses for a misspelt word, or an empty string."""
    import difflib  # only a message needs it

    folded = {option.lower(): option for option in accepted}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f" (did you mean '{folded[close[0]]}'?)" if close else ""


def listed(words: Iterable[str]) -> str:
    """Words of an error message, separated by commas."""
    return ", ".join(words)


def whole(value: object, what: str, *, least: int = 1) -> int:
    """`value` when it is a whole number in [least, MAX_DIMENSION].

    Raises:
        AccelsimError: naming `what`, the value found and the accepted range.
    """
    if is_whole(value, least, MAX_DIMENSION):
        return int(value)  # type: ignore[call-overload,no-any-return]
    raise AccelsimError(
        f"{what} is {shown(value)}; accepted: a whole number from {least} to {MAX_DIMENSION}"
    )


def parse_whole(text: object, what: str, *, least: int = 1) -> int:
    """A whole number written as text (or already an int), checked as `whole` does."""
    if isinstance(text, str):
        digits = text.strip()
        if digits.removeprefix("-").isascii() and digits.removeprefix("-").isdigit():
            return whole(int(digits) if len(digits) < 20 else text, what, least=least)
    return whole(text, what, least=least)


def parse_bool(value: object, what: str) -> bool:
    """A truth value, or the text true or false in any case."""
    text = value.strip().lower() if isinstance(value, str) else value
    if text in ("true", "false"):
        return text == "true"
    if isinstance(value, bool):
        return value
    raise AccelsimError(f"{what} is {shown(value)}; accepted: true or false")


def parse_float(value: object, what: str) -> float:
    """A finite number, or its text."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise AccelsimError(f"{what} is {shown(value)}; accepted: a finite number")


def parse_text(value: object, what: str) -> str:
    """A word."""
    if isinstance(value, str):
        return value.strip()
    raise AccelsimError(f"{what} is {shown(value)}; accepted: a word")
