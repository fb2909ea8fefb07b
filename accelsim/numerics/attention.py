"""Fused attention in a declared order: online softmax over blocks of keys, bit for bit.

For each row of q, over blocks j of keys in ascending order (Milakov and Gimelshein, 2018,
arXiv 1805.02867; Dao, FlashAttention-2, 2023, arXiv 2307.08691):

    x     = fl((q K_j^T) scale'),  the product by ``scores``; scale' = fl(scale), or
            fl(scale log2 e) where the exponential is exp2
    m'    = max(m, max x)
    p     = exp(fl(x - m')),  alpha = exp(fl(m - m'))
    l     = fl(fl(l alpha) + T(p)),  T adds by lanes (accumulate.row_sums) what it reads of p
    o     = fl(o alpha), then P V_j onto it by ``values``, P being p rounded to its format

and fl(o / l), or fl(o fl(1 / l)), at the end. Where keys are cut into ranges, each leaves m_i, l_i
and o_i; with M = max m_i and f_i = exp(fl(m_i - M)), l = T(fl(l_i f_i)) and o is the forward sum of
fl(o_i f_i) (Dao et al., Flash-Decoding, 2023). fl rounds to fp32, to nearest even; exp and exp2 are
those of numerics.functions. Every choice that changes bits is part of the order's tag
(numerics.orders), which programs declare: mappers.flash_attention gives these bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.numerics import accumulate, bounds, functions
from accelsim.numerics.arithmetic import ProductTypes, arithmetic
from accelsim.numerics.ball import FP32, U32, gamma
from accelsim.numerics.bounds import Summation
from accelsim.numerics.formats import Format, number_format
from accelsim.numerics.orders import Online, Order
from accelsim.numerics.rules import Rule

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LOG2_E = 1.4426950408889634

TILE = 64
"""Keys of a block where nobody says how many."""


@dataclass(frozen=True)
class AttentionOrder:
    """What decides the bits of an attention besides its operands.

    ``unit`` names the arithmetic of both products (numerics.arithmetic), ``operands`` the format of
    q, k and v; ``order`` says how the softmax runs over the keys, and how products are formed.
    """

    unit: str
    operands: str = "fp16"
    order: Order = field(default_factory=lambda: Order(online=Online(TILE)))

    def __post_init__(self) -> None:
        if self.order.online is None:
            raise AccelsimError(f"an attention needs online:KEYS in its order, not {self.order}")
        if self.order.slices > 1:
            raise AccelsimError(f"products of an attention are not cut into slices: {self.order}")

    def __str__(self) -> str:
        return f"{self.unit} {self.operands}; {self.order}"

    @property
    def online(self) -> Online:
        assert self.order.online is not None
        return self.order.online

    @property
    def operand_format(self) -> Format:
        return number_format(self.operands)

    @property
    def p_format(self) -> Format:
        """The format in which probabilities are multiplied."""
        return number_format(self.online.probabilities or self.operands)

    @property
    def summed_format(self) -> Format:
        """The format in which they are added up."""
        return number_format(self.online.summed or self.operands)

    @property
    def scores(self) -> Rule:
        """How q K^T is formed; raises AccelsimError if the unit does not multiply the format."""
        fmt = self.operand_format
        return arithmetic(self.unit).rule(ProductTypes(fmt, fmt, FP32), self.order.of_one_product)

    @property
    def values(self) -> Rule:
        """How P V is formed, likewise."""
        types = ProductTypes(self.p_format, self.operand_format, FP32)
        return arithmetic(self.unit).rule(types, self.order.of_one_product)

    def exponential(self, x: Float32) -> Float32:
        """Weights of differences of scaled scores."""
        natural = self.online.exponential == "exp"
        return functions.exp_fp32(x) if natural else functions.exp2_fp32(x)

    def factor(self, scale: float) -> np.float32:
        """What scores are multiplied by."""
        return np.float32(scale if self.online.exponential == "exp" else scale * LOG2_E)

    def row_sums(self, p: Float32) -> Float32:
        """Sums [rows, 1] of what is in memory in fp32."""
        return accumulate.row_sums(p, self.online.lanes)


class Running(NamedTuple):
    """Maxima [rows, 1], sums [rows, 1] and results [rows, d] over the keys so far."""

    top: Float32
    total: Float32
    out: Float32


def attention(
    q: Array, k: Array, v: Array, scale: float, order: AttentionOrder, visible: Mask | None = None
) -> Float32:
    """softmax(scale q k^T) v of one head, q [rows, d], k and v [keys, d], as fp32 [rows, d].

    Operands are values of the order's format; ``visible`` [rows, keys] says which keys each row
    sees, all if None. A row that sees no key is NaN.
    """
    seen = np.ones((len(q), len(k)), dtype=bool) if visible is None else visible
    span = order.online.span or len(k)
    with np.errstate(all="ignore"):
        ranges = [
            _over_range(q, k[some], v[some], order.factor(scale), order, seen[:, some])
            for first in range(0, len(k), span)
            for some in (slice(first, first + span),)
        ]
        _, total, out = ranges[0] if len(ranges) == 1 else _merged(ranges, order)
        if order.online.division == "reciprocal":
            return np.asarray(out * (np.float32(1) / total), dtype=np.float32)
        return np.asarray(out / total, dtype=np.float32)


def _over_range(
    q: Array, k: Array, v: Array, factor: np.float32, order: AttentionOrder, visible: Mask
) -> Running:
    """The online softmax over some keys."""
    fmt, summed = order.p_format, order.summed_format
    top = np.full((len(q), 1), -np.inf, dtype=np.float32)
    total = np.zeros((len(q), 1), dtype=np.float32)
    out = np.zeros((len(q), v.shape[1]), dtype=np.float32)
    for first in range(0, len(k), order.online.keys):
        keys = slice(first, first + order.online.keys)
        x = order.scores.multiply(q, np.ascontiguousarray(k[keys].T), None) * factor
        x = np.where(visible[:, keys], x, np.float32(-np.inf))
        new = np.maximum(top, x.max(axis=1, keepdims=True))
        base = _finite(new)
        p, alpha = order.exponential(x - base), order.exponential(top - base)
        total = total * alpha + order.row_sums(_held(p, summed))
        out = order.values.multiply(_held(p, fmt), v[keys], out * alpha)
        top = new
    return Running(top, total, out)


def _merged(ranges: list[Running], order: AttentionOrder) -> Running:
    """Ranges of keys brought to one maximum and added."""
    tops, totals = (
        np.concatenate(columns, axis=1) for columns in list(zip(*ranges, strict=True))[:2]
    )
    top = tops.max(axis=1, keepdims=True)
    factors = order.exponential(tops - _finite(top))
    out = ranges[0].out * factors[:, :1]
    for i, one in enumerate(ranges[1:], 1):
        out = out + one.out * factors[:, i : i + 1]
    return Running(top, order.row_sums(totals * factors), out)


def _finite(top: Float32) -> Float32:
    """Maxima, 0 where nothing has been seen yet: -inf - -inf must not be NaN."""
    return np.where(np.isneginf(top), np.float32(0), top)


def _held(p: Float32, fmt: Format) -> Float32:
    return np.asarray(fmt.decode(fmt.encode(p)), dtype=np.float32)


def exact_attention(
    q: Array, k: Array, v: Array, scale: float, visible: Mask | None = None
) -> Floats:
    """The same in float64, on the same operands."""
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    x = scale * (q @ k.T)
    if visible is not None:
        x = np.where(visible, x, -np.inf)
    p = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray((p / p.sum(axis=1, keepdims=True)) @ v)


def attention_bound(
    q: Array, k: Array, v: Array, scale: float, order: AttentionOrder, visible: Mask | None = None
) -> Floats:
    """How far ``attention`` may be from ``exact_attention``, float64 [rows, d].

    Every score is off by at most dx (its product, two roundings, and the rounding of x - m'), so
    each weight by a factor within e^(2 dx): numerator and denominator move together but are bounded
    apart. A rescaling by alpha is two more roundings and an exponential; the sums of p, of P V and
    the last division follow. With A = sum |weight| |v|:

        |error| <= (e^(2 E) - 1) A + underflows,   E = dx + T (e_exp + 2 u) + sums + u_P + u

    Ranges of keys are one more rescaling, and as many additions as there are merges.
    """
    q64, k64, v64 = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    online, span = order.online, order.online.span or len(k)
    ranges = -(-len(k) // span)
    tiles = -(-min(span, len(k)) // online.keys)
    dots = q64 @ k64.T
    off = bounds.product(q64, k64.T, order.scores)
    size = np.abs(scale) * (np.abs(dots) + off)
    seen = np.ones(dots.shape, dtype=bool) if visible is None else visible
    shifted = size + np.where(seen, size, 0.0).max(axis=1, keepdims=True)
    dx = np.abs(scale) * off + 3 * U32 * shifted + 2.0**-24 * shifted
    dx = np.where(seen, dx, 0.0).max(axis=1, keepdims=True)
    e_exp = functions.EXP_ULP * 2.0**-23
    length = min(online.keys, span, len(k))
    depth = accumulate.row_sum_depth(length, online.lanes) + 2 * tiles + (ranges - 1)
    sums = Summation.by(order.values, length)
    rounds = np.log1p(sums.error(np.ones(1), length, 0.0)[0]) * tiles
    narrow = [fmt for fmt in (order.p_format, order.summed_format) if fmt is not FP32]
    e_p = sum(np.log1p(fmt.unit_roundoff) for fmt in narrow)
    rescaled = tiles + 1 + (ranges > 1)
    growth = 2 * dx + rescaled * 2 * np.log1p(e_exp + 2 * U32) + rounds + e_p
    # The division, or the reciprocal and the product with it.
    growth = growth + 2 * gamma(depth) + (2 + (online.division == "reciprocal")) * U32
    weights = exact_attention(q64, k64, np.eye(len(k)), scale, visible)
    largest = np.abs(v64).max(axis=0, keepdims=True, initial=0.0)
    # Weights below 2^-126 are flushed, P's subnormals are coarse, sums have floors of their own.
    quanta = sum(fmt.smallest_quantum for fmt in (order.p_format, order.summed_format))
    floor = len(k) * (quanta + functions.EXP_LEAST * 2) * largest
    floor = (
        floor + ranges * tiles * sums.error(np.zeros(1), length, float(largest.max(initial=0.0)))[0]
    )
    spread = np.exp(np.minimum(growth, 50.0))
    return np.asarray(np.expm1(np.minimum(growth, 50.0)) * (weights @ np.abs(v64)) + spread * floor)
