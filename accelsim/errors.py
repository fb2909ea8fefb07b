"""Faults a user can act on."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral


class AccelsimError(Exception):
    """A fault the user can act on; its message is one clear line."""


class CapacityError(AccelsimError):
    """Something does not fit into a memory; the message says what, how much and where."""


class ParameterError(AccelsimError):
    """A fault at ``path``, e.g. "mxu.rows"; a loader replaces the path by FILE:LINE."""

    def __init__(self, path: str, message: str) -> None:
        # Both arguments reach Exception so that a fault survives pickling between processes.
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def unknown(what: str, word: str, accepted: Iterable[str]) -> str:
    """Message for a name that does not exist: the nearest one, then all that would do."""
    from accelsim.quantities import closest  # quantities raises these errors itself

    names = sorted(accepted)
    nearest = closest(word, names)
    hint = f"did you mean {nearest!r}? " if nearest else ""
    return f"unknown {what} {word!r}; {hint}accepted: {', '.join(names) or 'none'}"


def shown(value: object, limit: int = 60) -> str:
    """A value as a message quotes it: one line, shortened."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer beyond the interpreter's digit limit
        text = f"a {type(value).__name__} too long to print"
    text = " ".join(line.strip() for line in text.splitlines())  # arrays have several
    return text if len(text) <= limit else text[: limit - 3] + "..."


def is_whole(value: object, least: int, most: int) -> bool:
    """Whether a value is a whole number in [least, most]; numpy's are, True and "3" are not."""
    # Integral also admits numpy integers, which sweeps over arrays bring.
    is_number = isinstance(value, Integral) and not isinstance(value, bool)
    return is_number and least <= int(value) <= most  # type: ignore[call-overload]
