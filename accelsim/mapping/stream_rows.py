"""Instructions of a streaming network: firings of nodes become rows of the program, all at once.

A row waits for the elements that it takes to have left their producers' pipelines, and for the slot
that it fills to have been read by every FIFO's reader, which the issue of that reader says. What an
earlier row of the same node waited for is not waited for again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.mapping.streams import Firings, Network, Node
from accelsim.numerics.formats import FORMATS, row_bytes
from accelsim.program.opcodes import Flag, Opcode
from accelsim.program.storage import Use
from accelsim.program.table import (
    COLUMN,
    DEPENDENCIES,
    OPERAND_COLUMN,
    OPERAND_WIDTH,
    WIDTH,
    Ints,
)

if TYPE_CHECKING:
    from accelsim.mapping.lowering import Core, Lowering
    from accelsim.program.storage import Storage

FP32 = FORMATS["fp32"]


class Wait(NamedTuple):
    """A dependency of some firings of a node: rows of the program (-1: none), issue only or not."""

    rows: Ints
    issued: bool
    by_row: bool  # once for a row of the outer loop


def emit(
    network: Network,
    low: Lowering,
    order: np.ndarray,
    read: list[tuple[Storage, int]],
    written: list[tuple[Storage, int]],
) -> None:
    """Append the network's instructions; ``read``, ``written``: tensors and the unit that does."""
    build = low.build
    units = [node.unit for node in network.nodes]
    for unit in dict.fromkeys(units):
        build.barrier(unit)
    rows, first_row = _number(network, order, len(build))
    build.reserve(int(first_row[-1]) - len(build), network.name)
    table = np.zeros((int(first_row[-1]) - len(build), WIDTH), dtype=np.int64)
    table[:, COLUMN["operator"]] = build.current_operator
    table[:, COLUMN["dep0"] :] = -1
    immediate = np.zeros(len(table))
    for index, node in enumerate(network.nodes):
        _fill(network, index, node, rows, len(build), table, immediate)
    last = {unit: int(at[-1]) for unit, at in zip(units, rows, strict=True)}
    uses = [Use(s, unit, last[unit], False) for s, unit in read if unit in last]
    uses += [Use(s, unit, last[unit], True) for s, unit in written]
    for tap in network.taps:
        storage = tap.channel.storage
        assert storage is not None
        for index, writes in ((tap.channel.producer, True), (tap.consumer, False)):
            uses.append(Use(storage, units[index], last[units[index]], writes))
    build.bulk(table, immediate, uses)


def place(network: Network, low: Lowering, core: Core) -> None:
    """Rings of slots for every channel, in the scratchpad of the nodes."""
    arena = core.arenas[network.block.memory[0]]
    for channel in network.channels:
        nbytes = row_bytes(channel.width, FP32)
        storage = arena.take(f"{channel.name} FIFO", channel.depth * nbytes)
        windows = np.empty((channel.depth, OPERAND_WIDTH), dtype=np.int64)
        windows[:] = storage.view(1, channel.width, FP32).row()
        windows[:, OPERAND_COLUMN["base"]] += np.arange(channel.depth) * nbytes
        channel.storage, channel.first = storage, low.build.windows(windows)


def _number(network: Network, order: np.ndarray, start: int) -> tuple[list[Ints], Ints]:
    """(rows of the program of every node's firings, where each firing's rows begin and the end)."""
    size = np.ones(len(order), dtype=np.int64)
    firings = [np.flatnonzero(order == n) for n in range(len(network.nodes))]
    for index, node in enumerate(network.nodes):
        size[firings[index]] += _heads(network, index, node)
    begin = np.concatenate([[start], start + np.cumsum(size)])
    return [begin[at + 1] - 1 for at in firings], begin


