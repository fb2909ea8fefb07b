"""Linear attention in chunks: states stay on chip, queries, keys and values stream past them once.

Within a chunk of C tokens results come from all pairs of its tokens, and what came before is in the
state S [d, e] as it was at the chunk's beginning. With the decays of mapping/attention/decays:

    X = Q K^T                        array
    P = X o exp(c_i - c_j)           vector unit, 0 for j > i; in the format of the operands
    O = exp(c_i) (Q S) + P V         array, vector unit, array
    S' = exp(c_C) S + (exp(c_C - c_j) K)^T V

S is kept in fp32 and rounded to the format of the operands where the arrays multiply with it. Plain
linear attention is the same with a mask of ones instead of decays, and nothing else to multiply.

Several heads run side by side, each on one array, instruction by instruction of the vector unit in
turn, so that its latency is hidden. The scores of the next chunk are multiplied before the results
of this one, and what follows the last products of a chunk is done after the weights of the next.

Where the vector unit does not reach the memory of the arrays' second operand, keys are loaded into
the memories of both, and the state goes from one to the other through main memory.

Source: Yang et al., Gated Linear Attention Transformers, 2023 (arXiv 2312.06635), section 4.1; Dao
and Gu, Transformers are SSMs, 2024 (arXiv 2405.21060), section 6; Sun et al., Retentive Network,
2023 (arXiv 2307.08621), section 2.2, "chunkwise recurrent".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.mapping.attention.chunk_tiling import (
    ChunkProblem,
    ChunkTiling,
    best_chunk_tiling,
)
from accelsim.mapping.attention.decays import Decay, Decays
from accelsim.mapping.attention.machine import array_resources, lacks_vector, vector_of
from accelsim.mapping.lowering import Core, Lowering, Ring
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import FP32
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import LinearAttention, StateUpdate

F = Function
EVERYTHING = slice(None)
INSTRUCTIONS = 24  # about as many as a chunk of a head takes

Member = tuple[int, int]
"""(sequence, head)."""


@mapper(
    "chunked-linear-attention",
    lowers=("linear_attention", "state_update"),
    needs=(Systolic, Vector, Dma),
    lacks=lacks_vector,
)
def chunked_linear_attention(op: LinearAttention | StateUpdate, low: Lowering) -> None:
    """Pairs within chunks, states between them, both on chip."""
    tiling = _tiling(op, low)
    low.build.note(str(tiling))
    members = [(s, h) for s in range(op.batch) for h in range(op.heads)]
    chunks = -(-op.q_len // tiling.chunk)
    low.build.reserve(len(members) * chunks * INSTRUCTIONS, f"{op.kind} in {chunks} chunks")
    groups = [members[i : i + tiling.ways] for i in range(0, len(members), tiling.ways)]
    kept = None
    states = chunks - 1 + op.state
    if isinstance(op, LinearAttention) and states and not _reaches_weights(low.cores[0]):
        rows, fmt = len(members) * states * op.head_dim, low.format(op.inputs[0])
        kept = low.scratch(f"{op.name}.states", rows, op.value_dim, fmt)
    cores = len(low.cores)
    for i, core in enumerate(low.cores):
        mine = groups[len(groups) * i // cores : len(groups) * (i + 1) // cores]
        if mine:
            _Stream(low, core, op, tiling, kept).emit(mine)


def _reaches_weights(core: Core) -> bool:
    return core.arrays[0][1].weights in vector_of(core)[1].memory


def _tiling(op: LinearAttention | StateUpdate, low: Lowering) -> ChunkTiling:
    problem = ChunkProblem(
        members=op.batch * op.heads,
        q_len=op.q_len,
        d=op.head_dim,
        e=op.value_dim,
        bits=low.format(op.inputs[0]).bits,
        decay=op.decay,
        chunk=op.chunk,
        outputs=isinstance(op, LinearAttention),
    )
    return best_chunk_tiling(problem, array_resources(low))


@dataclass
class _Way:
    """One head at work on one array: its state, if there is one yet, as it is summed and as the
    arrays read it."""

    member: Member
    array: int
    state: View | None = None
    read: View | None = None
    result: View = field(init=False)
    decay: Decay = field(init=False)


@dataclass
class _Chunk:
    """A chunk of every way of a group: its tokens, operands of each way, scores, weights."""

    group: int
    index: int
    tokens: slice
    is_last: bool
    ways: list[_Way] = field(default_factory=list)
    q: list[View] = field(default_factory=list)
    k: list[View] = field(default_factory=list)  # columns of the scores
    rows: list[View] = field(default_factory=list)  # the same keys, as rows of the sums
    v: list[View] = field(default_factory=list)
    scores: list[View] = field(default_factory=list)
    weights: list[View] = field(default_factory=list)


class _Stream:
    """The groups of one core."""

    def __init__(
        self,
        low: Lowering,
        core: Core,
        op: LinearAttention | StateUpdate,
        tiling: ChunkTiling,
        kept: View | None,
    ) -> None:
        core.reset()
        self.low, self.core, self.op, self.kept = low, core, op, kept
        self.build, self.chunk = low.build, tiling.chunk
        self.outputs = isinstance(op, LinearAttention)
        array = core.arrays[0][1]
        self.vector, _ = vector_of(core)
        self.shared = array.inputs == array.weights
        fmt, c, w = low.format(op.inputs[0]), tiling.chunk, tiling.ways
        rolling, d, e = tiling.depth * w, op.head_dim, op.value_dim
        few = 2 * w if tiling.double else w

        def ring(memory: str, name: str, rows: int, cols: int, slots: int) -> Ring:
            wide = memory == array.outputs and name in ("x", "o", "s")
            return core.ring(memory, name, rows, cols, FP32 if wide else fmt, slots)

        self.v = ring(array.weights, "v", c, e, rolling)
        self.rows = ring(array.inputs, "k", c, d, rolling)
        self.state = ring(array.outputs, "s", d, e, few)
        if op.decayed:
            self.left = ring(array.inputs, "left", c, d, 2 * w)
        if self.outputs:
            self.q = ring(array.inputs, "q", c, d, rolling)
            self.k = self.rows if self.shared else ring(array.weights, "k", c, d, rolling)
            self.weight = ring(array.inputs, "p", c, c, 2 * w)
            self.read = ring(array.weights, "s16", d, e, 2 * w)
            self.score = ring(array.outputs, "x", c, c, 2 * w)
            self.result = ring(array.outputs, "o", c, e, few)
        self.decays = Decays(low, core, op, c, w, array.inputs, self.vector)

    def emit(self, groups: list[list[Member]]) -> None:
        """Emit all groups, chunk after chunk."""
        chunks = self._chunks(groups)
        done: _Chunk | None = None
        self._scores(chunks[0])
        for i, chunk in enumerate(chunks):
            if i + 1 < len(chunks):
                self._scores(chunks[i + 1])
            self._weights(chunk)
            if done is not None:
                self._finish(done)
            if chunk.index == 0:
                self._begin(chunk)
            self._products(chunk)
            done = chunk
        self._finish(chunks[-1])

    def _chunks(self, groups: list[list[Member]]) -> list[_Chunk]:
        """Chunks of all groups in order; those of a group share its ways."""
        found, n = [], self.op.q_len
        arrays = self.core.arrays
        for g, group in enumerate(groups):
            ways = [_Way(one, arrays[i % len(arrays)][0]) for i, one in enumerate(group)]
            for i, start in enumerate(range(0, n, self.chunk)):
                stop = min(start + self.chunk, n)
                found.append(_Chunk(g, i, slice(start, stop), stop == n, ways))
        return found

    # -- operands ------------------------------------------------------------------------------

    def _scores(self, chunk: _Chunk) -> None:
        """Load a chunk and multiply its queries and keys."""
        queues, views = self.core.load_queues, []
        if self.outputs:
            chunk.q = [self._load(queues[0], self.q, chunk, way, "q") for way in chunk.ways]
            chunk.k = [self._load(queues[0], self.k, chunk, way, "k") for way in chunk.ways]
            views = chunk.k
        if not views or (not self.shared and self._feeds_state(chunk)):
            views = [self._load(queues[-1], self.rows, chunk, way, "k") for way in chunk.ways]
        chunk.rows = list(views)
        chunk.v = [self._load(queues[-1], self.v, chunk, way, "v") for way in chunk.ways]
        height = chunk.tokens.stop - chunk.tokens.start
        for way, q, k in zip(chunk.ways, chunk.q, chunk.k, strict=self.outputs):
            score = self.score.next()[:height, :height]
            self.build.matmul(way.array, score, q, k, accumulate=False, transpose_b=True)
            chunk.scores.append(score)

    def _feeds_state(self, chunk: _Chunk) -> bool:
        """Whether the state after a chunk is needed."""
        return not (self.outputs and chunk.is_last)

    def _load(self, queue: int, ring: Ring, chunk: _Chunk, way: _Way, name: str) -> View:
        view = ring.next()[: chunk.tokens.stop - chunk.tokens.start, EVERYTHING]
        self.build.load(queue, view, self._window(name, way.member, chunk.tokens))
        return view

    def _window(self, name: str, member: Member, tokens: slice) -> View:
        """Some tokens of a head in a [batch*q_len, heads*size] tensor."""
        op = self.op
        tensor = op.output if name == "out" else op.operand(name) or ""
        size = op.head_dim if name in ("q", "k") else op.value_dim
        (_, head), first = member, member[0] * op.q_len
        rows = slice(first + tokens.start, first + tokens.stop)
        return self.low.matrix(tensor)[rows, head * size : (head + 1) * size]

    def _states(self, tensor: str, member: Member) -> View:
        """The state of a head in a tensor of them."""
        op = self.op
        row = (member[0] * op.heads + member[1]) * op.head_dim
        return self.low.matrix(tensor, cols=op.value_dim)[row : row + op.head_dim, EVERYTHING]

    def _begin(self, chunk: _Chunk) -> None:
        """States that sequences begin with."""
        first = self.op.operand("state")
        if first is None:
            return
        for way in chunk.ways:
            way.state = self.state.next()
            self.build.load(self.core.load_queues[-1], way.state, self._states(first, way.member))
        if self.outputs:
            self._keep(chunk, 0)

    # -- one chunk -----------------------------------------------------------------------------

    def _weights(self, chunk: _Chunk) -> None:
        """Decays, and scores and keys times them: function by function over all ways."""
        do, height = self.build.vector, chunk.tokens.stop - chunk.tokens.start
        self._decay(chunk)
        for way, score in zip(chunk.ways, chunk.scores, strict=self.outputs):
            weight = self.weight.next()[:height, :height]
            factor = way.decay.pairs if self.op.decayed else self.decays.mask[:height, :height]
            do(self.vector, F.MUL, weight, score, factor)
            chunk.weights.append(weight)
        if self.op.decayed and self._feeds_state(chunk):
            for i, way in enumerate(chunk.ways):
                left = self.left.next()[:height, EVERYTHING]
                do(self.vector, F.MUL, left, chunk.rows[i], way.decay.left)
                chunk.rows[i] = left

    def _decay(self, chunk: _Chunk) -> None:
        op, height = self.op, chunk.tokens.stop - chunk.tokens.start
        members = [way.member for way in chunk.ways]
        if op.decay == "gated":
            found: Sequence[Decay] = self.decays.gated(members, chunk.tokens)
        elif op.decay == "none":
            return
        elif chunk.index == 0 or (not self.outputs and height < self.chunk):
            found = self.decays.fixed([head for _, head in members], height)
        else:
            found = [way.decay.cut(height) for way in chunk.ways]
        for way, decay in zip(chunk.ways, found, strict=True):
            way.decay = decay

    def _products(self, chunk: _Chunk) -> None:
        """Results from the state and from the weights, and the next state."""
        do, matmul, v = self.build.vector, self.build.matmul, self.vector
        feeds = self._feeds_state(chunk)
        fading = [way for way in chunk.ways if way.state is not None and self.op.decayed]
        if self.outputs:
            for way, q in zip(chunk.ways, chunk.q, strict=True):
                way.result = self.result.next()[: q.rows, EVERYTHING]
                if way.read is not None:
                    matmul(way.array, way.result, q, way.read, accumulate=False)
        for way in fading if feeds else ():
            if way.state is not None:
                do(v, F.MUL, way.state, way.state, way.decay.whole)
        for way in fading if self.outputs else ():
            do(v, F.MUL, way.result, way.result, way.decay.before)
        for way, k, values in zip(chunk.ways, chunk.rows, chunk.v, strict=True):
            if feeds:
                begun = way.state is not None
                way.state = way.state or self.state.next()
                matmul(way.array, way.state, k, values, accumulate=begun, transpose_a=True)
        for way, weight, values in zip(chunk.ways, chunk.weights, chunk.v, strict=self.outputs):
            known = way.read is not None
            matmul(way.array, way.result, weight, values, accumulate=known)

    def _finish(self, chunk: _Chunk) -> None:
        """Hand the state to the next chunk, store results."""
        store = self.core.store_queue
        if not self.outputs:
            for way in chunk.ways if chunk.is_last else ():
                if way.state is not None:
                    target = self._states(self.op.output, way.member)
                    self.build.store(store, target, way.state)
            return
        if self._feeds_state(chunk):
            self._keep(chunk, chunk.index + 1)
        for way in chunk.ways:
            if isinstance(self.op, LinearAttention) and self.op.scale != 1.0:
                scale = self.op.scale
                self.build.vector(self.vector, F.MUL_IMM, way.result, way.result, imm=scale)
        for way in chunk.ways:
            target = self._window("out", way.member, chunk.tokens)
            self.build.store(store, target, way.result)

    def _keep(self, chunk: _Chunk, index: int) -> None:
        """Put the states before a chunk where the arrays read them, in the format of operands."""
        for way in chunk.ways:
            if way.state is None:
                continue
            way.read = self.read.next()
            if self.kept is None:
                self.build.vector(self.vector, F.COPY, way.read, way.state)
                continue
            op, (sequence, head) = self.op, way.member
            states = -(-op.q_len // self.chunk) - 1 + op.state
            place = (sequence * op.heads + head) * states + index - (not op.state)
            row = place * op.head_dim
            target = self.kept[row : row + op.head_dim, EVERYTHING]
            self.build.store(self.core.store_queue, target, way.state)
            self.build.load(self.core.load_queues[-1], way.read, target)
