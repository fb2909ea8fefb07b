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
    """One head of one sequence: q [q_len, d], k [keys, d], v [keys, head_dim], all that is
    multiplied; ``bias`` [keys] is added to every row of scores (0: none), ``visible`` [q_len, keys]
    says which of them count. Its results lie in ``rows`` and ``cols`` of the output."""

    rows: slice
    cols: slice
    q: Array
    k: Array
    v: Array
    bias: Array | float
    visible: npt.NDArray[np.bool_]


def heads(op: Attention, inputs: Sequence[Array]) -> Iterator[Head]:
    """All heads of all sequences."""
    given = {item.name: x for item, x in zip(op.present(), inputs, strict=True)}
    k, v = _keys(op, given["k"]), _keys(op, given["v"])
    rope = _turned(op, given["k_rope"]) if op.rope_dim else None
    shared = op.heads // op.kv_heads
    visible = visible_keys(op)
    for s in range(op.batch):
        if op.contexts:
            visible = visible_keys(op, s)
        rows = slice(s * op.q_len, (s + 1) * op.q_len)
        for h in range(op.heads):
            cols = slice(h * op.head_dim, (h + 1) * op.head_dim)
            queries, keys = given["q"][rows, cols], k[s][h // shared]
            if rope is not None:
                turned = given["q_rope"][rows, h * op.rope_dim : (h + 1) * op.rope_dim]
                queries = np.concatenate([queries, turned], axis=1)
                keys = np.concatenate([keys, rope[s]], axis=1)
            bias = given["bias"][h, : len(keys)] if op.alibi else 0.0
            yield Head(rows, cols, queries, keys, v[s][h // shared], bias, visible)


def tokens_of(op: CacheUser, cache: Array) -> Sequence[Array]:
    """A cache as [kv_heads, tokens, width] of every sequence, pages in the order of the tokens."""
    if op.pages is not None:
        tables = zip(op.pages.table, op.lengths, strict=True)
        return [np.concatenate(list(cache[list(t)]), axis=1)[:, :n] for t, n in tables]
    if not op.contexts:
        return list(cache)
    heads = len(cache) // sum(op.contexts)
    starts = np.cumsum((0, *op.contexts))[:-1] * heads
    return [
        cache[first : first + heads * n].reshape(heads, n, -1)
        for first, n in zip(starts, op.contexts, strict=True)
    ]


def _turned(op: Attention, x: Array) -> Sequence[Array]:
    """The keys' rope part as [tokens, rope_dim] of every sequence."""
    if op.cached:
        return [tokens[0] for tokens in tokens_of(op, x)]
    return list(x.reshape(op.batch, op.kv_len, op.rope_dim))


def _keys(op: Attention, x: Array) -> Sequence[Array]:
    """Keys or values as [kv_heads, tokens, head_dim] of every sequence, however they are stored."""
    if op.cached:
        return tokens_of(op, x)
    return list(x.reshape(op.batch, op.kv_len, op.kv_heads, op.head_dim).transpose(0, 2, 1, 3))


def visible_keys(op: Attention, sequence: int = 0) -> npt.NDArray[np.bool_]:
    """bool [q_len, keys]: which keys of a sequence each of its queries sees."""
    seen = np.zeros((op.q_len, op.lengths[sequence]), dtype=bool)
    for query in range(op.q_len):
        keys = op.keys_seen(query, sequence)
        seen[query, keys.start : keys.stop] = True
    return seen


def attention(op: Attention, *inputs: Array) -> Array:
    """softmax(scale q k^T + bias) v, head by head."""
    out = np.empty(op.output_shapes()[0])
    for head in heads(op, inputs):
        scores = op.scale * (head.q @ head.k.T) + head.bias
        scores = np.where(head.visible, scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[head.rows, head.cols] = p / p.sum(axis=-1, keepdims=True) @ head.v
    return out


def kv_append(op: KvAppend, new: Array, cache: Array) -> Array:
    """The cache with the positions of the new tokens of every sequence replaced."""
    if op.kv_dtype:  # a store converts
        kept = number_format(op.kv_dtype)
        new = kept.decode(kept.encode(new)).astype(cache.dtype)
    rows = new.reshape(op.batch, op.q_len, op.kv_heads, op.head_dim).transpose(0, 2, 1, 3)
    updated = cache.copy()
    tokens = tokens_of(op, updated) if op.pages is None else ()
    for sequence in range(op.batch):
        first = op.position_of(sequence)
        positions = np.arange(first, first + op.q_len)
        if op.pages is None:  # views of the cache
            tokens[sequence][:, positions] = rows[sequence]
            continue
        pages = np.array(op.pages.table[sequence])[positions // op.page]
        updated[pages, :, positions % op.page] = rows[sequence].transpose(1, 0, 2)
    return updated
