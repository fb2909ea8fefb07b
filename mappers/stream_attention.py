"""Attention on streaming nodes: an element per cycle from the scores to the weighted sums.

Scores never leave the FIFOs. What an implementation has to keep of a row decides how deep these
have to be (after DAM, Zhang et al., ISCA 2024, and its streaming-dataflow attention):

    stream-naive         e = exp(s); p = e / sum e; o = sum p v. The exponentials wait in a FIFO for
                         the sum of their row: as many slots as keys
    stream-naive-max     e = exp(s - max s): scores wait for their maximum, then as above; two
                         FIFOs as long as a row
    stream-reordered     o = (sum e v) / (sum e): nothing waits, the FIFOs are short
    stream-running-max   m' = max(m, s), r = exp(m - m'), e = exp(s - m'); l = l r + e,
                         o = o r + e v: the same with a maximum

Without a maximum exponentials overflow beyond scores of 88. All nodes compute in fp32. Queries go
one after the other, head after head, each with all keys of its head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.stream import Stream
from accelsim.mapping.attention.heads import cache_runs, group_of, head_groups, outputs, queries
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.registry import mapper
from accelsim.mapping.stream_rows import FP32, emit, place
from accelsim.mapping.streams import Channel, Network, Operands
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.program.table import OPERAND_COLUMN
from accelsim.workload.operators import Attention

F = Function
QUEUES = 4  # queries, keys, values, results


@dataclass(frozen=True)
class Streams:
    """The network of an attention, what comes from memory, and two constants (operands)."""

    net: Network
    q: Channel
    k: Channel
    v: Channel
    scale: float
    zero: int
    one: int


Flow = Callable[[Streams], Channel]


@mapper("stream-naive", lowers=("attention",), needs=(Stream, Dma))
def naive(op: Attention, low: Lowering) -> None:
    """Streaming attention; exponentials wait for the sum of their row in a long FIFO."""

    def flow(s: Streams) -> Channel:
        e = s.net.dot("exponentials", s.q, s.k, s.scale, then=F.EXP)
        total = s.net.reduce("sum", F.ADD, e, s.zero)
        return s.net.weigh("output", s.net.combine("quotients", F.DIV, e, total, long=True), s.v)

    _lower(op, low, flow)


@mapper("stream-naive-max", lowers=("attention",), needs=(Stream, Dma))
def naive_with_maximum(op: Attention, low: Lowering) -> None:
    """Streaming attention; scores wait for their maximum and exponentials for their sum."""

    def flow(s: Streams) -> Channel:
        score = s.net.dot("scores", s.q, s.k, s.scale)
        top = s.net.reduce("maximum", F.MAX, score)
        below = s.net.combine("differences", F.SUB, score, top, long=True)
        e = s.net.combine("exponentials", F.EXP, below)
        total = s.net.reduce("sum", F.ADD, e, s.zero)
        return s.net.weigh("output", s.net.combine("quotients", F.DIV, e, total, long=True), s.v)

    _lower(op, low, flow)


@mapper("stream-reordered", lowers=("attention",), needs=(Stream, Dma))
def reordered(op: Attention, low: Lowering) -> None:
    """Streaming attention; the division comes last, so that nothing waits for a whole row."""

    def flow(s: Streams) -> Channel:
        e = s.net.dot("exponentials", s.q, s.k, s.scale, then=F.EXP)
        total = s.net.reduce("sum", F.ADD, e, s.zero)
        return s.net.combine("output", F.DIV, s.net.weigh("weighted sum", e, s.v), total)

    _lower(op, low, flow)


@mapper("stream-running-max", lowers=("attention",), needs=(Stream, Dma), preference=1)
def running_maximum(op: Attention, low: Lowering) -> None:
    """Streaming attention; running sums are rescaled when the running maximum grows."""

    def flow(s: Streams) -> Channel:
        score = s.net.dot("scores", s.q, s.k, s.scale)
        top = s.net.scan("maximum", F.MAX, score)
        decay = s.net.steps("decay", F.EXP_SUB, top)
        e = s.net.combine("exponentials", F.EXP_SUB, score, top, follows=True)
        total = s.net.weigh("sum", e, s.one, decay)
        return s.net.combine("output", F.DIV, s.net.weigh("weighted sum", e, s.v, decay), total)

    _lower(op, low, flow)


def _lower(op: Attention, low: Lowering, flow: Flow) -> None:
    """Build the network around a flow and make its instructions."""
    core = low.cores[0]
    pool, block = _pool(op, low, core)
    queues = [slot for slot, _ in core.of(Dma)]
    rows = op.batch * op.heads * op.q_len
    net = Network(op.name, block, pool, rows, op.kv_len)
    groups = head_groups(op)
    height = rows // len(groups)

    def of_key(name: str) -> Operands:
        runs = [cache_runs(op, low, group_of(op, g), name, 0, op.kv_len) for g in groups]
        table = _windows(low, [run.view for (run,) in runs])
        return lambda f: table + f.row // height * op.kv_len + f.i % op.kv_len

    def of_row(views: list[View]) -> Operands:
        table = _windows(low, views)
        return lambda f: table + f.row

    q = net.load("q", queues[0], op.head_dim, of_row([queries(op, low, g) for g in groups]), False)
    k = net.load("k", queues[1], op.head_dim, of_key("k"), True)
    v = net.load("v", queues[2], op.head_dim, of_key("v"), True)
    constants = _constants(low, core, block, queues[3])
    result = flow(Streams(net, q, k, v, op.scale, *(low.build.operand(c) for c in constants)))
    net.store(queues[3], result, of_row([outputs(op, low, g) for g in groups]))
    low.build.reserve(net.firings, op.name)
    order = net.order()
    place(net, low, core)
    tensors = [low.tensors[name] for name in op.inputs]
    read = [*zip(tensors, queues[:3], strict=True)]
    read += [(c.storage, unit) for c in constants for unit in pool]
    emit(net, low, order, read, [(low.tensors[op.output], queues[3])])
    low.build.note(f"{rows * op.kv_len} elements through {net.slots} FIFO slots")


def _pool(op: Attention, low: Lowering, core: Core) -> tuple[list[int], Stream]:
    """Slots of the nodes and their block; refuses what these mappers do not do."""
    nodes, queues = core.of(Stream), core.of(Dma)
    if op.causal and op.q_len > 1:
        raise AccelsimError("streaming attention has no causal mask; accepted: causal=false")
    if op.kv_len == 1:
        raise AccelsimError("streaming attention of one key streams nothing; accepted: kv from 2")
    more = {"window": op.window, "alibi": op.alibi, "rope_dim": op.rope_dim, "page": op.page}
    more["contexts"] = len(op.contexts)
    if found := [name for name, value in {**more, "kv_dtype": op.kv_dtype}.items() if value]:
        raise AccelsimError(f"streaming attention knows no {found[0]}; accepted: without it")
    if len(queues) < QUEUES:
        raise AccelsimError(
            f"streaming attention needs {QUEUES} DMA queues (queries, keys, values, results), not"
            f" {len(queues)}"
        )
    wide = [n for n in op.inputs if low.format(n).significand_bits > FP32.significand_bits]
    if wide:
        raise AccelsimError(
            f"streaming nodes compute in fp32, which does not hold {low.format(wide[0]).name};"
            " accepted: operands of at most 32 bits"
        )
    if low.panel_width:
        raise AccelsimError("streaming attention reads rows; accepted: dma.activation_panel 0")
    if len(low.cores) > 1:
        low.build.approximate("streaming attention runs on core 0, the others are left idle")
    block = nodes[0][1]
    return [slot for slot, unit in nodes if unit is block], block


def _windows(low: Lowering, views: list[View]) -> int:
    """Operand descriptors of the single rows of windows; the index of the first."""
    tables = []
    for view in views:
        rows = np.tile(np.array(view[0:1, :].row(), dtype=np.int64), (view.rows, 1))
        rows[:, OPERAND_COLUMN["base"]] += np.arange(view.rows) * view.stride
        tables.append(rows)
    return low.build.windows(np.concatenate(tables))


def _constants(low: Lowering, core: Core, block: Stream, queue: int) -> tuple[View, View]:
    """A zero and a one, set up before anything flows."""
    views = []
    for value in (0.0, 1.0):
        view = core.buffer(block.memory[0], f"constant {value:g}", 1, 1, FP32)
        low.build.fill(queue, view, value)
        views.append(view)
    return views[0], views[1]
