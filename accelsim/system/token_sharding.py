"""A transformer on banks that compute in their cells (TransPIM), by tokens or layer by layer.

token   tokens are dealt to the banks and stay there, with their queries, keys, values and what is
        between the products, through all layers. Weights are written to all banks, product by
        product, large ones in parts. Keys and values go around the ring, so that every bank meets
        all of them. Where there are more banks than tokens, the banks of a token share its outputs
        and its keys.
layer   outputs are dealt to the banks, whose weights stay; where there are more banks than
        outputs, they share the tokens. The results of one operator are the inputs of the next one,
        somewhere else: every bank gets all inputs that it needs, rows of a norm or a softmax are
        brought together. As in earlier memories that compute, that goes over the channels' buses;
        ``layer_ring`` lets it go around the ring.

Where a text grows token by token (decode), keys and values stay where they are, and weights too, if
the banks of a token hold them all.

Operands have 8 bits. Functions are sequences of products and sums in the cells (FUNCTIONS). Nothing
overlaps, and a causal mask saves nothing: commands go to all banks at once.

Source: Zhou et al., TransPIM, HPCA 2022, as far as notes of others on its text tell: sharding, ring
broadcast, ACU, stacks and host link. Assumed here: how banks share a token, what a layer-based
dataflow moves, terms of functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.block import require
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.family import Family
from accelsim.system.cell_work import CellTime, CellWork, Piece
from accelsim.workload import operators as ops
from accelsim.workload.graph import Graph

DATAFLOWS = ("token", "layer")

FUNCTIONS = {"exp": (3, 3), "activation": (2, 2), "norm": (2, 2), "scale": (1, 0), "add": (0, 1)}
"""(products, sums) in the cells of each: exponentials as polynomials of degree 3, activations of
degree 2, a norm centres, squares, scales and shifts."""
SCORE_BYTES, SUM_BYTES = 1, 4

MAPPED = (ops.Residual, ops.Elementwise)


@dataclass(frozen=True)
class TokenSharding:
    """``stacks`` of a ``family`` ("transpim" or a family itself), and a host behind a link.

    ``dataflow`` is token or layer. ``ring``: links between banks, which the layer dataflow uses
    with ``layer_ring``. ``acu``: adder trees and dividers beside them.
    """

    family: str | Family = "transpim"
    dataflow: str = "token"
    ring: bool = True
    acu: bool = True
    stacks: int = 8
    host_bytes_per_second: float = 256e9
    layer_ring: bool = False

    def __post_init__(self) -> None:
        require(
            self.dataflow in DATAFLOWS,
            f"dataflow {self.dataflow!r}; accepted: {', '.join(DATAFLOWS)}",
        )
        require(self.stacks >= 1, f"stacks = {self.stacks}; accepted: 1 and more")
        require(self.host_bytes_per_second > 0, "host_bytes_per_second must be positive")

    @cached_property
    def pim(self) -> Family:
        """The family, with as many stacks as asked for."""
        found = find_family(self.family) if isinstance(self.family, str) else self.family
        per_stack = found.channels // max(1, found.numbers.get("stacks", 1))
        return replace(found, channels=per_stack * self.stacks)

    @cached_property
    def work(self) -> CellWork:
        ring = self.ring if self.dataflow == "token" else self.layer_ring
        return CellWork(self.pim, ring=ring, acu=self.acu)

    def run(self, graph: Graph) -> CellTime:
        """What a pass of a graph takes.

        Raises:
            AccelsimError: operators that are not computed here, or more than the banks hold.
        """
        return Walk(self, graph).total

    def utilisation(self, graph: Graph) -> float:
        """Share of the time that the products would take with a number in every lane."""
        planes = self.work.planes
        lanes = planes.all_banks * planes.at_once * planes.lanes
        least = self.work.multiplied(planes.at_once * planes.lanes, 1).seconds
        macs = sum(op.macs for op in graph.operators if isinstance(op, ops.Gemm | ops.Attention))
        return macs / lanes * least / self.run(graph).seconds


@dataclass(frozen=True)
class Dealt:
    """Tokens over banks: ``each`` in a bank, or ``together`` banks for one."""

    each: int
    together: int

    @classmethod
    def of(cls, tokens: int, banks: int) -> Dealt:
        return cls(-(-tokens // banks), max(1, banks // tokens))


class Walk:
    """Operators of a graph, one after the other."""

    def __init__(self, machine: TokenSharding, graph: Graph) -> None:
        self.machine, self.work, self.graph = machine, machine.work, graph
        self.stay = self._weights_stay()
        self._check_room()
        self.total = CellTime()
        for op in graph.operators:
            self.total += self.take(op)

    def take(self, op: ops.Operator) -> CellTime:
        by_token = self.machine.dataflow == "token"
        if isinstance(op, ops.Gemm):
            return self.token_product(op) if by_token else self.layer_product(op)
        if isinstance(op, ops.Attention):
            return self.token_attention(op) if by_token else self.layer_attention(op)
        if isinstance(op, ops.LayerNorm):
            return self.norm(op)
        if isinstance(op, ops.Activation):
            return self.mapped("activation", op.rows * op.cols)
        if isinstance(op, MAPPED):
            return self.mapped("add", op.rows * op.cols)
        if isinstance(op, ops.EmbeddingGather):
            return self.from_host(op.tokens * op.hidden)
        if isinstance(op, ops.KvAppend):  # keys and values lie where they were computed
            return CellTime()
        raise AccelsimError(f"{op}: not computed in cells; accepted: operators of GPT-2 and BERT")

    # --- room

    @property
    def attention(self) -> ops.Attention | None:
        return next((op for op in self.graph.operators if isinstance(op, ops.Attention)), None)

    @property
    def weights(self) -> int:
        """Operands of all products with weights."""
        return sum(op.k * op.n for op in self.graph.operators if isinstance(op, ops.Gemm))

    def _weights_stay(self) -> bool:
        """Whether weights are in their places before the pass begins."""
        attention = self.attention
        if self.machine.dataflow == "layer":
            return True
        if attention is None or attention.q_len > 1:
            return False
        return self.weights / self.shared(attention.batch) + self.cached <= self.room

    def shared(self, tokens: int) -> int:
        """Banks that have the weights of a token between them."""
        return Dealt.of(tokens, self.work.banks).together

    @property
    def room(self) -> int:
        """Operands that a bank holds beside those that it works on."""
        planes = self.work.planes
        stripes = planes.grid.rows // planes.stripe_rows
        return stripes * planes.sets(planes.lanes) * planes.lanes

    @property
    def cached(self) -> float:
        """Keys and values of a bank, all layers."""
        layers = [op for op in self.graph.operators if isinstance(op, ops.Attention)]
        size = sum(2 * op.batch * op.kv_len * op.kv_heads * op.head_dim for op in layers)
        return size / self.work.banks

    def _check_room(self) -> None:
        held = self.cached + (self.weights / self.work.banks)
        if held > self.room:
            attention = self.attention
            tokens = attention.batch * attention.kv_len if attention else 0
            most = tokens * (self.room - self.weights / self.work.banks) / max(self.cached, 1.0)
            raise CapacityError(
                f"{self.graph.name}: weights and caches are {held:,.0f} operands a bank, it holds"
                f" {self.room:,}; accepted: up to {max(0, math.floor(most)):,} tokens"
                f" on {self.machine.stacks} stacks"
            )

    # --- by tokens

    def token_product(self, op: ops.Gemm) -> CellTime:
        """Weights to all banks, each token's vector against them, results to its banks."""
        dealt = Dealt.of(op.m * op.batch, self.work.banks)
        outputs = -(-op.n // dealt.together)
        found = self.sums(outputs * dealt.each, op.k, vectors=dealt.each)
        gathered = self.work.spread(dealt.each * op.n * SCORE_BYTES, dealt.together)
        return found + _moved(gathered) + self.loaded(op.k * op.n)

    def loaded(self, operands: int) -> CellTime:
        """Weights from the host's link, the same to all banks; the slower of link and banks."""
        if self.stay:
            return CellTime()
        written = self.work.write(operands)
        seconds = max(written.seconds, operands / self.machine.host_bytes_per_second)
        return CellTime(weights=seconds, joules=written.joules)

    def token_attention(self, op: ops.Attention) -> CellTime:
        dealt = Dealt.of(op.batch * op.q_len, self.work.banks)
        keys = -(-op.kv_len // dealt.together)
        width = op.heads * op.head_dim
        found = self.sums(keys * dealt.each, width, vectors=dealt.each)
        found += self.softmax(dealt.each * op.heads * keys, dealt.each * op.heads)
        found += self.sums(width * dealt.each, keys, vectors=0)
        # Banks of a token add up what each of them has.
        partial = dealt.each * width * SUM_BYTES if dealt.together > 1 else 0
        found += _moved(self.work.spread(partial, dealt.together))
        return found + (self.circulated(op, keys) if op.q_len > 1 else CellTime())

    def circulated(self, op: ops.Attention, keys: int) -> CellTime:
        """Keys and values of a sequence past all of its banks, and into the rows of those that
        want them."""
        width, planes = op.kv_heads * op.head_dim, self.work.planes
        banks = max(1, self.work.banks // op.batch)
        passed = self.work.spread(op.kv_len * width * SCORE_BYTES, banks)
        rows = -(-keys * width * planes.bits // planes.lanes)
        return _moved((passed + self.work.store(rows)).times(2))

    # --- layer by layer

    def layer_product(self, op: ops.Gemm) -> CellTime:
        return self.layer_sums(op.m * op.batch, op.n, op.k)

    def layer_sums(self, tokens: int, outputs: int, elements: int) -> CellTime:
        """Every bank gets the vectors of its tokens; all of them if it has an output for each."""
        share = min(1.0, outputs / self.work.banks)
        brought = self.work.spread(tokens * share * elements * SCORE_BYTES, self.work.banks)
        each = math.ceil(tokens * outputs / self.work.banks)
        return _moved(brought) + self.sums(each, elements, vectors=0)

    def layer_attention(self, op: ops.Attention) -> CellTime:
        """Scores, whose rows are brought together, softmax, and values weighted by them; a bank
        works on one head."""
        tokens, scores = op.batch * op.q_len, op.batch * op.q_len * op.heads * op.kv_len
        found = self.layer_sums(tokens, op.heads * op.kv_len, op.head_dim)
        found += self.exchanged(scores * SCORE_BYTES)
        found += self.softmax(scores / self.work.banks, tokens * op.heads / self.work.banks)
        return found + self.layer_sums(tokens, op.heads * op.head_dim, op.kv_len)

    def exchanged(self, size: int) -> CellTime:
        """Bytes from any bank to any other, those between stacks over the host's link."""
        moved = self.work.exchange(size)
        between = size * (self.machine.stacks - 1) / self.machine.stacks
        seconds = max(moved.seconds, between / self.machine.host_bytes_per_second)
        return CellTime(moves=seconds, joules=moved.joules)

    # --- what both do

    def sums(self, outputs: int, elements: int, vectors: int) -> CellTime:
        """Products of so many outputs in every bank, and their sums."""
        work = self.work
        multiplied = work.vector_planes(outputs, elements, vectors)
        multiplied += work.multiplied(outputs, elements)
        summed = work.summed(outputs, elements)
        return CellTime(
            products=multiplied.seconds,
            sums=summed.seconds,
            joules=multiplied.joules + summed.joules,
        )

    def softmax(self, lanes: float, rows: float) -> CellTime:
        """Exponentials, their sums, reciprocals, products; so many scores in every bank."""
        work = self.work
        exponentials = work.mapped(lanes, *FUNCTIONS["exp"])
        total = work.summed(max(1, math.ceil(rows)), max(1, math.ceil(lanes / max(rows, 1))))
        scaled = work.divided(rows, lanes) + work.mapped(lanes, *FUNCTIONS["scale"])
        return _function(exponentials + scaled) + _summed(total)

    def norm(self, op: ops.LayerNorm) -> CellTime:
        """Two sums over every row, then element by element; by layers, its rows are brought
        together first."""
        rows = op.rows / self.work.banks
        lanes = op.rows * op.cols / self.work.banks
        total = self.work.summed(max(1, math.ceil(rows)), math.ceil(op.cols * min(1.0, rows)))
        found = _summed(total.times(2)) + _function(self.work.mapped(lanes, *FUNCTIONS["norm"]))
        if self.machine.dataflow == "layer":
            found += self.exchanged(op.rows * op.cols * SCORE_BYTES)
        return found

    def mapped(self, name: str, elements: int) -> CellTime:
        return _function(self.work.mapped(elements / self.work.banks, *FUNCTIONS[name]))

    def from_host(self, size: int) -> CellTime:
        return CellTime(weights=size / self.machine.host_bytes_per_second)


def _moved(piece: Piece) -> CellTime:
    return CellTime(moves=piece.seconds, joules=piece.joules)


def _summed(piece: Piece) -> CellTime:
    return CellTime(sums=piece.seconds, joules=piece.joules)


def _function(piece: Piece) -> CellTime:
    return CellTime(functions=piece.seconds, joules=piece.joules)
