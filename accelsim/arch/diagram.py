"""The block diagram as text: shared memories, caches, networks, then each core, DMA to units.

Every memory of a core is a wire of its own, so the drawing shows which unit reads which memory. A
wire that passes over another is drawn through it without a joint.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from accelsim.arch.canvas import NORTH, SOUTH, Canvas
from accelsim.arch.model import Architecture
from accelsim.arch.parameters import parameters_of
from accelsim.hw.block import Memory, Unit
from accelsim.hw.cache import Cache
from accelsim.hw.noc import Network
from accelsim.program.opcodes import TRANSFERS
from accelsim.quantities import BYTES_PER_SECOND

WIDTH = 88
_GAP = 2
_MARGIN = 3
_TERMINAL = 6


@dataclass(frozen=True)
class Box:
    """A block as drawn: its place in a row of boxes."""

    name: str
    title: str
    lines: tuple[str, ...]
    column: int = 0

    @property
    def width(self) -> int:
        return max(len(self.title) + 5, *(len(line) + 4 for line in self.lines), 12)

    @property
    def terminal(self) -> int:
        """Column where a wire leaves the box: equal in all boxes, so that stacked ones align."""
        return self.column + _TERMINAL

    @property
    def last(self) -> int:
        return self.column + self.width - 1


def diagram(arch: Architecture) -> str:
    """The block diagram of an architecture, at most 88 columns wide where its boxes allow it."""
    shared = _rows([_memory_box(n, m) for n, m in arch.memories.items() if m.shared])
    private = _rows([_memory_box(n, m) for n, m in arch.memories.items() if not m.shared])
    movers = _rows([_unit_box(n, u) for n, u in arch.units.items() if _is_mover(u)])
    wired = {box.name for box in private[0]} if len(private) == 1 else set()
    others = {name: unit for name, unit in arch.units.items() if not _is_mover(unit)}
    compute = _rows([_unit_box(n, u, wired) for n, u in others.items()])
    if len(compute) > 1:
        compute = _rows([_unit_box(n, u) for n, u in others.items()])
    canvas = Canvas()
    row = _draw_rows(canvas, 0, shared)
    # Shared caches stand between the memory and the cores, those of a core in front of its units.
    caches = [_rows([box]) for box in _cache_boxes(arch, shared=True)]
    for level in caches if shared else ():
        row = _draw_rows(canvas, _bus(canvas, row, shared[-1], level[0]), level)
        shared = level
    networks = _rows([_network_box(n, one) for n, one in arch.networks.items()])
    if shared and networks:
        row = _bus(canvas, row, shared[-1], networks[0])
    row = top = _draw_rows(canvas, row, networks)
    above = networks or shared
    own = [_rows([box]) for box in _cache_boxes(arch, shared=False)]
    for below in (*own, movers, private):
        if above and below:
            row = _bus(canvas, row, above[-1], below[0], passing=1 if row == top else 0)
        row = _draw_rows(canvas, row if row > top else top + 1, below)
        above = below or above
    if len(private) == len(compute) == 1:
        row = _wires(canvas, arch, row, private[0], compute[0])
    row = _draw_rows(canvas, row if row > top else top + 1, compute)
    cores = f"core x {arch.cores}" if arch.cores > 1 else "core"
    canvas.frame(top, row, _frame_width([*movers, *private, *compute]), cores)
    return canvas.render()


def _is_mover(unit: Unit) -> bool:
    """Whether a unit carries data between memories rather than working on one of them."""
    return not unit.memories() and not unit.opcodes.isdisjoint(TRANSFERS)


def _frame_width(rows: list[list[Box]]) -> int:
    return max(WIDTH, *(row[-1].last + _MARGIN for row in rows)) if rows else WIDTH


def _memory_box(name: str, memory: Memory) -> Box:
    return Box(name, name, (memory.kind, *_key_figures(memory)))


def _cache_boxes(arch: Architecture, shared: bool) -> list[Box]:
    """The shared caches or those of every core, the nearest to the memory first."""

    def steps(cache: Cache) -> int:
        behind = arch.caches.get(cache.of)
        return 1 if behind is None else 1 + steps(behind)

    named = [(name, cache) for name, cache in arch.caches.items() if cache.shared == shared]
    return [
        Box(name, name, (cache.kind, *_key_figures(cache)))
        for name, cache in sorted(named, key=lambda one: steps(one[1]))
    ]


def _network_box(name: str, network: Network) -> Box:
    rate = f"{BYTES_PER_SECOND.format(network.bandwidth)} per link"
    return Box(name, name, (network.shape, rate))


def _unit_box(name: str, unit: Unit, wired: Collection[str] = ()) -> Box:
    """A unit; the memories to which no wire will be drawn are named in it."""
    count = f" x {unit.count}" if unit.count > 1 else ""
    named = [memory for memory in dict.fromkeys(unit.memories()) if memory not in wired]
    uses = [f"on {', '.join(named)}"] if named else []
    return Box(name, f"{name}{count}", (unit.kind, *_key_figures(unit), *uses))


def _key_figures(block: Unit | Memory | Cache) -> list[str]:
    """What an architect asks first: the shape of an array, the size and speed of a memory."""
    if hasattr(block, "rows") and hasattr(block, "cols"):
        shape = f"{block.rows} x {block.cols}"
        return [" ".join(filter(None, (shape, str(getattr(block, "dataflow", "")))))]
    if hasattr(block, "lanes"):
        return [f"{block.lanes} lanes"]
    shown = []
    if hasattr(block, "device") and hasattr(block, "channels"):
        shown = [f"{block.channels} x {block.device.rpartition(':')[2]}"]
    for name in ("capacity", "bandwidth", "latency"):
        parameter = parameters_of(type(block)).get(name)
        if parameter and parameter.quantity and getattr(block, name):
            shown.append(parameter.quantity.format(getattr(block, name)))
    return shown


def _rows(boxes: list[Box]) -> list[list[Box]]:
    """Boxes side by side, all equally high, in as many rows as the width needs."""
    height = max((len(box.lines) for box in boxes), default=0)
    rows: list[list[Box]] = []
    column = _MARGIN
    for box in boxes:
        lines = box.lines + ("",) * (height - len(box.lines))
        if not rows or column + box.width > WIDTH - _MARGIN:
            rows.append([])
            column = _MARGIN
        rows[-1].append(Box(box.name, box.title, lines, column))
        column += box.width + _GAP
    return rows


def _draw_rows(canvas: Canvas, row: int, rows: list[list[Box]]) -> int:
    """Draw rows of boxes from ``row`` on; returns the row below them."""
    for boxes in rows:
        for box in boxes:
            canvas.box(row, box.column, box.title, list(box.lines), box.width)
        row += len(boxes[0].lines) + 2
    return row


def _bus(canvas: Canvas, row: int, uppers: list[Box], lowers: list[Box], passing: int = 0) -> int:
    """One wire that joins all upper boxes with all lower ones; returns the row below it.

    ``row`` is the row under the upper boxes; the wire lies ``passing`` rows further down.
    """
    level = row + passing
    ends = [box.terminal for box in (*uppers, *lowers)]
    canvas.horizontal(level, min(ends), max(ends))
    for box in uppers:
        canvas.vertical(box.terminal, row - 1, level)
    for box in lowers:
        canvas.join(level, box.terminal, SOUTH)
    return level + 1


def _wires(
    canvas: Canvas, arch: Architecture, row: int, memories: list[Box], units: list[Box]
) -> int:
    """One wire per memory, joined to the units that name it; returns the row below the wires."""
    taps = _taps(arch, memories, units)
    bottom = row + len(memories)
    for index, memory in enumerate(memories):
        columns = [memory.terminal, *taps.get(memory.name, ())]
        if len(columns) > 1:
            canvas.horizontal(row + index, min(columns), max(columns))
    for index, memory in enumerate(memories):
        if memory.name in taps:
            canvas.join(row - 1, memory.terminal, SOUTH)
            canvas.passing(memory.terminal, row, row + index - 1)
            canvas.join(row + index, memory.terminal, NORTH)
        for column in taps.get(memory.name, ()):
            canvas.join(row + index, column, SOUTH)
            canvas.passing(column, row + index + 1, bottom - 1)
    return bottom


def _taps(arch: Architecture, memories: list[Box], units: list[Box]) -> dict[str, list[int]]:
    """Columns at which units join the wire of each memory, no two wires in the same one."""
    drops = {memory.terminal: memory.name for memory in memories}
    taken: set[int] = set()
    taps: dict[str, list[int]] = {}
    for unit in units:
        named = [box.name for box in memories if box.name in arch.units[unit.name].memories()]
        for position, name in enumerate(named):
            column = unit.column + 2 + position * max(1, (unit.width - 4) // len(named))
            if len(named) == 1:
                column = unit.terminal
            while column in taken or drops.get(column, name) != name:
                column += 1
            taken.add(column)
            taps.setdefault(name, []).append(column)
    return taps
