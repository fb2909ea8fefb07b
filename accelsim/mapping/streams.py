"""Streaming dataflow: nodes joined by bounded FIFOs, described as a graph and checked for deadlock.

A mapper describes what flows; ``mapping/stream_rows.py`` makes the instructions. Everything goes
row by row: a FIFO carries an element for every *key* of a row, or one for the whole *row*, and a
node takes one element of each FIFO before it for every element that it makes, but for reductions
(which make one of a row of elements) and for elements of rows, which serve all elements of theirs.

The FIFOs behind one node are one ring of buffers with several readers (taps). Each tap has its own
depth: the node may make element i when every reader has taken its element i - depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.stream import Stream
from accelsim.program.opcodes import Flag, Function, Opcode
from accelsim.program.table import Ints

if TYPE_CHECKING:
    from accelsim.program.storage import Storage

# Rows of the outer loop after which a network that is not stuck never gets stuck: the last of them
# meets the same state of all FIFOs as every later one.
PROBE_ROWS = 4


class StreamDeadlockError(AccelsimError):
    """A network of FIFOs that gets stuck: which FIFO is full, which is empty, what would do."""


@dataclass(eq=False)
class Channel:
    """What flows behind a node: elements of ``width`` numbers, one per key or one per row.

    ``latency`` is the producer's, in cycles; ``depth`` and ``first`` (the slots of the ring and the
    operand descriptor of slot 0) and the storage are known when all taps are.
    """

    name: str
    producer: int
    per_key: bool
    width: int
    latency: int
    depth: int = 0
    first: int = -1
    storage: Storage | None = None

    def at(self, element: Ints) -> Ints:
        """Operand descriptors of the slots of elements."""
        return self.first + element % self.depth


@dataclass(frozen=True, eq=False)
class Tap:
    """One reader of a channel: a FIFO of ``depth`` elements.

    ``lag``: an element is still read with that many elements after it. ``long``: it has to keep a
    whole row, and its depth is ``long_fifo_depth``. ``implied``: another FIFO's element says that
    this one's is there. ``skipped``: nothing is read for the first element of a row.
    """

    channel: Channel
    consumer: int
    depth: int
    lag: int = 0
    long: bool = False
    implied: bool = False
    skipped: bool = False


@dataclass(frozen=True)
class Firings:
    """Firings of one node: their numbers, the row of each and whether it is the row's first."""

    i: Ints
    row: Ints
    first: np.ndarray


Operands = Callable[[Firings], Ints]


@dataclass(eq=False)
class Node:
    """A unit that does the same for every element. ``nested``: it fires for every key of a row.

    ``shape`` is (m, n, k) of an instruction; ``flags`` apply from the second element of a row on,
    ``always`` to all. ``sources`` and ``target`` give operand descriptors, -1 for none.
    """

    name: str
    unit: int
    opcode: Opcode
    shape: tuple[int, int, int]
    nested: bool
    function: Function = Function.NONE
    imm: float = 0.0
    flags: Flag = Flag.NONE
    always: Flag = Flag.NONE
    sources: list[Operands] = field(default_factory=list)
    target: Operands | None = None
    makes: Channel | None = None
    on_pool: bool = True