def _heads(network: Network, index: int, node: Node) -> Ints:
    """Rows ahead of every firing: the controller's turns, or a join for what exceeds the columns.

    A controller starts once, and then every iteration of the outer loop of a nest.
    """
    loop = network.loop(node)
    heads = np.zeros(network.rows * loop, dtype=np.int64)
    if node.on_pool and network.block.controller:
        heads[0] = 1
        if node.nested:
            heads[::loop] += 1
    elif _crowded(network, index):
        heads[::loop] = 1
    return heads


def _crowded(network: Network, index: int) -> bool:
    """Whether the first firing of a row has more to wait for than columns."""
    taken = [t for t in network.taps if t.consumer == index and not (t.implied or t.skipped)]
    made = [t for t in network.taps if t.channel.producer == index]
    return len(taken) + len(made) > DEPENDENCIES


def _fill(
    network: Network, index: int, node: Node, rows: list[Ints], start: int, table: Ints,
    immediate: np.ndarray,
) -> None:  # fmt: skip
    """Write the rows of one node."""
    loop, mine = network.loop(node), rows[index] - start
    number = np.arange(network.rows * loop)
    firings = Firings(number, number // loop, number % loop == 0)
    for name, value in (
        ("unit", node.unit), ("opcode", node.opcode), ("function", node.function),
        ("m", node.shape[0]), ("n", node.shape[1]), ("k", node.shape[2]),
    ):  # fmt: skip
        table[mine, COLUMN[name]] = value
    assert node.target is not None
    table[mine, COLUMN["flags"]] = node.always | np.where(firings.first, 0, int(node.flags))
    table[mine, COLUMN["dst"]] = node.target(firings)
    for c, source in enumerate(node.sources):
        table[mine, COLUMN["src0"] + c] = source(firings)
    immediate[mine] = node.imm
    heads = _heads(network, index, node)
    for back in range(1, int(heads.max()) + 1):
        at = mine[heads >= back] - back
        table[at, COLUMN["unit"]] = node.unit
        works = node.on_pool and network.block.controller
        table[at, COLUMN["opcode"]] = Opcode.LAUNCH if works else Opcode.JOIN
    waits = _waits(network, index, firings, rows)
    crowded = _crowded(network, index)
    ahead = [_at(w, firings.first) for w in waits if crowded and w.by_row]
    _depend(table, mine[firings.first] - 1, ahead)
    _depend(table, mine, [w for w in waits if not (crowded and w.by_row)])


def _waits(network: Network, index: int, firings: Firings, rows: list[Ints]) -> list[Wait]:
    """What the firings of a node wait for: elements that they take, slots that they fill."""
    found = []
    for tap in network.taps:
        channel = tap.channel
        push, pop = network.push(channel), network.pop(tap)
        if tap.consumer == index and not tap.implied:
            element = firings.i // pop
            taken = firings.i % pop == 0
            if tap.skipped:
                taken &= ~firings.first
            made = rows[channel.producer][(element + 1) * push - 1]
            found.append(Wait(np.where(taken, made, -1), False, pop > 1))
        elif channel.producer == index:
            reader = rows[tap.consumer]
            element = firings.i // push - tap.depth
            begins = (firings.i % push == 0) & (element >= 0)
            last = np.clip((element + 1) * pop - 1 + tap.lag, 0, len(reader) - 1)
            found.append(Wait(np.where(begins, reader[last], -1), True, False))
    return found


def _at(wait: Wait, which: np.ndarray) -> Wait:
    return wait._replace(rows=wait.rows[which])


def _depend(table: Ints, at: Ints, waits: list[Wait]) -> None:
    """Put dependencies into the first free columns."""
    used = np.zeros(len(at), dtype=np.int64)
    for wait in waits:
        there = wait.rows >= 0
        if (used[there] >= DEPENDENCIES).any():
            raise AccelsimError("a node has more to wait for than a row of the program can name")
        where = at[there]
        table[where, COLUMN["dep0"] + used[there]] = wait.rows[there]
        if wait.issued:
            table[where, COLUMN["flags"]] |= int(Flag.ISSUED0) << used[there]
        used += there
