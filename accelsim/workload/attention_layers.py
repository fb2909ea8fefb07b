"""The attention of a layer, as operators: projections, rotary positions, cache, attention.

    grouped     q, k, v = x W; rotary positions; k and v appended to their caches; attention, in a
                sliding window if the context is longer than it
    latent      c = norm(x W_c) is cached instead of keys and values, with one rotary key for all
                heads. Where many tokens enter an empty cache, heads get keys and values of their
                own from c. Where the cache is read, the expansion is absorbed: queries go through
                W_k of their head into the space of c, and what is attended there through W_v.

Sources: Vaswani et al., 2017; Ainslie et al., GQA, 2023; DeepSeek-AI, DeepSeek-V2, 2024 (arXiv
2405.04434), section 2.1 and appendix C (the projections of queries, published as one, are told
apart here; the arithmetic and the weight count are the same).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from accelsim.workload.constants import RotaryTable
from accelsim.workload.operators import Attention, Gemm, KvAppend, Rotary
from accelsim.workload.tensors import TensorSpec

if TYPE_CHECKING:
    from accelsim.workload.transformer import Builder


def attention_layer(build: Builder, name: str, x: str) -> str:
    """What attention makes of the rows of x [tokens, hidden]."""
    if build.config.kv_lora_rank:
        return _Latent(build, name, x).result()
    return _grouped(build, name, x)


def _grouped(build: Builder, name: str, x: str) -> str:
    config = build.config
    bias, head = config.bias_qkv, config.head_dim
    q = build.linear(f"{name}.q_proj", x, config.q_width, bias=bias)
    k = build.linear(f"{name}.k_proj", x, config.kv_width, bias=bias)
    v = build.linear(f"{name}.v_proj", x, config.kv_width, bias=bias)
    if config.rotary:
        q = _rotate(build, f"{name}.q_rotary", q, config.heads, head)
        k = _rotate(build, f"{name}.k_rotary", k, config.kv_heads, head)
    caches = (
        _append(build, f"{name}.k", k, config.kv_heads, head),
        _append(build, f"{name}.v", v, config.kv_heads, head),
    )
    attended = _attend(build, name, (q, *caches), kv_heads=config.kv_heads, head_dim=head)
    return build.linear(f"{name}.o_proj", attended, config.hidden, bias=config.bias_out)


class _Latent:
    """Multi-head latent attention of one layer."""

    def __init__(self, build: Builder, name: str, x: str) -> None:
        self.build, self.config, self.name, self.x = build, build.config, name, x

    def result(self) -> str:
        build, config, name = self.build, self.config, self.name
        q, q_rope = self._queries()
        rank, rope = config.kv_lora_rank, config.qk_rope_head_dim
        c = build.normalise(f"{name}.kv_norm", self._linear("kv_down", self.x, rank))
        key = _rotate(build, f"{name}.k_rotary", self._linear("k_rope", self.x, rope), 1, rope)
        cached = (
            _append(build, f"{name}.latent", c, 1, rank),
            _append(build, f"{name}.k", key, 1, rope),
        )
        if build.step.position:
            attended = self._absorbed(q, q_rope, *cached)
        else:
            attended = self._expanded(q, q_rope, c, key)
        return self._linear("o_proj", attended, config.hidden)

    def _linear(self, label: str, x: str, n: int) -> str:
        return self.build.linear(f"{self.name}.{label}", x, n, bias=False)

    def _queries(self) -> tuple[str, str]:
        """The part of the queries without and the one with rotary positions."""
        build, config, x = self.build, self.config, self.x
        if config.q_lora_rank:
            down = self._linear("q_down", x, config.q_lora_rank)
            x = build.normalise(f"{self.name}.q_norm", down)
        q = self._linear("q_proj", x, config.heads * config.qk_nope_head_dim)
        rope = config.qk_rope_head_dim
        turned = self._linear("q_rope", x, config.heads * rope)
        return q, _rotate(build, f"{self.name}.q_rotary", turned, config.heads, rope)

    def _expanded(self, q: str, q_rope: str, c: str, key: str) -> str:
        """Every head with keys and values of its own."""
        config, heads = self.config, self.config.heads
        k = self._linear("k_up", c, heads * config.qk_nope_head_dim)
        v = self._linear("v_up", c, heads * config.v_head_dim)
        operands = (q, k, v, q_rope, key)
        return _attend(
            self.build, self.name, operands, kv_heads=heads, head_dim=config.qk_nope_head_dim,
            rope_dim=config.qk_rope_head_dim, cached=False, scale=self._scale(),
        )  # fmt: skip

    def _absorbed(self, q: str, q_rope: str, cache: str, key: str) -> str:
        """All heads on the latent cache itself."""
        config = self.config
        nope, rank, value = config.qk_nope_head_dim, config.kv_lora_rank, config.v_head_dim
        inside = self._by_head("k_up", q, nope, rank)
        attended = _attend(
            self.build, self.name, (inside, cache, cache, q_rope, key), kv_heads=1, head_dim=rank,
            rope_dim=config.qk_rope_head_dim, latent=True, scale=self._scale(),
        )  # fmt: skip
        return self._by_head("v_up", attended, rank, value)

    def _by_head(self, label: str, x: str, k: int, n: int) -> str:
        """Every head's columns of x times its own [k, n]."""
        build, heads, name = self.build, self.config.heads, f"{self.name}.{label}"
        rows = build.tensors[x].shape[0]
        weight = build.tensor(f"{name}.weight", (heads, k, n), "weight")
        operator = Gemm(name, (x, weight), (f"{name}.out",), m=rows, n=n, k=k, groups=heads)
        return build.emit(operator)

    def _scale(self) -> float:
        """1/sqrt(d), times what YaRN makes of it (arXiv 2309.00071, section 3.4, squared)."""
        config = self.config
        scale = 1.0 / math.sqrt(config.qk_nope_head_dim + config.qk_rope_head_dim)
        stretch = config.rope_scaling
        if stretch is None or not stretch.mscale or stretch.factor <= 1.0:
            return scale
        return scale * (0.1 * stretch.mscale * math.log(stretch.factor) + 1.0) ** 2


