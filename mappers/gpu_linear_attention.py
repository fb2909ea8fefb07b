"""Linear attention in chunks on a GPU: batched products and kernels of threads between them.

    sums      c, the sums of the log decays of every chunk      threads
    keys      exp(c_C - c_j) K                                  threads
    states    (exp(c_C - c_j) K)^T V of every chunk             products
    passing   S' = exp(c_C) S + that, chunk after chunk         threads
    scores    X = Q K^T of every chunk                          products
    weights   P = X o exp(c_i - c_j), 0 for j > i               threads
    inner     P V                                               products
    before    Q S                                               products
    results   scale (exp(c_i) (Q S) + P V)                      threads

Sums, scores, states and results are kept in fp32, keys, weights and what the tensor cores read of
the states in the format of the operands. Kernels that have nothing to do are left out: those of
decays without decays, those of the state with one chunk and no first state.

What goes through main memory per token is 12 C bytes of scores and weights and 12 d e / C of
states, with operands of two bytes: least with chunks of C = sqrt(d e) tokens.

Source: Dao and Gu, Transformers are SSMs, 2024 (arXiv 2405.21060), section 6, and the kernels of
its implementation (mamba_ssm/ops/triton/ssd_combined.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from accelsim.hw.simt import LoadStore, Simt
from accelsim.hw.tensor_core import TensorCore
from accelsim.mapping.attention.decays import as_column, as_row, fill_gates, prefix_sums
from accelsim.mapping.attention.gathered import copy_windows
from accelsim.mapping.lowering import Lowering, Ring
from accelsim.mapping.operands import Stored
from accelsim.mapping.products import Product
from accelsim.mapping.registry import mapper
from accelsim.mapping.simt_rows import FP32, Step, Threads, cut, shares, tile_height
from accelsim.mapping.thread_blocks import lower_grids
from accelsim.numerics.formats import Format, row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import LinearAttention, StateUpdate

F = Function
EVERYTHING = slice(None)
GRANULE = 64
"""Chunks are multiples of the smallest tile of a CTA."""
SIDE_BY_SIDE = 32
"""Heads whose gates a kernel takes at once: a line of 128 bytes."""


@mapper(
    "gpu-linear-attention",
    lowers=("linear_attention", "state_update"),
    needs=(TensorCore, Simt, LoadStore),
    preference=1,
)
def gpu_linear_attention(op: LinearAttention | StateUpdate, low: Lowering) -> None:
    """Pairs within chunks and states between them, kernel by kernel."""
    work = _Kernels(op, low)
    low.build.note(f"chunks of {work.chunk} tokens, states through main memory")
    if op.decayed:
        work.sum_gates()
    if work.updates:
        work.pass_states(work.add_products(work.fade_keys() if op.decayed else work.window("k")))
    if isinstance(op, LinearAttention):
        work.results(op.scale)


@dataclass(frozen=True)
class _Chunk:
    """A chunk of tokens of one head of one sequence, which is number ``member`` of all heads."""

    member: int
    index: int
    tokens: slice

    @property
    def size(self) -> int:
        """How many tokens."""
        return int(self.tokens.stop - self.tokens.start)


Places = Callable[[_Chunk], View]
"""Where what belongs to a chunk lies in main memory."""


Work = Callable[[_Chunk, slice], Step]
"""What a multiprocessor does with some rows of a chunk, counted from its first."""


class _Kernels:
    """The kernels of one operator and what they hand on through main memory."""

    def __init__(self, op: LinearAttention | StateUpdate, low: Lowering) -> None:
        self.op, self.low = op, low
        even = round(math.sqrt(op.head_dim * op.value_dim) / GRANULE) * GRANULE
        self.chunk = min(op.chunk or max(GRANULE, even), op.q_len)
        self.members = op.batch * op.heads
        self.chunks = [
            _Chunk(m, i, tokens)
            for m in range(self.members)
            for i, tokens in enumerate(cut(slice(0, op.q_len), self.chunk))
        ]
        self.last = -(-op.q_len // self.chunk) - 1
        """Number of the last chunk of a sequence."""

    @cached_property
    def fmt(self) -> Format:
        """Format of the operands."""
        return self.low.format(self.op.inputs[0])

    @property
    def updates(self) -> list[_Chunk]:
        """Chunks after which a state is needed."""
        final = self.op.kind == "state_update"
        return [one for one in self.chunks if final or one.index < self.last]

    def window(self, name: str) -> Places:
        """Where the tokens of a chunk lie in a [batch*q_len, heads*size] tensor."""
        op = self.op
        whole = self.low.matrix(op.output if name == "out" else op.operand(name) or "")
        size = whole.cols // op.heads

        def find(one: _Chunk) -> View:
            sequence, head = divmod(one.member, op.heads)
            first = sequence * op.q_len
            rows = slice(first + one.tokens.start, first + one.tokens.stop)
            return whole[rows, head * size : (head + 1) * size]

        return find

    def scratch(
        self, name: str, chunks: Sequence[_Chunk], cols: int, fmt: Format = FP32, height: int = 0
    ) -> Places:
        """``height`` rows (0: one per token) of ``cols`` numbers for each of some chunks."""
        sizes = [height or one.size for one in chunks]
        keys = [(one.member, one.index) for one in chunks]
        first = dict(zip(keys, accumulate(sizes, initial=0), strict=False))
        whole = self.low.scratch(f"{self.op.name}.{name}", sum(sizes), cols, fmt)

        def find(one: _Chunk) -> View:
            row = first[one.member, one.index]
            return whole[row : row + (height or one.size), EVERYTHING]

        return find

    def squares(self, name: str, fmt: Format) -> Places:
        """A matrix of numbers for all pairs of tokens of every chunk."""
        found = {}
        for size in {one.size for one in self.chunks}:
            same = [one for one in self.chunks if one.size == size]
            found[size] = self.scratch(f"{name}{size}", same, size, fmt)
        return lambda one: found[one.size](one)

    def run(
        self,
        chunks: Sequence[_Chunk],
        width: int,
        start: Callable[[Threads, int], Work],
        row: int,
    ) -> None:
        """A kernel over the rows of some chunks."""
        low = self.low
        low.launch()
        for core, window in shares(low, len(chunks)):
            t = Threads(low, core)
            height = tile_height(self.chunk, width, row, t.free)
            work = start(t, height)
            t.run(
                [
                    work(one, rows)
                    for one in chunks[window]
                    for rows in cut(slice(0, one.size), height)
                ]
            )

    # -- decays --------------------------------------------------------------------------------

    def sum_gates(self) -> None:
        """c of every token, in rounds (see mapping/attention/decays)."""
        op, low = self.op, self.low
        places = [
            (sequence, heads, tokens)
            for sequence in range(op.batch)
            for heads in cut(slice(0, op.heads), SIDE_BY_SIDE)
            for tokens in cut(slice(0, op.q_len), self.chunk)
        ]
        low.launch()
        for core, window in shares(low, len(places)):
            t, wide = Threads(low, core), min(SIDE_BY_SIDE, op.heads)
            rings = [t.ring(name, self.chunk, wide, FP32) for name in ("g", "c")]
            t.run([self._sum_step(t, rings, *place) for place in places[window]])

    @cached_property
    def sums(self) -> Places:
        """c of every token of every head."""
        return self.scratch("sums", self.chunks, 1)

    def _sum_step(
        self, t: Threads, rings: Sequence[Ring], sequence: int, heads: slice, tokens: slice
    ) -> Step:
        op, (gates, sums) = self.op, rings
        height, width = tokens.stop - tokens.start, heads.stop - heads.start

        def work(tiles: list[View]) -> None:
            if not tiles:
                tiles = [gates.next()[:height, :width]]
                names = range(heads.start, heads.stop)
                fill_gates(t.build, t.core.load_queues[0], tiles[0], op, names)
            tile = prefix_sums(t.build, t.slot, sums, tiles[0])
            for i, head in enumerate(range(heads.start, heads.stop)):
                one = _Chunk(sequence * op.heads + head, tokens.start // self.chunk, tokens)
                t.store(self.sums(one), tile[:, i : i + 1], scalar=True)

        if op.decay == "fixed":
            return Step([], work)
        first = sequence * op.q_len + tokens.start
        source = self.low.matrix(op.operand("log_decay") or "")[first : first + height, heads]
        return Step([(gates, source, True)], work)

    def fade_keys(self) -> Places:
        """exp(c_C - c_j) K of the chunks that a state takes in."""
        d, fmt, source = self.op.head_dim, self.fmt, self.window("k")
        faded = self.scratch("keys", self.updates, d, fmt)

        def start(t: Threads, height: int) -> Work:
            keys, out = t.ring("k", height, d, fmt), t.ring("y", height, d, fmt)
            sums, end = t.ring("c", 1, self.chunk, FP32), t.ring("end", 1, 1, FP32)
            left = t.ring("left", 1, self.chunk, FP32)

            def step(one: _Chunk, rows: slice) -> Step:
                def work(tiles: list[View]) -> None:
                    k, c, total = tiles
                    w, y = left.next()[:, : c.cols], out.next()[: k.rows, EVERYTHING]
                    t.do(F.SUB, w, c, total)
                    t.do(F.MUL_IMM, w, w, imm=-1.0)
                    t.do(F.EXP, w, w)
                    t.do(F.MUL, y, k, as_column(w)[rows, EVERYTHING])
                    t.store(faded(one)[rows, EVERYTHING], y)

                loads = [(keys, source(one)[rows, EVERYTHING], False)]
                loads.append((sums, as_row(self.sums(one)), False))
                loads.append((end, self.total(one), False))
                return Step(loads, work)

            return step

        self.run(self.updates, d, start, 4 * row_bytes(d, fmt))
        return faded

    def total(self, one: _Chunk) -> View:
        """The sum over a chunk."""
        return self.sums(one)[one.size - 1 :, EVERYTHING]

    # -- states --------------------------------------------------------------------------------

    def add_products(self, keys: Places) -> Places:
        """What every chunk adds to the state."""
        op, values = self.op, self.window("v")
        added = self.scratch("added", self.updates, op.value_dim, height=op.head_dim)

        def product(one: _Chunk) -> Product:
            return Product(Stored(keys(one)), values(one), added(one), transpose_a=True)

        lower_grids(self.low, [product(one) for one in self.updates])
        return added

    def pass_states(self, added: Places) -> None:
        """States from chunk to chunk, some rows of them on every multiprocessor: those before
        chunks for the products, or the last ones for their own sake."""
        low, d = self.low, self.op.head_dim
        even = max(8, -(-self.members * d // len(low.cores)))
        pieces = [(m, rows) for m in range(self.members) for rows in cut(slice(0, d), even)]
        chunks: dict[int, list[_Chunk]] = {m: [] for m in range(self.members)}
        for one in self.updates:
            chunks[one.member].append(one)
        low.launch()
        for core, window in shares(low, len(pieces)):
            walk = _Passing(self, Threads(low, core), min(even, d), added)
            steps = [
                step
                for member, rows in pieces[window]
                for some in cut(rows, walk.height)
                for step in walk.steps(chunks[member], some)
            ]
            walk.t.run(steps)

    def first(self, member: int) -> View:
        """The state that a head begins with."""
        d = self.op.head_dim
        whole = self.low.matrix(self.op.operand("state") or "", cols=self.op.value_dim)
        return whole[member * d : (member + 1) * d, EVERYTHING]

    @cached_property
    def _states(self) -> View:
        """States before all chunks that have one, as the tensor cores read them."""
        op = self.op
        rows = self.members * (self.last + op.state) * op.head_dim
        return self.low.scratch(f"{op.name}.states", rows, op.value_dim, self.fmt)

    def before(self, member: int, index: int) -> View | None:
        """The state before a chunk, as the tensor cores read it; None if there is none."""
        op, d = self.op, self.op.head_dim
        if not index and not op.state:
            return None
        row = (member * (self.last + op.state) + index - (not op.state)) * d
        return self._states[row : row + d, EVERYTHING]

    def after(self, one: _Chunk) -> View | None:
        """Where the state after a chunk goes; None if nobody asks for it."""
        op, d = self.op, self.op.head_dim
        if op.kind == "linear_attention":
            return self.before(one.member, one.index + 1)
        if one.index < self.last:
            return None
        whole = self.low.matrix(op.output, cols=op.value_dim)
        return whole[one.member * d : (one.member + 1) * d, EVERYTHING]

    # -- results -------------------------------------------------------------------------------

    def results(self, scale: float) -> None:
        """What chunks give within themselves and what came before them."""
        op, low = self.op, self.low
        q, k, v = (self.window(name) for name in ("q", "k", "v"))
        scores, weights = self.squares("scores", FP32), self.squares("weights", self.fmt)
        inner = self.scratch("inner", self.chunks, op.value_dim)

        def pairs(one: _Chunk) -> Product:
            return Product(Stored(q(one)), k(one), scores(one), transpose_b=True)

        def within(one: _Chunk) -> Product:
            return Product(Stored(weights(one)), v(one), inner(one))

        lower_grids(low, [pairs(one) for one in self.chunks])
        self._weights(scores, weights)
        lower_grids(low, [within(one) for one in self.chunks])
        firsts = [(self.before(m, 0), m) for m in range(self.members)]
        if op.state:
            copy_windows(low, [(to, self.first(m)) for to, m in firsts if to is not None])
        later = [one for one in self.chunks if self.before(one.member, one.index) is not None]
        outer = self.scratch("outer", later, op.value_dim) if later else None
        products = [
            Product(Stored(q(one)), state, outer(one))
            for one in later
            if outer is not None and (state := self.before(one.member, one.index)) is not None
        ]
        if products:
            lower_grids(low, products)
        self._join(inner, outer, scale)

    def _weights(self, scores: Places, weights: Places) -> None:
        """Scores times decays, 0 for keys after their query."""
        decayed, wide = self.op.decayed, self.chunk

        def start(t: Threads, height: int) -> Work:
            x, y = t.ring("x", height, wide, FP32), t.ring("y", height, wide, self.fmt)
            factor, level = (t.ring(name, height, wide, FP32, 1) for name in ("e", "level"))
            column, row = t.ring("c", height, 1, FP32), t.ring("r", 1, wide, FP32)
            flat = level.next()
            t.build.fill(t.core.load_queues[0], flat, 0.0 if decayed else 1.0)

            def step(one: _Chunk, rows: slice) -> Step:
                width, first = one.size, rows.start

                def work(tiles: list[View]) -> None:
                    score, *sums = tiles
                    e = factor.next()[: score.rows, :width]
                    t.do(F.CAUSAL_MASK, e, flat[: score.rows, :width], imm=first)
                    if sums:
                        t.do(F.SUB, e, e, sums[1])
                        t.do(F.ADD, e, e, sums[0])
                    t.do(F.EXP if sums else F.RELU, e, e)
                    out = t.do(F.MUL, y.next()[: score.rows, :width], score, e)
                    t.store(weights(one)[rows, EVERYTHING], out)

                loads = [(x, scores(one)[rows, EVERYTHING], False)]
                if decayed:
                    loads.append((column, self.sums(one)[rows, EVERYTHING], True))
                    loads.append((row, as_row(self.sums(one)), False))
                return Step(loads, work)

            return step

        bits = 4 * FP32.bits + 2 * self.fmt.bits
        self.run(self.chunks, wide, start, wide * bits // 8)

    def _join(self, inner: Places, outer: Places | None, scale: float) -> None:
        """scale (exp(c_i) (Q S) + P V)."""
        e, decayed, target = self.op.value_dim, self.op.decayed, self.window("out")

        def start(t: Threads, height: int) -> Work:
            within, before = (t.ring(name, height, e, FP32) for name in ("y", "z"))
            sums, out = t.ring("c", height, 1, FP32), t.ring("o", height, e, self.fmt)
            decay = t.ring("a", height, 1, FP32)

            def step(one: _Chunk, rows: slice) -> Step:
                def work(tiles: list[View]) -> None:
                    y, *rest = tiles
                    if len(rest) > 1:
                        a = t.do(F.EXP, decay.next()[: y.rows, EVERYTHING], rest[1])
                        t.do(F.MUL, rest[0], rest[0], a)
                    if rest:
                        t.do(F.ADD, y, y, rest[0])
                    result = t.do(F.MUL_IMM, out.next()[: y.rows, EVERYTHING], y, imm=scale)
                    t.store(target(one)[rows, EVERYTHING], result)

                loads = [(within, inner(one)[rows, EVERYTHING], False)]
                if outer is not None and self.before(one.member, one.index) is not None:
                    loads.append((before, outer(one)[rows, EVERYTHING], False))
                    if decayed:
                        loads.append((sums, self.sums(one)[rows, EVERYTHING], True))
                return Step(loads, work)

            return step

        self.run(self.chunks, e, start, 4 * row_bytes(e, FP32) + 2 * row_bytes(e, self.fmt) + 16)


class _Passing:
    """States of some rows on their way through the chunks of their head, on one multiprocessor."""

    def __init__(self, kernels: _Kernels, t: Threads, rows: int, added: Places) -> None:
        self.op, self.kernels, self.t, self.added = kernels.op, kernels, t, added
        e = self.op.value_dim
        self.height = min(rows, tile_height(rows, e, 5 * row_bytes(e, FP32), t.free))
        self.read = t.ring("x", self.height, e, FP32)
        self.begin = t.ring("first", self.height, e, FP32, 1)
        self.state = t.ring("s", self.height, e, FP32)
        self.total, self.decay = t.ring("c", 1, 1, FP32), t.ring("a", 1, 1, FP32)

    def steps(self, chunks: Sequence[_Chunk], rows: slice) -> list[Step]:
        """S' = exp(c_C) S + what the chunk adds, chunk after chunk of a head."""
        held: list[View] = []
        return [self._step(one, rows, held) for one in chunks]

    def _step(self, one: _Chunk, rows: slice, held: list[View]) -> Step:
        """``held`` is the state, none before the first chunk."""
        op, t, begins = self.op, self.t, one.index == 0

        def work(tiles: list[View]) -> None:
            new, *rest = tiles
            if begins:
                held.append(self.state.next()[: new.rows, EVERYTHING])
            (state,) = held
            if begins and not op.state:
                t.do(F.COPY, state, new)
            else:
                earlier = rest.pop() if begins else state
                if rest:
                    factor = t.do(F.EXP, self.decay.next(), rest[0])
                    earlier = t.do(F.MUL, state, earlier, factor)
                t.do(F.ADD, state, earlier, new)
            if (target := self.kernels.after(one)) is not None:
                t.store(target[rows, EVERYTHING], state)

        loads = [(self.read, self.added(one)[rows, EVERYTHING], False)]
        if op.decayed and (op.state or not begins):
            loads.append((self.total, self.kernels.total(one), True))
        if begins and op.state:
            loads.append((self.begin, self.kernels.first(one.member)[rows, EVERYTHING], False))
        return Step(loads, work)
