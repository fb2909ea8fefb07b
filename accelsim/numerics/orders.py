"""Reduction orders: the free choices of a kernel that change the bits of a matrix product.

A program declares the order of each operator as a *tag*; the parts of a tag are joined by ";".
What instructions make of a reduction, and what a unit does within each of them:

    split:S:G:MERGE:F  split-K: S slices, each ceil(ceil(K / G) / S) G long but the last, each a
                       chain from +0. ``forward``: partial sums are rounded to format F and added
                       in fp32, forward from slice 0. ``serial``: each slice adds its sum in fp32
                       to that of all before it, which was rounded to F. split:S:G stands for
                       split:S:G:forward:fp32
    promote:N          a chain from +0 over every N of k, whose sum is added to the accumulator in
                       fp32: what fp8 kernels do to leave narrow accumulators (DeepGEMM; cuBLAS)
    sparse:M           products with one of every M neighbouring weights left only (2:4, 1:2): each
                       fused step takes its products from M times as many k. A hypothesis, not yet
                       compared with a capture: one mma.sp or wgmma.sp is the dense step on the
                       pairs that its places select
    fold:R             a chain from +0 down every R of k, whose sum is added to the accumulator:
                       the columns of weight- and input-stationary arrays

and how the unit's own adders take k, which its arithmetic decides (numerics.arithmetic):

    chain, chain:P     one chain over k, P products fused in each step
    tree:W             adder trees over W products, each added to the accumulator
    banks:B:W          such trees in B banks, which take the next W products in turn
    lanes:L            chains of L SIMT lanes, then a butterfly
    lanes:L:T          the same of lanes beside banks, which take T products each in turn
    exact              integers, which no order changes

A fused attention says how its softmax runs over the keys (numerics.attention):

    online:KEYS        blocks of KEYS keys, ascending
    ranges:SPAN        the same over each range of SPAN keys; then ranges are merged: rescaled to
                       the largest maximum, sums by lanes, results forward
    exp, exp2          weights e^(x - m) of fl(s scale), or 2^(x - m) of fl(s fl(scale log2 e))
    p:F                weights are rounded to F (the operands' format) to multiply the values
    sums:F:L           sums of weights read them in F: key c of a block goes to lane c mod L, each
                       lane adds from +0, then neighbouring lanes are added pairwise; sums:F is one
                       lane for each key
    divide, reciprocal the result o / l, or o fl(1 / l)

Tile shapes, warps and the raster of a kernel do not change bits. The three merges are those of
cuBLASLt (cublasLtReductionScheme_t: COMPUTE_TYPE and OUTPUT_TYPE keep partial sums in a workspace,
INPLACE adds to the output) and of CUTLASS (parallel and serial split-K).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import number_format

FORMS = (
    "chain[:PRODUCTS], split:SLICES:GRAIN[:forward|serial:FORMAT], promote:LENGTH, sparse:M,"
    " fold:ROWS, tree:WIDTH, banks:COUNT:WIDTH, lanes:COUNT[:TURN], exact; online:KEYS with"
    " ranges:SPAN, exp|exp2, p:FORMAT, sums:FORMAT:LANES, divide|reciprocal"
)

Merge = Literal["forward", "serial"]
Exponential = Literal["exp", "exp2"]
Division = Literal["divide", "reciprocal"]


@dataclass(frozen=True)
class Online:
    """A softmax that runs over blocks of ``keys`` keys; fields as the tags of the module.

    ``span`` 0: one range; ``probabilities`` and ``summed`` are formats, "" that of the operands;
    ``lanes`` 0: as many as keys.
    """

    keys: int
    span: int = 0
    exponential: Exponential = "exp2"
    probabilities: str = ""
    summed: str = "fp32"
    lanes: int = 0
    division: Division = "divide"

    def __str__(self) -> str:
        parts = [f"online:{self.keys}"]
        parts += [f"ranges:{self.span}"] if self.span else []
        parts += [self.exponential]
        parts += [f"p:{self.probabilities}"] if self.probabilities else []
        parts += [f"sums:{self.summed}" + (f":{self.lanes}" if self.lanes else "")]
        return ";".join([*parts, self.division])


@dataclass(frozen=True)
class Order:
    """How a reduction is cut up; 1 slice, promotion after 0 and folds of 0 mean that it is not.

    ``sparse``: of how many neighbouring weights one is multiplied, 0 if all are.

    ``adders`` is what the unit's arithmetic does with k, "" if the tag leaves that to it.
    """

    slices: int = 1
    grain: int = 1
    promote: int = 0
    merge: Merge = "forward"
    partials: str = "fp32"
    fold: int = 0
    sparse: int = 0
    adders: str = ""
    online: Online | None = None

    def __str__(self) -> str:
        parts = [] if self.online is None else [str(self.online)]
        if self.slices > 1:
            parts += [f"split:{self.slices}:{self.grain}:{self.merge}:{self.partials}"]
        parts += [f"promote:{self.promote}"] if self.promote else []
        parts += [f"sparse:{self.sparse}"] if self.sparse else []
        parts += [f"fold:{self.fold}"] if self.fold else []
        whole = self.adders == "chain"  # which goes without saying
        parts += [self.adders] if self.adders and not whole else []
        return ";".join(parts) or "chain"

    @property
    def of_one_product(self) -> Order:
        """What of it concerns one product of a unit."""
        return Order(promote=self.promote, sparse=self.sparse, fold=self.fold, adders=self.adders)

    @property
    def roundings(self) -> int:
        """Roundings of a partial sum to ``partials`` before the last addition, at most."""
        return 1 if self.merge == "forward" else self.slices - 1

    def cuts(self, k: int) -> list[slice]:
        """The slices of a reduction of length ``k``, none empty."""
        if self.slices == 1:
            return [slice(0, k)]
        grains = -(-k // self.grain)
        length = -(-grains // self.slices) * self.grain
        return [slice(first, min(first + length, k)) for first in range(0, k, length)]


CHAIN = Order()


def orders_of(text: str) -> tuple[Order, ...]:
    """The orders of an operator's kernels, as OperatorInfo.order has them."""
    return tuple(order_of(tag.strip()) for tag in text.split("|")) if text else ()


