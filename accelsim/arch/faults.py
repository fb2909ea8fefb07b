"""What is wrong with an architecture, and at which parameter."""

from __future__ import annotations

from collections.abc import Iterable

from accelsim.errors import AccelsimError
from accelsim.quantities import closest


class ParameterError(AccelsimError):
    """A fault at ``path``, e.g. "mxu.rows"; the loader replaces the path by FILE:LINE."""

    def __init__(self, path: str, message: str) -> None:
        # Both arguments reach Exception so that a fault survives pickling between processes.
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def unknown(what: str, word: str, accepted: Iterable[str]) -> str:
    """Message for a name that does not exist: the nearest one, then all that would do."""
    names = sorted(accepted)
    nearest = closest(word, names)
    hint = f"did you mean {nearest!r}? " if nearest else ""
    return f"unknown {what} {word!r}; {hint}accepted: {', '.join(names) or 'none'}"