class Network:
    """Nodes and FIFOs for ``rows`` rows of ``keys`` elements each; see mappers/stream_attention."""

    def __init__(self, name: str, block: Stream, pool: list[int], rows: int, keys: int) -> None:
        self.name, self.block, self.rows, self.keys = name, block, rows, keys
        self.pool = iter(pool)
        self.nodes: list[Node] = []
        self.channels: list[Channel] = []
        self.taps: list[Tap] = []

    # -- what flows ------------------------------------------------------------------------------

    def load(self, name: str, unit: int, width: int, windows: Operands, per_key: bool) -> Channel:
        """Rows of a tensor, one for every key or one for every row."""
        node = Node(f"load {name}", unit, Opcode.LOAD, (1, width, 0), per_key, on_pool=False)
        node.sources = [windows]
        return self._add(node, name, width, 0, per_key)

    def store(self, unit: int, result: Channel, windows: Operands) -> None:
        """Write the elements of rows to memory."""
        node = Node("store", unit, Opcode.STORE, (1, result.width, 0), False, on_pool=False)
        # The last FIFO gets one element per row, so that it need not cover the pipeline before it.
        node.sources = [self._read(result, depth=self.block.fifo_depth)]
        node.target = windows
        self.nodes.append(node)

    def dot(
        self, name: str, q: Channel, k: Channel, scale: float, then: Function = Function.NONE
    ) -> Channel:
        """then(scale q k^T) of a row's query and each of its keys."""
        node = self._node(name, Opcode.MATMUL, (1, 1, q.width), then, imm=scale)
        node.always = Flag.TRANSPOSE_B
        node.sources = [self._read(q), self._read(k)]
        latency = self.block.dot_latency + self.block.latency_of(then)
        return self._add(node, name, 1, latency, True)

    def combine(
        self, name: str, function: Function, a: Channel, b: Channel | None = None, *,
        long: bool = False, follows: bool = False,
    ) -> Channel:  # fmt: skip
        """function(a, b) for every element of a, which waits in a ``long`` FIFO for b's.

        ``follows``: every element of b is made from one of a, so that a's waits as long as that
        takes, and is there when b's is.
        """
        node = self._node(name, Opcode.VECTOR, (1, a.width, 0), function, nested=a.per_key)
        late = b.latency if b and follows else 0
        node.sources = [self._read(a, long=long, late=late, implied=follows)]
        if b:
            node.sources.append(self._read(b))
        return self._add(node, name, a.width, self.block.latency_of(function), a.per_key)

    def reduce(
        self, name: str, function: Function, a: Channel, start: int | None = None
    ) -> Channel:
        """The running sum or maximum of each row, of which the last value goes on.

        ``start`` is the operand that the first element is combined with, by default itself.
        """
        node = self._node(name, Opcode.VECTOR, (1, 1, 0), function)
        node.flags = Flag.FORWARD
        made = self._add(node, name, 1, self.block.latency_of(function), False)
        read = self._read(a, by=len(self.nodes) - 1)
        node.sources = [
            read,
            lambda f: np.where(f.first, read(f) if start is None else start, made.at(f.row)),
        ]
        return made

    def scan(self, name: str, function: Function, a: Channel) -> Channel:
        """The running maximum, of which every value goes on."""
        node = self._node(name, Opcode.VECTOR, (1, 1, 0), function)
        node.flags = Flag.FORWARD
        made = self._add(node, name, 1, self.block.latency_of(function), True)
        read = self._read(a, by=len(self.nodes) - 1)
        node.sources = [read, lambda f: np.where(f.first, read(f), made.at(f.i - 1))]
        return made

    def steps(self, name: str, function: Function, a: Channel) -> Channel:
        """function(the element before, this one); the first of a row with itself."""
        node = self._node(name, Opcode.VECTOR, (1, 1, 0), function)
        read = self._read(a, lag=1)
        node.sources = [lambda f: a.at(np.where(f.first, f.i, f.i - 1)), read]
        return self._add(node, name, 1, self.block.latency_of(function), True)

    def weigh(
        self, name: str, weight: Channel, value: Channel | int, decay: Channel | None = None
    ) -> Channel:
        """The sum over a row of weight x value, of which the last goes on.

        With a ``decay`` the running sum is multiplied by its element before each addition.
        ``value`` is a channel, or the operand of a constant of one number.
        """
        width = value.width if isinstance(value, Channel) else 1
        node = self._node(name, Opcode.MATMUL, (1, width, 1))
        node.flags = Flag.ACCUMULATE | (Flag.RESCALE if decay else Flag.NONE)
        made = self._add(node, name, width, self.block.product_latency, False)
        me = len(self.nodes) - 1
        constant = value if isinstance(value, int) else -1
        values = self._read(value, by=me) if isinstance(value, Channel) else None
        node.sources = [
            self._read(weight, by=me),
            values or (lambda f: np.full(len(f.i), constant)),
        ]
        if decay:
            read = self._read(decay, by=me, skipped=True)
            node.sources.append(lambda f: np.where(f.first, -1, read(f)))
        return made

    # -- inside ----------------------------------------------------------------------------------

    def _node(
        self, name: str, opcode: Opcode, shape: tuple[int, int, int],
        function: Function = Function.NONE, *, imm: float = 0.0, nested: bool = True,
    ) -> Node:  # fmt: skip
        unit = next(self.pool, None)
        if unit is None:
            raise AccelsimError(
                f"{self.name} needs more than the {self.block.count} nodes there are; accepted: a"
                " larger count"
            )
        return Node(name, unit, opcode, shape, nested, function, imm)

    def _add(self, node: Node, name: str, width: int, latency: int, per_key: bool) -> Channel:
        made = Channel(name, len(self.nodes), per_key, width, latency)
        node.makes = made
        node.target = lambda f: made.at(f.i if per_key else f.row)
        self.nodes.append(node)
        self.channels.append(made)
        return made

    def _read(
        self, channel: Channel, *, by: int = -1, depth: int = 0, late: int = 0, lag: int = 0,
        long: bool = False, implied: bool = False, skipped: bool = False,
    ) -> Operands:  # fmt: skip
        """Add a FIFO to the node ``by`` (default: the next one); gives the slots that it reads."""
        consumer = by if by >= 0 else len(self.nodes)
        short = self.block.fifo_depth + channel.latency + late + lag
        depth = self.block.long_fifo_depth if long else depth or short
        self.taps.append(Tap(channel, consumer, depth, lag, long, implied, skipped))
        channel.depth = max(channel.depth, depth)
        return lambda f: channel.at(f.i if channel.per_key else f.row)

    # -- does it flow? ---------------------------------------------------------------------------

    def loop(self, node: Node) -> int:
        """Firings of a node per row."""
        return self.keys if node.nested else 1

    def push(self, channel: Channel) -> int:
        """Firings of the producer for one element."""
        return 1 if channel.per_key else self.loop(self.nodes[channel.producer])

    def pop(self, tap: Tap) -> int:
        """Firings of the consumer for one element."""
        return 1 if tap.channel.per_key else self.loop(self.nodes[tap.consumer])

    def order(self) -> np.ndarray:
        """The node of every firing, in an order in which they can happen.

        Raises StreamDeadlockError if there is none.
        """
        order, fired, total = self._run(self.rows)
        if (fired < total).any():
            raise StreamDeadlockError(self._stuck(fired, total))
        return order

    @property
    def firings(self) -> int:
        """Elements that all nodes take together."""
        return sum(self.rows * self.loop(node) for node in self.nodes)

    @property
    def slots(self) -> int:
        """Elements that all FIFOs hold together."""
        return sum(tap.depth for tap in self.taps)

    def fifo(self, tap: Tap) -> str:
        """Name of a FIFO: what flows in it and where to."""
        return f"{tap.channel.name} -> {self.nodes[tap.consumer].name}"

    def _run(self, rows: int) -> tuple[np.ndarray, Ints, Ints]:
        from accelsim.mapping.stream_kernels import run_network

        total = np.array([rows * self.loop(node) for node in self.nodes], dtype=np.int64)
        order = np.empty(int(total.sum()), dtype=np.int16)
        return order, run_network(total, self._table(), order), total

    def _table(self) -> Ints:
        """The taps as the kernels read them."""
        return np.array(
            [
                (t.channel.producer, t.consumer, self.push(t.channel), self.pop(t), t.lag, t.depth)
                for t in self.taps
            ],
            dtype=np.int64,
        )

    def _stuck(self, fired: Ints, total: Ints) -> str:
        """Which FIFO is full and which one its reader finds empty, and what depth would do."""
        from accelsim.mapping.stream_kernels import blocking_tap

        table = self._table()
        blocked = {
            n: self.taps[blocking_tap(n, fired, total, table)]
            for n in np.flatnonzero(fired < total).tolist()
        }
        # Everybody waits for somebody, so that from anywhere the way ends in the ring of those who
        # wait for each other. In it a node waits for a full FIFO whose reader finds another empty.
        at = next(iter(blocked))
        for _ in blocked:
            at = _awaited(at, blocked[at])
        full, empty = blocked[at], blocked[_awaited(at, blocked[at])]
        while full.channel.producer != at or empty.consumer != full.consumer:
            at = _awaited(at, full)
            full, empty = empty, blocked[_awaited(at, empty)]
        parameter = "long_fifo_depth" if full.long else "fifo_depth"
        return (
            f"deadlock: FIFO {self.fifo(full)!r} is full with {full.depth} elements while FIFO"
            f" {self.fifo(empty)!r} is empty; accepted: {self._enough(parameter)}"
        )

    def _enough(self, parameter: str) -> str:
        """The least depth of the long FIFOs that works, found by trying."""
        if parameter != "long_fifo_depth":
            return f"a larger {parameter}"
        taps, low, high = self.taps, self.block.long_fifo_depth, self.block.long_fifo_depth
        works = False
        while not works and high <= 4 * self.keys:
            low, high = high, 2 * high
            works = self._flows_with(taps, high)
        while works and high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._flows_with(taps, middle) else (middle, high)
        self.taps = taps
        return f"{parameter} of at least {high}" if works else "a larger fifo_depth"

    def _flows_with(self, taps: list[Tap], depth: int) -> bool:
        self.taps = [replace(t, depth=depth) if t.long else t for t in taps]
        _, fired, total = self._run(min(self.rows, PROBE_ROWS))
        return bool((fired == total).all())


def _awaited(node: int, tap: Tap) -> int:
    """Who has to go on for a node that a tap keeps from firing: at its other end."""
    return tap.consumer if tap.channel.producer == node else tap.channel.producer
