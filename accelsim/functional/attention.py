"""What attention and the append to its cache mean, head by head, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.numerics.formats import number_format
from accelsim.workload.attention_operators import CacheUser
from accelsim.workload.operators import Attention, KvAppend

Array = npt.NDArray[Any]


class Head(NamedTuple):
    """One head of one sequence: q [q_len, d], k [kv_len, d], v [kv_len, head_dim], all that is
    multiplied; ``bias`` [kv_len] is added to every row of scores (0: none). Its results lie in
    ``rows`` and ``cols`` of the output."""

    rows: slice
    cols: slice
    q: Array
    k: Array
    v: Array
    bias: Array | float


def heads(op: Attention, inputs: Sequence[Array]) -> Iterator[Head]:
    """All heads of all sequences."""
    given = {item.name: x for item, x in zip(op.present(), inputs, strict=True)}
    k, v = _keys(op, given["k"]), _keys(op, given["v"])
    rope = _turned(op, given["k_rope"]) if op.rope_dim else None
    shared = op.heads // op.kv_heads
    for s in range(op.batch):
        rows = slice(s * op.q_len, (s + 1) * op.q_len)
        for h in range(op.heads):
            cols = slice(h * op.head_dim, (h + 1) * op.head_dim)
            queries, keys = given["q"][rows, cols], k[s, h // shared]
            if rope is not None:
                turned = given["q_rope"][rows, h * op.rope_dim : (h + 1) * op.rope_dim]
                queries = np.concatenate([queries, turned], axis=1)
                keys = np.concatenate([keys, rope[s]], axis=1)
            bias = given["bias"][h] if op.alibi else 0.0
            yield Head(rows, cols, queries, keys, v[s, h // shared], bias)


def tokens_of(op: CacheUser, cache: Array) -> Array:
    """A cache as [batch, kv_heads, tokens, width], its pages in the order of the tokens."""
    if op.pages is None:
        return cache
    return np.stack(
        [
            np.concatenate(list(cache[list(table)]), axis=1)[:, : op.cache_tokens]
            for table in op.pages.table
        ]
    )


def _turned(op: Attention, x: Array) -> Array:
    """The keys' rope part as [batch, kv_len, rope_dim]."""
    if op.cached:
        return tokens_of(op, x)[:, 0]
    return x.reshape(op.batch, op.kv_len, op.rope_dim)


def _keys(op: Attention, x: Array) -> Array:
    """Keys or values as [batch, kv_heads, kv_len, head_dim], however they are stored."""
    if op.cached:
        return tokens_of(op, x)
    return x.reshape(op.batch, op.kv_len, op.kv_heads, op.head_dim).transpose(0, 2, 1, 3)


def visible_keys(op: Attention) -> npt.NDArray[np.bool_]:
    """bool [q_len, kv_len]: which keys each query sees."""
    seen = np.zeros((op.q_len, op.kv_len), dtype=bool)
    for query in range(op.q_len):
        keys = op.keys_seen(query)
        seen[query, keys.start : keys.stop] = True
    return seen


def attention(op: Attention, *inputs: Array) -> Array:
    """softmax(scale q k^T + bias) v, head by head."""
    out = np.empty(op.output_shapes()[0])
    visible = visible_keys(op)
    for head in heads(op, inputs):
        scores = op.scale * (head.q @ head.k.T) + head.bias
        scores = np.where(visible, scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[head.rows, head.cols] = p / p.sum(axis=-1, keepdims=True) @ head.v
    return out


def kv_append(op: KvAppend, new: Array, cache: Array) -> Array:
    """The cache with positions [position, position + q_len) of every sequence replaced."""
    if op.kv_dtype:  # a store converts
        kept = number_format(op.kv_dtype)
        new = kept.decode(kept.encode(new)).astype(cache.dtype)
    rows = new.reshape(op.batch, op.q_len, op.kv_heads, op.head_dim).transpose(0, 2, 1, 3)
    updated = cache.copy()
    positions = np.arange(op.position, op.position + op.q_len)
    if op.pages is None:
        updated[:, :, positions] = rows
        return updated
    for sequence, table in enumerate(op.pages.table):
        pages = np.array(table)[positions // op.page]
        updated[pages, :, positions % op.page] = rows[sequence].transpose(1, 0, 2)
    return updated
