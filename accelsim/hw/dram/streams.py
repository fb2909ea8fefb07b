"""Request streams: what is asked of a memory, burst by burst, by rule or out of a trace file.

A burst is what one read or write command of one pseudo-channel moves. Random addresses come from
splitmix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) with
a seed, so that the same stream can be made anywhere:

    seq_read     bursts 0, 1, 2 ...
    seq_write    the same, all writes
    rand_read    bursts anywhere in the first GiB
    strided      one burst per row, always the same bank: a row span apart
    mix21_seq    two reads, one write; reads ascend from 0, writes from the middle of the first GiB
    mix21_rand   two reads, one write, anywhere in the first GiB

A line of a trace file is ``0xADDR READ|WRITE [CLOCK]`` (DRAMsim3), ``R|W 0xADDR`` or ``LD|ST ADDR``
(Ramulator); what follows a # is a comment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError, unknown

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

FIRST_BYTES = 1 << 30
"""The part of a memory that random and mixed streams stay in."""

SEED = 42
LARGEST_SEED = 1 << 64

_WRITES = {"READ": 0, "WRITE": 1, "R": 0, "W": 1, "LD": 0, "ST": 1}
_LINES = "0xADDR READ|WRITE [CLOCK], R|W 0xADDR or LD|ST ADDR"
_LARGEST = 1 << 62
LARGEST_CLOCK = 10**11
"""When a request may arrive at the latest: a minute or two, refreshed every few microseconds."""


@dataclass(frozen=True, eq=False)
class Requests:
    """Bursts in the order in which they are asked for, one entry each.

    ``clock`` is when each of them arrives, never falling; None: all are there from the beginning.
    ``line`` is where each of them stands in its trace file.
    """

    name: str
    address: Ints
    write: NDArray[np.bool_]
    clock: Ints | None = None
    line: Ints | None = None

    def __len__(self) -> int:
        return len(self.address)


@dataclass(frozen=True)
class Extent:
    """What a stream must know of a memory: bytes of a burst, from row to row of a bank, of all."""

    burst_bytes: int
    row_span_bytes: int
    capacity_bytes: int


def splitmix64(count: int, seed: int) -> Words:
    """The first ``count`` numbers of the generator: its state only ever counts up."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def make_stream(name: str, requests: int, extent: Extent, seed: int = SEED) -> Requests:
    """A stream by rule.

    Raises:
        AccelsimError: an unknown name, fewer than one request, a seed that is no 64-bit number, or
            a stream that leaves the memory.
    """
    if name not in STREAMS:
        raise AccelsimError(f"{unknown('stream', name, STREAMS)}; or a trace file")
    if requests < 1:
        raise AccelsimError(f"{requests} requests; accepted: 1 or more")
    if not 0 <= seed < LARGEST_SEED:
        raise AccelsimError(f"seed {seed} is out of range; accepted: 0 to 2**64 - 1")
    number = np.arange(requests, dtype=np.int64)
    address = STREAMS[name](number, extent, seed)
    write = number % 3 == 2 if name.startswith("mix21") else np.full(requests, name == "seq_write")
    found = Requests(name, address, write)
    check_inside(found, extent.capacity_bytes)
    return found


def check_inside(requests: Requests, capacity_bytes: int) -> None:
    """Raise AccelsimError at the first request outside a memory, or far beyond simulated time."""
    if requests.clock is not None and len(requests) and requests.clock.max() > LARGEST_CLOCK:
        raise AccelsimError(
            f"stream {requests.name}: a request arrives at clock {requests.clock.max()}; "
            f"accepted: up to {LARGEST_CLOCK}"
        )
    outside = np.flatnonzero((requests.address < 0) | (requests.address >= capacity_bytes))
    if len(outside):
        first = int(outside[0])
        where = f"stream {requests.name}"
        if requests.line is not None:
            where = f"{requests.name}:{requests.line[first]}"
        raise AccelsimError(
            f"{where}: request {first} at {int(requests.address[first]):#x} is "
            f"past the capacity; accepted: addresses below {capacity_bytes:#x}"
        )


