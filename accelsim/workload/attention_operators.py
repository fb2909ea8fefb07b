"""Attention and the cache of its keys and values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from random import Random
from typing import ClassVar

from accelsim.workload._words import whole
from accelsim.workload.operator_base import DtypeRule, Operand, Operator, float_dtypes
from accelsim.workload.tensors import DTYPES, Shape, dtype_named
from accelsim.workload.vector_operators import SOFTMAX_OPS


@dataclass(frozen=True)
class Pages:
    """A cache in pages of ``size`` tokens that lie anywhere.

    Every sequence of ``tokens`` tokens, or of ``lengths`` of them each, has pages of its own, but
    for the first ``shared`` tokens: whole pages that all sequences have in common. Which page lies
    where is drawn from ``seed``.

    Source: Kwon et al., Efficient memory management for large language model serving with
    PagedAttention, SOSP 2023 (shared pages: section 4.4).
    """

    size: int
    sequences: int
    tokens: int
    shared: int = 0
    seed: int = 0
    lengths: tuple[int, ...] = ()

    @property
    def common(self) -> int:
        """Pages of all sequences together."""
        return self.shared // self.size

    @cached_property
    def own(self) -> tuple[int, ...]:
        """Pages that each sequence has to itself."""
        lengths = self.lengths or (self.tokens,) * self.sequences
        return tuple(-(-(tokens - self.shared) // self.size) for tokens in lengths)

    @property
    def count(self) -> int:
        """Pages of the whole cache."""
        return self.common + sum(self.own)

    @cached_property
    def table(self) -> tuple[tuple[int, ...], ...]:
        """Page numbers of every sequence, in the order of its tokens."""
        place = list(range(self.count))
        Random(self.seed).shuffle(place)
        common = place[: self.common]
        stops = list(accumulate(self.own, initial=self.common))
        return tuple((*common, *place[first:stop]) for first, stop in pairwise(stops))


class CacheUser(Operator):
    """What attention and the append to its cache have in common: the form of the cache.

    A cache of keys or of values is [batch, kv_heads, tokens, head_dim], or with `page` > 0
    [pages, kv_heads, page, head_dim] (see Pages), of which `prefix` tokens belong to all
    sequences. `kv_dtype` is its format where that is not the queries' ("").

    With `contexts`, sequence s holds contexts[s] tokens: the cache is [tokens of all, head_dim],
    sequence after sequence, in each head after head, without a gap.
    """

    batch: int
    kv_heads: int
    q_len: int
    head_dim: int
    page: int
    prefix: int
    page_seed: int
    kv_dtype: str
    contexts: tuple[int, ...]

    @property
    def cache_tokens(self) -> int:
        """Tokens per sequence that the cache has room for, of the longest one."""
        raise NotImplementedError("abstract: attention and append name it differently")

    @cached_property
    def pages(self) -> Pages | None:
        """The pages of the cache; None if it is not paged."""
        if not self.page:
            return None
        tokens = self.cache_tokens
        return Pages(self.page, self.batch, tokens, self.prefix, self.page_seed, self.contexts)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens that each sequence has in the cache."""
        return self.contexts or (self.cache_tokens,) * self.batch

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        """Tokens of all sequences before each."""
        return tuple(accumulate(self.lengths, initial=0))

    def cache_shape(self, width: int, heads: int) -> Shape:
        """Shape of a cache of ``heads`` heads whose rows are ``width`` elements long."""
        if self.pages is not None:
            return (self.pages.count, heads, self.page, width)
        if self.contexts:
            return (heads * sum(self.contexts), width)
        return (self.batch, heads, self.cache_tokens, width)

    def cache_rows(
        self, sequence: int, head: int, first: int, stop: int, heads: int
    ) -> list[tuple[int, slice]]:
        """Where tokens first .. stop - 1 lie in a cache of ``heads`` heads seen as [rows, width]:
        (token, rows from it on) of all at once, or of each page."""
        if self.pages is None:
            row = self._starts[sequence] * heads + head * self.lengths[sequence]
            return [(first, slice(row + first, row + stop))]
        found, page = [], self.page
        for p in range(first // page, -(-stop // page)):
            start, end = max(first, p * page), min(stop, (p + 1) * page)
            row = (self.pages.table[sequence][p] * heads + head) * page - p * page
            found.append((start, slice(row + start, row + end)))
        return found

    def cache_elements(self, width: int, tokens: int) -> int:
        """Distinct elements of the last ``tokens`` tokens of all sequences in such a cache."""
        own = [length - self.prefix for length in self.lengths]
        shared = min(self.prefix, max(0, *(tokens - length for length in own)))
        seen = sum(min(tokens, length) for length in own)
        return (shared + seen) * self.kv_heads * width

    def check_cache(self) -> None:
        """Raise AccelsimError where the fields of the cache contradict each other."""
        for name in ("page", "prefix", "page_seed"):
            whole(getattr(self, name), f"{self}: {name}", least=0)
        if self.prefix and not self.page:
            raise self.error(
                f"prefix {self.prefix}; accepted: 0, or with page=, the tokens of a page"
            )
        self._check_contexts()
        least = min(self.lengths)
        if self.prefix and (self.prefix % self.page or self.prefix > least):
            raise self.error(
                f"prefix {self.prefix}; accepted: whole pages of {self.page},"
                f" at most {least} tokens"
            )
        if self.kv_dtype:
            dtype_named(self.kv_dtype, f"{self}: kv_dtype")

    def _check_contexts(self) -> None:
        """Lengths of their own are for sequences that get a token each."""
        if not self.contexts:
            return
        given = tuple(whole(tokens, f"{self}: contexts") for tokens in self.contexts)
        object.__setattr__(self, "contexts", given)
        if len(given) != self.batch or max(given) != self.cache_tokens:
            raise self.error(
                f"contexts of {len(given)} sequences, at most {max(given)} tokens;"
                f" accepted: of {self.batch}, the longest of {self.cache_tokens}"
            )
        if self.q_len != 1:
            raise self.error(f"contexts with q_len {self.q_len}; accepted: 1 token per sequence")


@dataclass(frozen=True)
class Attention(CacheUser):
    """Scaled dot-product attention over keys and values: softmax(scale q k^T) v.

    Shapes: q [batch*q_len, heads*head_dim]; k, v as a cache holds them (see CacheUser), or
    [batch*kv_len, kv_heads*head_dim] as a projection leaves them (`cached` false); output
    [batch*q_len, heads*head_dim]. Query head h reads key head h // (heads/kv_heads):
    kv_heads == heads is multi-head, 1 is multi-query, between is grouped-query attention.

    Query i of a sequence stands at position kv_len - q_len + i. With `causal` it sees keys
    0..that position, with `window` only the last so many of them. `scale` defaults to
    1/sqrt(head_dim + rope_dim). Keys kept as integers count in steps of one over the largest, which
    the default takes in; the step of the values is left to what follows.

    `alibi`: scale q k^T + bias, with bias fp32 [heads, kv_len] a number per head and key; only
    differences between keys matter, so that it stands for slope * (key - query).

    `rope_dim`: scale (q k^T + q_rope k_rope^T), with q_rope [batch*q_len, heads*rope_dim] and
    k_rope, one head for all, cached like k. `latent`: keys are values, too, one tensor. Both make
    multi-head latent attention: expanded to heads with the first, absorbed with both.

    `contexts`: of one query per sequence, sequence s sees contexts[s] keys; kv_len is the longest.

    Sources: Jiang et al., Mistral 7B, 2023 (window); Press et al., ALiBi, ICLR 2022; DeepSeek-AI,
    DeepSeek-V2, 2024, section 2.1 (latent, rope).
    """

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    causal: bool = False
    scale: float = 0.0
    cached: bool = True
    window: int = 0
    alibi: bool = False
    rope_dim: int = 0
    latent: bool = False
    kv_dtype: str = ""
    page: int = 0
    prefix: int = 0
    page_seed: int = 0
    contexts: tuple[int, ...] = ()

    kind: ClassVar[str] = "attention"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("q"),
        Operand("k", "cache"),
        Operand("v", "cache"),
        Operand("bias", "constant", optional=True),
        Operand("q_rope", optional=True),
        Operand("k_rope", "cache", optional=True),
    )
    dimensions: ClassVar[tuple[str, ...]] = (
        *("batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim"),
    )

    @classmethod
    def implied(cls, fields: Mapping[str, object]) -> frozenset[str]:
        bias = {"bias"} if fields.get("alibi") else set()
        return frozenset(bias | ({"q_rope", "k_rope"} if fields.get("rope_dim") else set()))

    def present(self) -> tuple[Operand, ...]:
        has = self.implied(vars(self))
        return tuple(item for item in self.operands if not item.optional or item.name in has)

    def check_fields(self) -> None:
        if self.heads % self.kv_heads:
            raise self.error(f"kv_heads {self.kv_heads}; accepted: a divisor of heads {self.heads}")
        if self.causal and self.q_len > self.kv_len:
            raise self.error(
                f"q_len {self.q_len}; accepted with causal: at most kv_len {self.kv_len}"
            )
        whole(self.window, f"{self}: window", least=0)
        whole(self.rope_dim, f"{self}: rope_dim", least=0)
        if self.window and not self.causal:
            raise self.error(f"window {self.window}; accepted: with causal=true")
        self.check_cache()
        if self.window > self.kv_len:
            raise self.error(
                f"window {self.window}; accepted: up to the context, kv_len {self.kv_len}"
            )
        if self.latent != (self.inputs[1] == self.inputs[2]):
            raise self.error("keys and values in one tensor; accepted: with latent, and only then")
        if not self.cached and (self.page or self.kv_dtype or self.latent or self.contexts):
            raise self.error(
                "cached false; accepted: without page, prefix, kv_dtype, latent and contexts, which"
                " say what a cache is like"
            )
        if self.scale == 0.0:
            object.__setattr__(self, "scale", self._default_scale())

    def _default_scale(self) -> float:
        scale = 1.0 / math.sqrt(self.head_dim + self.rope_dim)
        kept = DTYPES.get(self.kv_dtype)
        if kept is None or kept.is_float:
            return scale
        return scale / max(1, (1 << (kept.bits - 1)) - 1)

    @property
    def cache_tokens(self) -> int:
        return self.kv_len

    def keys_seen(self, query: int, sequence: int = 0) -> range:
        """Keys that query number ``query`` of a sequence sees."""
        length = self.lengths[sequence]
        if not self.causal:
            return range(length)
        stop = length - self.q_len + query + 1
        return range(max(0, stop - self.window) if self.window else 0, stop)

    @property
    def masked(self) -> bool:
        """Whether queries see different keys, so that a product of both needs a mask."""
        return self.causal and self.q_len > 1

    @cached_property
    def keys_read_by(self) -> tuple[int, ...]:
        """The last so many keys of each sequence are seen by a query at all."""
        if not self.contexts:
            return (self.kv_len - self.keys_seen(0).start,) * self.batch
        return tuple(len(self.keys_seen(0, sequence)) for sequence in range(self.batch))

    @property
    def keys_read(self) -> int:
        """The same of the sequence that has most."""
        return max(self.keys_read_by)

    @property
    def scores(self) -> int:
        """Query-key pairs that may see each other, over all heads and sequences."""
        if self.contexts:
            return self.heads * sum(self.keys_read_by)
        first, last = len(self.keys_seen(0)), len(self.keys_seen(self.q_len - 1))
        # The number grows by one from query to query until it stays at the last.
        rising = last - first
        pairs = rising * first + rising * (rising - 1) // 2 + (self.q_len - rising) * last
        return self.batch * self.heads * pairs

    def input_shapes(self) -> tuple[Shape, ...]:
        tokens = self.batch * self.kv_len
        keys: Shape = (tokens, self.kv_heads * self.head_dim)
        turned: Shape = (tokens, self.rope_dim)
        if self.cached:
            keys = self.cache_shape(self.head_dim, self.kv_heads)
            turned = self.cache_shape(self.rope_dim, 1)
        shapes: dict[str, Shape] = {
            "q": (self.batch * self.q_len, self.heads * self.head_dim),
            "k": keys,
            "v": keys,
            "bias": (self.heads, self.kv_len),
            "q_rope": (self.batch * self.q_len, self.heads * self.rope_dim),
            "k_rope": turned,
        }
        return tuple(shapes[item.name] for item in self.present())

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch * self.q_len, self.heads * self.head_dim),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        """Floating point; the cache in `kv_dtype`, which may be a format of integers."""
        kept = self.kv_dtype or main
        found = {"k": kept, "v": kept, "k_rope": kept, "bias": "fp32"}
        rest = tuple((found.get(item.name, main),) for item in self.present()[1:])
        return (float_dtypes(), *rest), ((main,),)

    def elements_read(self) -> tuple[int, ...]:
        whole = super().elements_read()
        seen = self.cache_elements(self.head_dim, self.keys_read)
        found = {
            "k": seen,
            "v": 0 if self.latent else seen,
            "k_rope": self.cache_elements(self.rope_dim, self.keys_read) // self.kv_heads,
        }
        return tuple(
            found.get(item.name, size) for item, size in zip(self.present(), whole, strict=True)
        )

    @property
    def macs(self) -> int:
        return self.scores * (2 * self.head_dim + self.rope_dim)

    @property
    def vector_ops(self) -> int:
        return (1 + self.alibi + SOFTMAX_OPS) * self.scores


