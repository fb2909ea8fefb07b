"""Fused attention in a declared order: online softmax over tiles of keys, bit for bit.

For each row of q, over tiles j of ``tile`` keys in ascending order (Milakov and Gimelshein, 2018,
arXiv 1805.02867; Dao, FlashAttention-2, 2023, arXiv 2307.08691):

    x     = fl((q K_j^T) scale'),  scale' = fl(scale log2 e); the product by ``scores``
    m'    = max(m, max x)
    p     = exp2(fl(x - m')),  alpha = exp2(fl(m - m'))
    l     = fl(fl(l alpha) + T(p)),  T adds neighbours pairwise, (0+1), (2+3), ..., filled with +0
    o     = fl(o alpha), then P V_j onto it by ``values``, P being p rounded to ``probabilities``

and o / l at the end, correctly rounded. fl rounds to fp32, to nearest even; exp2 is
functions.exp2_fp32. Every choice that changes bits is a field of ``AttentionOrder``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.numerics import bounds, functions
from accelsim.numerics.arithmetic import ProductTypes, arithmetic
from accelsim.numerics.ball import FP32, U32, gamma
from accelsim.numerics.bounds import Summation
from accelsim.numerics.formats import Format, number_format
from accelsim.numerics.orders import CHAIN, Order
from accelsim.numerics.rules import Rule

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class AttentionOrder:
    """What decides the bits of an attention besides its operands.

    ``unit`` names the arithmetic of both products (numerics.arithmetic), ``operands`` the format of
    q, k and v, ``probabilities`` that of P ("": the operands'), ``tile`` the keys of a step of the
    online softmax and ``order`` the reduction order of the products.
    """

    unit: str
    operands: str = "fp16"
    tile: int = 64
    probabilities: str = ""
    order: Order = CHAIN

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise AccelsimError(f"an attention needs tiles of at least 1 key, not {self.tile}")
        if self.order.slices > 1:
            raise AccelsimError(f"products of an attention are not cut into slices: {self.order}")

    def __str__(self) -> str:
        return (
            f"{self.unit} {self.operands}; tiles of {self.tile} keys; P in {self.p_format.name};"
            f" exp2 in fp32; {self.order}"
        )

    @property
    def operand_format(self) -> Format:
        return number_format(self.operands)

    @property
    def p_format(self) -> Format:
        """The format in which probabilities are multiplied."""
        return number_format(self.probabilities or self.operands)

    @property
    def scores(self) -> Rule:
        """How q K^T is formed; raises AccelsimError if the unit does not multiply the format."""
        fmt = self.operand_format
        return arithmetic(self.unit).rule(ProductTypes(fmt, fmt, FP32), self.order)

    @property
    def values(self) -> Rule:
        """How P V is formed, likewise."""
        types = ProductTypes(self.p_format, self.operand_format, FP32)
        return arithmetic(self.unit).rule(types, self.order)


def attention(
    q: Array, k: Array, v: Array, scale: float, order: AttentionOrder, visible: Mask | None = None
) -> Float32:
    """softmax(scale q k^T) v of one head, q [rows, d], k and v [keys, d], as fp32 [rows, d].

    Operands are values of the order's format; ``visible`` [rows, keys] says which keys each row
    sees, all if None. A row that sees no key is NaN, 0 / 0.
    """
    rows, fmt = len(q), order.p_format
    factor = np.float32(scale * LOG2_E)
    top = np.full((rows, 1), -np.inf, dtype=np.float32)
    total = np.zeros((rows, 1), dtype=np.float32)
    out = np.zeros((rows, v.shape[1]), dtype=np.float32)
    with np.errstate(all="ignore"):
        for first in range(0, len(k), order.tile):
            keys = slice(first, first + order.tile)
            x = order.scores.multiply(q, np.ascontiguousarray(k[keys].T), None) * factor
            if visible is not None:
                x = np.where(visible[:, keys], x, np.float32(-np.inf))
            new = np.maximum(top, x.max(axis=1, keepdims=True))
            # Where nothing has been seen yet, -inf - -inf must not be NaN.
            base = np.where(np.isneginf(new), np.float32(0), new)
            p = functions.exp2_fp32(x - base)
            alpha = functions.exp2_fp32(top - base)
            total = total * alpha + pairwise_sum(p)
            held = fmt.decode(fmt.encode(p)).astype(np.float32)
            out = order.values.multiply(held, v[keys], out * alpha)
            top = new
        return np.asarray(out / total, dtype=np.float32)


def pairwise_sum(p: Float32) -> Float32:
    """Sums of the rows of ``p`` as [rows, 1]: neighbours are added until one is left."""
    while p.shape[1] > 1:
        if p.shape[1] % 2:
            p = np.pad(p, ((0, 0), (0, 1)))
        p = p[:, 0::2] + p[:, 1::2]
    return p


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
    """
    q64, k64, v64 = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    tiles = -(-len(k) // order.tile)
    dots = q64 @ k64.T
    off = bounds.product(q64, k64.T, order.scores)
    size = np.abs(scale) * (np.abs(dots) + off)
    seen = np.ones(dots.shape, dtype=bool) if visible is None else visible
    shifted = size + np.where(seen, size, 0.0).max(axis=1, keepdims=True)
    dx = np.abs(scale) * off + 3 * U32 * shifted + 2.0**-24 * shifted
    dx = np.where(seen, dx, 0.0).max(axis=1, keepdims=True)
    e_exp = functions.EXP_ULP * 2.0**-23
    length = min(order.tile, len(k))
    depth = int(length - 1).bit_length() + 2 * tiles
    sums = Summation.by(order.values, length)
    rounds = np.log1p(sums.error(np.ones(1), length, 0.0)[0]) * tiles
    e_p = np.log1p(order.p_format.unit_roundoff) if order.p_format is not FP32 else 0.0
    growth = 2 * dx + (tiles + 1) * 2 * np.log1p(e_exp + 2 * U32) + rounds + e_p
    growth = growth + 2 * gamma(depth) + 2 * U32
    weights = exact_attention(q64, k64, np.eye(len(k)), scale, visible)
    largest = np.abs(v64).max(axis=0, keepdims=True, initial=0.0)
    # Weights below 2^-126 are flushed, P's subnormals are coarse, sums have floors of their own.
    floor = len(k) * (order.p_format.smallest_quantum + functions.EXP_LEAST * 2) * largest
    floor = floor + tiles * (sums.error(np.zeros(1), length, float(largest.max(initial=0.0)))[0])
    spread = np.exp(np.minimum(growth, 50.0))
    return np.asarray(np.expm1(np.minimum(growth, 50.0)) * (weights @ np.abs(v64)) + spread * floor)
