"""The executable specification of the caches: what ``kernels`` must do, in plain Python.

A cache is a dict of lines per set, in the order in which they make room. What it needs from behind
it asks through a ``Coalescer``, which passes requests on when they can no longer grow.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

from accelsim.hw.cache.block import Cache
from accelsim.hw.cache.chain import _seeds, chain_of

Run = tuple[int, int, int]  # address, bytes, write


@dataclass
class Line:
    """A line that a cache holds: its way, and the sectors that are there or must be sent back."""

    way: int
    valid: set[int] = field(default_factory=set)
    dirty: set[int] = field(default_factory=set)


class Coalescer:
    """One open read and one open write towards what is behind a cache."""

    def __init__(self, behind: Level | list[Run]) -> None:
        self.behind = behind
        self.opened: dict[bool, tuple[int, int]] = {}

    def send(self, start: int, end: int, write: bool) -> None:
        """Grow the open request, or open a new one; what of the other kind it overlaps goes first.

        So a line is not sent back before it came, nor fetched again before it was sent back.
        """
        other = self.opened.get(not write)
        if other is not None and start < other[1] and other[0] < end:
            self.close(not write)
        if write in self.opened and self.opened[write][1] == start:
            self.opened[write] = (self.opened[write][0], end)
        else:
            self.close(write)
            self.opened[write] = (start, end)

    def close(self, write: bool) -> None:
        if write not in self.opened:
            return
        start, end = self.opened.pop(write)
        if isinstance(self.behind, Level):
            self.behind.access(start, end, write)
        else:
            self.behind.append((start, end - start, int(write)))

    def settle(self) -> None:
        self.close(False)
        self.close(True)
        if isinstance(self.behind, Level):
            self.behind.out.settle()


class Level:
    """One instance of a cache."""

    def __init__(self, cache: Cache, behind: Level | list[Run], random: int) -> None:
        self.cache, self.random, self.out = cache, random, Coalescer(behind)
        self.sets: list[OrderedDict[int, Line]] = [OrderedDict() for _ in range(cache.sets)]
        self.counts: Counter[str] = Counter()
        self.busy: Counter[int] = Counter()  # cycles of a bank

    def access(self, start: int, end: int, write: bool) -> None:
        """Read or write bytes ``start`` to ``end``, line by line."""
        size = self.cache.line
        for number in range(start // size, -(-end // size)):
            first = number * size
            self._access_line(number, max(start, first), min(end, first + size), write)

    def bank(self, number: int) -> int:
        banks, digits = self.cache.banks, [number % self.cache.banks]
        while banks > 1 and number >= banks:
            number //= banks
            digits.append(number % banks)
        if self.cache.bank_hash == "none":
            return digits[0]
        if self.cache.bank_hash == "sum":
            return sum(digits) % banks
        bank = 0
        for digit in digits:
            bank ^= digit
        return bank

    def _set(self, number: int) -> OrderedDict[int, Line]:
        sets_per_bank = self.cache.sets // self.cache.banks
        lane = number // self.cache.banks % sets_per_bank
        return self.sets[lane * self.cache.banks + self.bank(number)]

    def _access_line(self, number: int, start: int, end: int, write: bool) -> None:
        cache, lines = self.cache, self._set(number)
        first = number * cache.line
        wanted = set(range((start - first) // cache.sector, -(-(end - first) // cache.sector)))
        held = lines[number].valid & wanted if number in lines else set()
        hit = held == wanted
        kind = "write" if write else "read"
        self.counts["lookups"] += 1
        self.counts["hits"] += hit
        self.counts[kind] += len(wanted) * cache.sector
        self.counts[f"{kind}_hit"] += len(held) * cache.sector
        if cache.width:
            self.busy[self.bank(number)] += -(-len(wanted) * cache.sector // cache.width)

        missing = wanted - held
        stays = cache.allocate or not write
        if number in lines:
            if hit or write or cache.policy != "streaming":
                lines.move_to_end(number)
        elif stays:
            self._make_room(lines, number)
            if cache.policy == "streaming" and not write:
                lines.move_to_end(number, last=False)
        if stays:
            partial = {s for s in missing if not start <= first + s * cache.sector}
            partial |= {s for s in missing if first + (s + 1) * cache.sector > end}
            self._send(number, missing if not write else partial, "fill")
            lines[number].valid |= wanted
        if write and cache.write == "through":
            self.counts["through"] += end - start
            self.out.send(start, end, True)
        elif write:
            if number in lines:
                lines[number].dirty |= wanted & lines[number].valid
            if not stays:
                self._send(number, missing, "through", start, end)

    def _make_room(self, lines: OrderedDict[int, Line], number: int) -> None:
        free = set(range(self.cache.ways)) - {line.way for line in lines.values()}
        if free:
            way = min(free)
        else:
            old = next(iter(lines))
            if self.cache.policy == "random":
                way = self._drawn()
                old = next(n for n, line in lines.items() if line.way == way)
            gone = lines.pop(old)
            way = gone.way
            self._send(old, gone.dirty, "back")
        lines[number] = Line(way)

    def _drawn(self) -> int:
        """xorshift32 (Marsaglia, Xorshift RNGs, J. Stat. Softw. 8(14), 2003), scaled to a way."""
        x = self.random
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        self.random = x
        return x * self.cache.ways >> 32

    def _send(
        self, number: int, sectors: set[int], column: str, low: int = 0, high: int = 1 << 62
    ) -> None:
        """Send the bytes of sectors of a line between ``low`` and ``high``, neighbours together."""
        size, first = self.cache.sector, number * self.cache.line
        for _, group in groupby(enumerate(sorted(sectors)), lambda pair: pair[1] - pair[0]):
            run = [sector for _, sector in group]
            start, end = max(low, first + run[0] * size), min(high, first + (run[-1] + 1) * size)
            self.counts[column] += end - start
            self.out.send(start, end, column != "fill")

    def write_back(self) -> None:
        """Send all dirty sectors behind in the order of addresses; lines stay, clean."""
        for number, line in sorted(pair for lines in self.sets for pair in lines.items()):
            self._send(number, line.dirty, "back")
            line.dirty = set()
        self.out.settle()

    def drop(self) -> None:
        """Forget the lines that hold nothing dirty."""
        for lines in self.sets:
            for number in [n for n, line in lines.items() if not line.dirty]:
                del lines[number]


class System:
    """All caches of an architecture, all instances; ``runs`` is what reached the memory."""

    def __init__(self, caches: Mapping[str, Cache], cores: int, seed: int = 0) -> None:
        self.caches, self.runs = caches, list[Run]()
        copies = {name: 1 if cache.shared else cores for name, cache in caches.items()}
        seeds = iter(_seeds(seed, sum(copies.values())).tolist())
        random = {name: [next(seeds) for _ in range(count)] for name, count in copies.items()}
        self.levels: dict[str, list[Level]] = {}
        self.order = sorted(caches, key=lambda name: len(chain_of(caches, name)))
        for name in self.order:
            behind = self.levels.get(caches[name].of)
            self.levels[name] = [
                Level(caches[name], behind[core % len(behind)] if behind else self.runs, drawn)
                for core, drawn in enumerate(random[name])
            ]

    def walk(
        self, entry: str, core: int, base: int, rows: int, row_bytes: int, stride: int, write: bool
    ) -> list[Run]:
        """Read or write a window; the runs that reached the memory for it."""
        if stride == row_bytes and rows > 0:
            rows, row_bytes = 1, rows * row_bytes
        known = len(self.runs)
        level = self.levels[entry][core % len(self.levels[entry])]
        if row_bytes > 0:
            for row in range(rows):
                level.access(base + row * stride, base + row * stride + row_bytes, write)
        level.out.settle()
        return self.runs[known:]

    def flush(self) -> list[Run]:
        """Write all dirty sectors to memory, the caches before others first."""
        known = len(self.runs)
        names = sorted(self.caches, key=lambda name: -len(chain_of(self.caches, name)))
        for name in names:
            for level in self.levels[name]:
                level.write_back()
        return self.runs[known:]