def _attend(
    build: Builder, name: str, operands: tuple[str, ...], *, kv_heads: int, head_dim: int,
    rope_dim: int = 0, cached: bool = True, latent: bool = False, scale: float = 0.0,
) -> str:  # fmt: skip
    config, step = build.config, build.step
    window = config.sliding_window or 0
    operator = Attention(
        f"{name}.attend",
        operands,
        (f"{name}.attend.out",),
        batch=step.batch,
        heads=config.heads,
        kv_heads=kv_heads,
        q_len=step.q_len,
        kv_len=step.kv_len,
        head_dim=head_dim,
        causal=config.causal,
        scale=scale,
        cached=cached,
        window=window if window < step.kv_len else 0,
        rope_dim=rope_dim,
        latent=latent,
        kv_dtype=step.kv_dtype if cached else "",
        page=step.page if cached else 0,
        prefix=step.prefix if cached else 0,
        contexts=step.contexts,
    )
    return build.emit(operator)


def _rotate(build: Builder, name: str, x: str, heads: int, head_dim: int) -> str:
    """Rotary positions on queries or keys; all layers share the two tables.

    Where positions differ from sequence to sequence, the tables have a row for each sequence.
    """
    config, step = build.config, build.step
    tables, rows = [], len(step.positions) or step.kv_len
    for function in ("cos", "sin"):
        values = RotaryTable(
            function, config.rope_theta, config.rope_scaling, positions=step.positions
        )
        table, shape = f"rotary.{function}", (rows, head_dim)
        build.tensors[table] = TensorSpec(table, shape, "fp32", "constant", values)
        tables.append(table)
    operator = Rotary(
        name,
        (x, *tables),
        (f"{name}.out",),
        heads=heads,
        head_dim=head_dim,
        tokens=step.rows,
        q_len=len(step.positions) or step.q_len,
        table_rows=rows,
        position=0 if step.positions else step.position,
    )
    return build.emit(operator)


def _append(build: Builder, name: str, new: str, kv_heads: int, head_dim: int) -> str:
    """New keys or values into their cache, which lays them out head by head.

    An encoder uses the same operator: its cache starts empty and is full afterwards.
    """
    step, cache = build.step, f"{name}_cache"
    operator = KvAppend(
        f"{name}_append",
        (new, cache),
        (cache,),
        batch=step.batch,
        kv_heads=kv_heads,
        q_len=step.q_len,
        head_dim=head_dim,
        kv_capacity=step.kv_len,
        position=0 if step.contexts else step.position,
        contexts=step.contexts,
        kv_dtype=step.kv_dtype,
        page=step.page,
        prefix=step.prefix,
    )
    build.tensor(cache, operator.output_shapes()[0], "cache", step.kv_dtype or None)
    return build.emit(operator)