@dataclass(frozen=True)
class KvAppend(CacheUser):
    """New key or value rows written into their cache, head by head, in place.

    Shapes: new [batch*q_len, kv_heads*head_dim]; the cache of kv_capacity tokens (see CacheUser)
    is the second input and also the output. Only positions [position, position + q_len) are
    written, behind a common prefix; the rest keeps what it held. With `contexts`, the one of
    sequence s is contexts[s] - 1, and kv_capacity the longest context.
    """

    batch: int
    kv_heads: int
    q_len: int
    head_dim: int
    kv_capacity: int
    position: int = 0
    kv_dtype: str = ""
    page: int = 0
    prefix: int = 0
    page_seed: int = 0
    contexts: tuple[int, ...] = ()

    kind: ClassVar[str] = "kv_append"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("new"), Operand("cache", "cache"))
    dimensions: ClassVar[tuple[str, ...]] = (
        *("batch", "kv_heads", "q_len", "head_dim", "kv_capacity"),
    )

    def check_fields(self) -> None:
        whole(self.position, f"{self}: position", least=0)
        if self.position + self.q_len > self.kv_capacity:
            raise self.error(
                f"positions {self.position}..{self.position + self.q_len - 1}; "
                f"accepted: below kv_capacity {self.kv_capacity}"
            )
        self.check_cache()
        first = min(self.position_of(sequence) for sequence in range(self.batch))
        if first < self.prefix:
            raise self.error(
                f"position {first}; accepted: behind the common prefix of {self.prefix}"
            )
        if self.inputs[1] != self.outputs[0]:
            raise self.error(
                f"writes '{self.outputs[0]}'; accepted: its own cache input '{self.inputs[1]}'"
            )

    @property
    def cache_tokens(self) -> int:
        return self.kv_capacity

    def position_of(self, sequence: int) -> int:
        """Position of the first new token of a sequence."""
        return self.contexts[sequence] - 1 if self.contexts else self.position

    def rows_written(self) -> tuple[tuple[int, int], ...]:
        """Rows (first, last) of the cache, seen as [rows, head_dim], that it writes; ascending."""
        runs = [
            (rows.start, rows.stop - 1)
            for sequence in range(self.batch)
            for first in (self.position_of(sequence),)
            for head in range(self.kv_heads)
            for _, rows in self.cache_rows(sequence, head, first, first + self.q_len, self.kv_heads)
        ]
        return tuple(sorted(runs))

    @property
    def _new_elements(self) -> int:
        return self.batch * self.q_len * self.kv_heads * self.head_dim

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.batch * self.q_len, self.kv_heads * self.head_dim), self.output_shapes()[0]

    def output_shapes(self) -> tuple[Shape, ...]:
        return (self.cache_shape(self.head_dim, self.kv_heads),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        kept = self.kv_dtype or main
        return (tuple(DTYPES), (kept,)), ((kept,),)

    def elements_read(self) -> tuple[int, ...]:
        return self._new_elements, 0

    def elements_written(self) -> tuple[int, ...]:
        return (self._new_elements,)
