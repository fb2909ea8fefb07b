"""Cutting a sweep into chunks: about a second of work each, smaller towards the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

Task = TypeVar("Task")

SECONDS_PER_CHUNK = 1.0


class Chunks(Generic[Task]):
    """Chunks of tasks, made when they are asked for and sized by what earlier ones took.

    Until a pace is known chunks hold one task. A chunk never holds more than its fair share of
    what is left (left / 3 workers), so that no worker is still busy long after the others.
    """

    def __init__(
        self, tasks: Sequence[Task], workers: int, seconds: float = SECONDS_PER_CHUNK
    ) -> None:
        self._tasks, self._workers, self._target = tasks, workers, seconds
        self._pace = 0.0
        self.at = 0

    @property
    def left(self) -> int:
        """Tasks that no chunk holds yet."""
        return len(self._tasks) - self.at

    def __iter__(self) -> Iterator[Sequence[Task]]:
        while self.left:
            size = self._size()
            chunk = self._tasks[self.at : self.at + size]
            self.at += size
            yield chunk

    def took(self, tasks: int, seconds: float) -> None:
        """Learn from a finished chunk: recent ones count most, as neighbours cost alike."""
        pace = seconds / tasks
        self._pace = pace if not self._pace else (self._pace + pace) / 2

    def seconds_left(self) -> float | None:
        """Estimated work left, in seconds of one worker; None while nothing is known."""
        return self._pace * self.left if self._pace else None

    def _size(self) -> int:
        if not self._pace:
            return 1
        wanted = int(self._target / self._pace)
        fair = -(-self.left // (3 * self._workers)) if self._workers > 1 else wanted
        return max(1, min(wanted, fair, self.left))
