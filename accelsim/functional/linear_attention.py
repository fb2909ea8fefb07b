"""What linear attention and the update of its state mean, token by token, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.workload.linear_attention import Recurrence
from accelsim.workload.operators import LinearAttention, StateUpdate

Array = npt.NDArray[Any]


class RecurrentHead(NamedTuple):
    """One head of one sequence: q, k [q_len, head_dim], v [q_len, value_dim], log decays g [q_len],
    first state s [head_dim, value_dim]. Its tokens and values are ``rows`` and ``cols`` of v."""

    sequence: int
    head: int
    rows: slice
    cols: slice
    q: Array
    k: Array
    v: Array
    g: Array
    s: Array


def recurrent_heads(op: Recurrence, inputs: Sequence[Array]) -> Iterator[RecurrentHead]:
    """All heads of all sequences; an update has no queries (zeros)."""
    given = {item.name: x for item, x in zip(op.present(), inputs, strict=True)}
    fixed = np.array(op.log_decays)
    for s in range(op.batch):
        rows = slice(s * op.q_len, (s + 1) * op.q_len)
        for h in range(op.heads):
            keys = slice(h * op.head_dim, (h + 1) * op.head_dim)
            cols = slice(h * op.value_dim, (h + 1) * op.value_dim)
            g = np.zeros(op.q_len)
            if op.decay == "fixed":
                g += fixed[h]
            elif op.decay == "gated":
                g += given["log_decay"][rows, h]
            k, v = given["k"][rows, keys], given["v"][rows, cols]
            q = given["q"][rows, keys] if "q" in given else np.zeros_like(k)
            state = given["state"][s, h] if "state" in given else np.zeros(op.state_shape[2:])
            yield RecurrentHead(s, h, rows, cols, q, k, v, g, state)


def linear_attention(op: LinearAttention, *inputs: Array) -> Array:
    """o_t = scale q_t^T S_t with S_t = exp(g_t) S_(t-1) + k_t v_t^T, head by head."""
    out = np.empty(op.output_shapes()[0])
    for head in recurrent_heads(op, inputs):
        state = head.s.astype(np.float64)
        for t, row in enumerate(range(head.rows.start, head.rows.stop)):
            state = np.exp(head.g[t]) * state + np.outer(head.k[t], head.v[t])
            out[row, head.cols] = op.scale * (head.q[t] @ state)
    return out


def state_update(op: StateUpdate, *inputs: Array) -> Array:
    """The states after the last tokens."""
    out = np.empty(op.state_shape)
    for head in recurrent_heads(op, inputs):
        state = head.s.astype(np.float64)
        for t in range(op.q_len):
            state = np.exp(head.g[t]) * state + np.outer(head.k[t], head.v[t])
        out[head.sequence, head.head] = state
    return out