def _sequential(number: Ints, extent: Extent, seed: int) -> Ints:
    return number * extent.burst_bytes % extent.capacity_bytes


def _random(number: Ints, extent: Extent, seed: int) -> Ints:
    slots = min(extent.capacity_bytes, FIRST_BYTES) // extent.burst_bytes
    found = splitmix64(len(number), seed) % np.uint64(slots)
    return found.astype(np.int64) * extent.burst_bytes


def _strided(number: Ints, extent: Extent, seed: int) -> Ints:
    rows = max(1, extent.capacity_bytes // extent.row_span_bytes)
    return number % rows * extent.row_span_bytes


def _mixed_sequential(number: Ints, extent: Extent, seed: int) -> Ints:
    middle = min(extent.capacity_bytes, FIRST_BYTES) // 2
    triple, place = np.divmod(number, 3)
    write = middle + triple * extent.burst_bytes
    return np.where(place == 2, write, (2 * triple + place) * extent.burst_bytes)


STREAMS: dict[str, Callable[[Ints, Extent, int], Ints]] = {
    "seq_read": _sequential,
    "seq_write": _sequential,
    "rand_read": _random,
    "strided": _strided,
    "mix21_seq": _mixed_sequential,
    "mix21_rand": _random,
}
"""Addresses of the streams by name."""


# --- trace files


def read_trace(path: str | Path, most: int | None = None) -> Requests:
    """The requests of a trace file, the first ``most`` of them.

    Raises:
        AccelsimError: ``FILE:LINE: ...`` for a line that is no request.
    """
    rows: list[tuple[int, int, int]] = []
    lines: list[int] = []
    before = 0
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                words = line.partition("#")[0].split()
                if not words:
                    continue
                if most is not None and len(rows) >= most:
                    break
                rows.append(_request(words, before, f"{path}:{number}"))
                lines.append(number)
                before = rows[-1][2]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise AccelsimError(f"{path}: {reason}; accepted: a trace file") from None
    if not rows:
        raise AccelsimError(f"{path}: no request in it; accepted: lines of {_LINES}")
    table = np.array(rows, np.int64)
    clock = np.ascontiguousarray(table[:, 2]) if before else None
    address = np.ascontiguousarray(table[:, 0])
    return Requests(str(path), address, table[:, 1] == 1, clock, np.array(lines, np.int64))


def _request(words: list[str], before: int, where: str) -> tuple[int, int, int]:
    """(address, write, clock) of one line; ``before`` is the clock of the line above."""
    first, second = words[0].upper(), words[1].upper() if len(words) > 1 else ""
    if first in _WRITES and len(words) == 2:
        return _number(words[1], "address", where), _WRITES[first], before
    if second not in ("READ", "WRITE") or len(words) > 3:
        raise AccelsimError(f"{where}: {' '.join(words)!r} is no request; accepted: {_LINES}")
    clock = _number(words[2], "clock", where) if len(words) == 3 else before
    if clock < before:
        raise AccelsimError(
            f"{where}: clock {clock} is before the one above; accepted: {before} or later"
        )
    if clock > LARGEST_CLOCK:
        raise AccelsimError(f"{where}: clock {clock} is too far; accepted: up to {LARGEST_CLOCK}")
    return _number(words[0], "address", where), _WRITES[second], clock


def _number(word: str, what: str, where: str) -> int:
    try:
        value = int(word, 0)
    except ValueError:
        raise AccelsimError(
            f"{where}: {what} {word!r} is no number; accepted: 64 or 0x40"
        ) from None
    if not 0 <= value < _LARGEST:
        raise AccelsimError(f"{where}: {what} {word} is out of range; accepted: 0 to 2**62 - 1")
    return value
