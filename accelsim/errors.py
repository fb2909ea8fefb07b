"""Faults a user can act on."""

from __future__ import annotations

from collections.abc import Iterable


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