def within_instruction(text: str) -> Order:
    """What of an operator's orders a unit does within one instruction."""
    first = next(iter(orders_of(text)), CHAIN)
    return Order(promote=first.promote, sparse=first.sparse)


def order_of(tag: str) -> Order:
    """The order that a tag names; raises AccelsimError saying which tags there are."""
    settings: dict[str, Any] = {}
    for part in filter(None, tag.split(";")):
        found = _settings(*part.split(":"))
        if found is None or found.keys() & settings.keys():
            raise AccelsimError(f"unknown reduction order {tag!r}; accepted: {FORMS}")
        settings |= found
    online = {f.name: settings.pop(f.name) for f in fields(Online) if f.name in settings}
    if not online:
        return Order(**settings)
    if "keys" not in online:
        raise AccelsimError(f"reduction order {tag!r} names no online:KEYS; accepted: {FORMS}")
    return Order(**settings, online=Online(**online))


def _settings(name: str, *given: str) -> dict[str, Any] | None:
    """The fields that a part of a tag sets; None if there is no such part."""
    words = [text for text in given if not _is_count(text)]
    counts = [int(text) for text in given if _is_count(text)]
    match name, words, counts:
        case "chain", [], []:
            return {"adders": ""}
        case "exact", [], []:
            return {"adders": name}
        case "chain" | "tree" | "lanes", [], [count]:
            return {"adders": f"{name}:{count}"}
        case "banks" | "lanes", [], [count, width]:
            return {"adders": f"{name}:{count}:{width}"}
        case "promote" | "fold" | "sparse", [], [count]:
            return {name: count}
        case "split", [], [slices, grain]:
            return {"slices": slices, "grain": grain}
        case "split", ["forward" | "serial" as merge, fmt], [slices, grain]:
            partials = number_format(fmt).name
            return {"slices": slices, "grain": grain, "merge": merge, "partials": partials}
        case "online", [], [keys]:
            return {"keys": keys}
        case "ranges", [], [span]:
            return {"span": span}
        case "exp" | "exp2", [], []:
            return {"exponential": name}
        case "divide" | "reciprocal", [], []:
            return {"division": name}
        case "p", [fmt], []:
            return {"probabilities": number_format(fmt).name}
        case "sums", [fmt], [] | [_]:
            return {"summed": number_format(fmt).name, "lanes": sum(counts)}
    return None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0
