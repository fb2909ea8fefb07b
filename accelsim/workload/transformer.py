"""Transformer graphs of all families from one normalised config; experts: workload.experts.

Weights of projections are stored [in, out], so that y = x @ w; only a tied language-model head
reads the embedding table [vocab, hidden] transposed. Query, key and value are three projections
(GPT-2 publishes them fused; the arithmetic and the weight count are the same).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from accelsim.errors import AccelsimError
from accelsim.workload._words import did_you_mean, listed, parse_whole, shown
from accelsim.workload.attention_layers import attention_layer
from accelsim.workload.coding import Coding, coding_assumptions, coding_of
from accelsim.workload.constants import ConstantValues, IndexPattern
from accelsim.workload.experts import expert_feed_forward, routing_assumptions
from accelsim.workload.graph import Graph
from accelsim.workload.operators import (
    Activation,
    Elementwise,
    EmbeddingGather,
    Gemm,
    LayerNorm,
    Operator,
    Residual,
    RmsNorm,
)
from accelsim.workload.routing import Routing
from accelsim.workload.routing_choice import RoutingChoice
from accelsim.workload.tensors import Shape, TensorSpec, dtype_named
from accelsim.workload.transformer_config import TransformerConfig

PHASES = ("prefill", "decode", "encode")
LOGITS = ("last", "all")
DEFAULT_TOKENS = 512
DEFAULT_CONTEXT = 1024
UNCODED = "embeddings, routers, norms and the head are stored in {dtype}, not coded"

__all__ = ["LOGITS", "PHASES", "Pass", "TransformerConfig", "build_transformer", "forward_pass"]


@dataclass(frozen=True)
class Pass:
    """One forward pass: how many sequences, which positions are new, what is computed.

    Attributes:
        phase: "prefill", "decode" or "encode".
        batch: sequences.
        q_len: new tokens per sequence.
        kv_len: tokens per sequence that attention sees, the new ones included.
        dtype: storage format of weights, activations and cache.
        logits: "last" computes the language-model head for the last token only, or "all".
        kv_dtype: storage format of the cache where it is another one ("").
        page: tokens of a page of the cache, 0 if sequences lie in one piece.
        prefix: tokens at the beginning of the context that all sequences have in common.
        coding: how the weights of the layers' projections are stored, None in `dtype`.
    """

    phase: str
    batch: int
    q_len: int
    kv_len: int
    dtype: str
    logits: str
    kv_dtype: str = ""
    page: int = 0
    prefix: int = 0
    coding: Coding | None = None

    @property
    def position(self) -> int:
        """Position of the first new token."""
        return self.kv_len - self.q_len

    @property
    def rows(self) -> int:
        """Rows of the activation matrices: new tokens of all sequences."""
        return self.batch * self.q_len

    @property
    def settings(self) -> dict[str, str | int]:
        """What was asked for, as a report prints it."""
        length = {"context": self.kv_len} if self.phase == "decode" else {"tokens": self.q_len}
        cache: dict[str, str | int] = {"kv_dtype": self.kv_dtype}
        cache |= {"page": self.page, "prefix": self.prefix}
        told: dict[str, str | int] = {"phase": self.phase, "batch": self.batch, **length}
        told["dtype"] = self.dtype
        return told | {key: value for key, value in (cache | self._weights).items() if value}

    @property
    def _weights(self) -> dict[str, str | int]:
        """Settings of coded weights."""
        if self.coding is None:
            return {}
        told: dict[str, str | int] = {"weights": self.coding.encoding}
        if self.coding.sparsity and not self.coding.code.fixed:
            told |= {"sparsity": str(self.coding.sparsity)}
            told |= {"sparsity_seed": self.coding.sparsity.seed}
        return told


def forward_pass(
    config: TransformerConfig,
    *,
    phase: str | None = None,
    batch: object = 1,
    tokens: object = None,
    context: object = None,
    dtype: str = "bf16",
    logits: str = "last",
    kv_dtype: str = "",
    page: object = 0,
    prefix: object = 0,
    weights: str = "",
    sparsity: object = "",
    sparsity_seed: object = 0,
) -> Pass:
    """The pass that a user's words describe, checked against the model.

    Args:
        phase: "prefill" (`tokens` new tokens per sequence into an empty cache), "decode" (one
            new token per sequence; `context` counts the tokens in the cache after it was
            appended, so the new token is the last of the context), or "encode" for BERT (all
            tokens see each other). By default prefill, or encode for BERT.
        tokens: new tokens per sequence, by default 512; not for decode.
        context: tokens attended to by the new one, itself included, by default 1024.
        dtype: fp32, fp16 or bf16.
        logits: "last" or "all": positions for which a decoder computes the vocabulary logits.
        kv_dtype: format of the KV cache, by default `dtype`; integers too.
        page: tokens of a page of the cache (PagedAttention), by default no pages.
        prefix: tokens, in whole pages, with which all sequences begin and which the cache holds
            once. In a prefill they are there already and `tokens` come behind them.
        weights: encoding in which the layers' projections are stored, e.g. "int4:g128".
        sparsity: what of them is kept: N:M, or a density at positions drawn by `sparsity_seed`.

    Raises:
        AccelsimError: unknown word, a size that is no whole number, or one beyond the model.
    """
    default = "prefill" if config.causal else "encode"
    chosen = _choice(config, "phase", default if phase is None else phase, PHASES)
    _check_phase(config, chosen, tokens, context)
    if not dtype_named(dtype, str(config)).is_float:
        raise AccelsimError(f"{config}: dtype is '{dtype}'; accepted: fp32, fp16, bf16")
    if chosen == "decode":
        q_len = 1
        kv_len = parse_whole(DEFAULT_CONTEXT if context is None else context, f"{config}: context")
    else:
        q_len = parse_whole(DEFAULT_TOKENS if tokens is None else tokens, f"{config}: tokens")
        kv_len = q_len
    paged = {
        "page": parse_whole(page, f"{config}: page", least=0),
        "prefix": parse_whole(prefix, f"{config}: prefix", least=0),
    }
    stored = {"encoding": weights, "sparsity": sparsity, "sparsity_seed": sparsity_seed}
    if chosen == "prefill":
        kv_len += paged["prefix"]
    _check_length(config, kv_len)
    _check_cache(config, kv_len - q_len, kv_dtype, **paged)
    return Pass(
        phase=chosen,
        batch=parse_whole(batch, f"{config}: batch"),
        q_len=q_len,
        kv_len=kv_len,
        dtype=dtype,
        logits=_choice(config, "logits", logits, LOGITS),
        kv_dtype="" if kv_dtype == dtype else kv_dtype,
        coding=coding_of(stored, str(config)),
        **paged,
    )


def _choice(config: TransformerConfig, what: str, value: str, accepted: tuple[str, ...]) -> str:
    if value in accepted:
        return value
    hint = did_you_mean(str(value), accepted)
    raise AccelsimError(f"{config}: {what} is {shown(value)}{hint}; accepted: {listed(accepted)}")


def _check_phase(config: TransformerConfig, phase: str, tokens: object, context: object) -> None:
    if config.causal == (phase == "encode"):
        accepted = "prefill, decode" if config.causal else "encode"
        raise AccelsimError(f"{config}: phase is '{phase}'; accepted for it: {accepted}")
    if phase == "decode" and tokens is not None:
        raise AccelsimError(f"{config}: decode takes one token per sequence; accepted: context=")
    if phase != "decode" and context is not None:
        raise AccelsimError(f"{config}: {phase} starts from an empty cache; accepted: tokens=")


def _check_cache(
    config: TransformerConfig, held: int, kv_dtype: str, page: int, prefix: int
) -> None:
    """A cache that holds ``held`` tokens before the pass."""
    if kv_dtype:
        dtype_named(kv_dtype, f"{config}: kv_dtype")
    if prefix and not page:
        raise AccelsimError(f"{config}: prefix {prefix}; accepted: with page=, tokens of a page")
    if prefix and (prefix % page or prefix > held):
        raise AccelsimError(
            f"{config}: prefix {prefix}; accepted: whole pages of {page}, at most the {held} tokens"
            " before the new ones"
        )


def _check_length(config: TransformerConfig, kv_len: int) -> None:
    if not config.rotary and kv_len > config.positions:
        raise AccelsimError(
            f"{config}: {kv_len} tokens; accepted: up to its {config.positions} learned positions"
        )


def build_transformer(
    config: TransformerConfig, step: Pass, routing: RoutingChoice | None = None
) -> Graph:
    """The operators of one forward pass of a transformer.

    The graph reads `token_ids` int32 [batch*q_len] (sequence-major) and the KV caches, which
    hold the earlier positions, and gives `logits` [batch or batch*q_len, vocab]; an encoder
    gives `sequence` [batch*q_len, hidden] and, with a pooler, `pooled` [batch, hidden].
    `routing` says which experts tokens visit, by default a uniform draw for all layers.

    Raises:
        AccelsimError: a routing that does not fit.
    """
    return Builder(config, step, routing or RoutingChoice()).graph()


class Builder:
    """Collects the tensors and operators of one pass, layer by layer."""

    def __init__(self, config: TransformerConfig, step: Pass, routing: RoutingChoice) -> None:
        self.config = config
        self.step = step
        self.routing = routing
        self.tensors: dict[str, TensorSpec] = {}
        self.operators: list[Operator] = []
        self.layer: int | None = None

    def graph(self) -> Graph:
        """The finished graph."""
        x = self.embed()
        for layer in range(self.config.layers):
            self.layer = layer
            x = self.decoder_layer(x, f"layer{layer}")
        self.layer = None
        self.head(x)
        settings = dict(self.step.settings)
        assumptions: tuple[str, ...] = ()
        if self.config.experts:
            settings |= self.routing.settings
            assumptions = routing_assumptions(self.config, self.routing, self.step.rows)
        assumptions += coding_assumptions([*self.tensors.values()])
        if self.step.coding:
            assumptions += (UNCODED.format(dtype=self.step.dtype),)
        return Graph(self.config.name, self.tensors, tuple(self.operators), settings, assumptions)

    def tensor(self, name: str, shape: Shape, role: str, dtype: str | None = None) -> str:
        """Declare a tensor once and return its name."""
        self.tensors.setdefault(name, TensorSpec(name, shape, dtype or self.step.dtype, role))
        return name

    def projection(self, name: str, shape: Shape) -> str:
        """Declare the weight of a projection, which within the layers may be coded."""
        self.tensor(name, shape, "weight")
        # A gate, which projects onto one number, is small, and all that follows depends on it.
        if self.layer is not None and shape[-1] > 1:
            self.tensors[name] = replace(self.tensors[name], coding=self.step.coding)
        return name

    def ids(self, name: str, count: int, pattern: ConstantValues) -> str:
        """Declare a constant list of int32 row numbers."""
        self.tensors[name] = TensorSpec(name, (count,), "int32", "constant", pattern)
        return name

    def emit(self, operator: Operator, dtype: str | None = None) -> str:
        """Append an operator, declare its result, and return the result's name."""
        self.operators.append(replace(operator, layer=self.layer))
        return self.tensor(operator.output, operator.output_shapes()[0], "activation", dtype)

    def finish(self, name: str, result: str) -> None:
        """Make a tensor a result of the graph, under a name that users know."""
        self.tensors[result] = replace(self.tensors.pop(name), name=result, role="output")
        for index, op in enumerate(self.operators):
            if name in (*op.inputs, *op.outputs):
                self.operators[index] = replace(
                    op,
                    inputs=tuple(result if x == name else x for x in op.inputs),
                    outputs=tuple(result if x == name else x for x in op.outputs),
                )

    def linear(self, name: str, x: str, n: int, *, bias: bool) -> str:
        """A projection of every row of x to width n."""
        m, k = self.tensors[x].shape
        inputs = [x, self.projection(f"{name}.weight", (k, n))]
        if bias:
            inputs.append(self.tensor(f"{name}.bias", (n,), "weight"))
        return self.emit(Gemm(name, tuple(inputs), (f"{name}.out",), m=m, n=n, k=k))

    def normalise(self, name: str, x: str) -> str:
        """The family's norm over every row of x."""
        rows, cols = self.tensors[x].shape
        weight = self.tensor(f"{name}.weight", (cols,), "weight")
        eps = self.config.norm_eps
        if self.config.norm == "rmsnorm":
            return self.emit(RmsNorm(name, (x, weight), (f"{name}.out",), rows, cols, eps=eps))
        bias = self.tensor(f"{name}.bias", (cols,), "weight")
        return self.emit(LayerNorm(name, (x, weight, bias), (f"{name}.out",), rows, cols, eps=eps))

    def activate(self, name: str, x: str, function: str, dtype: str | None = None) -> str:
        """A scalar function on every element of x."""
        rows, cols = self.tensors[x].shape
        operator = Activation(name, (x,), (f"{name}.out",), rows, cols, function=function)
        return self.emit(operator, dtype)

    def combine(self, name: str, a: str, b: str, function: str) -> str:
        """Two matrices of equal shape, element by element."""
        rows, cols = self.tensors[a].shape
        out = (f"{name}.out",)
        return self.emit(Elementwise(name, (a, b), out, rows, cols, function=function))

    def residual(self, name: str, branch: str, skipped: str) -> str:
        """The end of a residual branch."""
        rows, cols = self.tensors[branch].shape
        return self.emit(Residual(name, (branch, skipped), (f"{name}.out",), rows, cols))

    def gather(self, name: str, table: str, ids: str) -> str:
        """Rows of a table."""
        vocab, hidden = self.tensors[table].shape
        tokens = self.tensors[ids].shape[0]
        out = (f"{name}.out",)
        return self.emit(
            EmbeddingGather(name, (table, ids), out, vocab=vocab, hidden=hidden, tokens=tokens)
        )

    def embed(self) -> str:
        """Token, segment and position embeddings, summed in the published order."""
        config, rows = self.config, self.step.rows
        table = self.tensor("embedding.weight", (config.vocab, config.hidden), "weight")
        x = self.gather("embedding", table, self.tensor("token_ids", (rows,), "input", "int32"))
        if config.token_types:
            shape = (config.token_types, config.hidden)
            types = self.tensor("segment_embedding.weight", shape, "weight")
            ids = self.tensor("segment_ids", (rows,), "input", "int32")
            x = self.combine("segment_add", x, self.gather("segment_embedding", types, ids), "add")
        if not config.rotary:
            x = self.combine("position_add", x, self.positions(), "add")
        return self.normalise("embedding_norm", x) if config.embedding_norm else x

    def positions(self) -> str:
        """Learned position embeddings of the new tokens."""
        config, step = self.config, self.step
        shape = (config.table_rows, config.hidden)
        table = self.tensor("position_embedding.weight", shape, "weight")
        pattern = IndexPattern(step.position + config.position_offset, period=step.q_len)
        ids = self.ids("position_ids", step.rows, pattern)
        return self.gather("position_embedding", table, ids)

    def decoder_layer(self, x: str, name: str) -> str:
        """One layer: attention and feed-forward, each with its norm and residual."""
        branches = ((attention_layer, f"{name}.attention"), (feed_forward, f"{name}.ffn"))
        for branch, label in branches:
            if self.config.pre_norm:
                inner = branch(self, label, self.normalise(f"{label}_norm", x))
                x = self.residual(f"{label}_residual", inner, x)
            else:
                x = self.residual(f"{label}_residual", branch(self, label, x), x)
                x = self.normalise(f"{label}_norm", x)
        return x

    def routing_of_layer(self) -> Routing:
        """Which experts the tokens visit in the current layer."""
        index = (self.layer or 0) - self.config.dense_layers
        return self.routing.of_layer(self.config, self.step.rows, index)

    def dense(self, name: str, x: str, width: int) -> str:
        """Up projection, activation (times a second projection when gated), down projection."""
        config = self.config
        bias = config.bias_ffn
        if config.gated:
            gate = self.linear(f"{name}.gate_proj", x, width, bias=bias)
            up = self.linear(f"{name}.up_proj", x, width, bias=bias)
            gate = self.activate(f"{name}.activation", gate, config.activation)
            inner = self.combine(f"{name}.gate", gate, up, "mul")
        else:
            up = self.linear(f"{name}.up_proj", x, width, bias=bias)
            inner = self.activate(f"{name}.activation", up, config.activation)
        return self.linear(f"{name}.down_proj", inner, config.hidden, bias=bias)

    def head(self, x: str) -> None:
        """What follows the layers: final norm and logits, or the pooler."""
        if self.config.final_norm:
            x = self.normalise("final_norm", x)
        if self.config.pooler:
            first = self.pick("first_token", x, 0)
            pooled = self.linear("pooler", first, self.config.hidden, bias=True)
            self.finish(self.activate("pooler_activation", pooled, "tanh"), "pooled")
        if not self.config.lm_head:
            self.finish(x, "sequence")
            return
        if self.step.logits == "last":
            x = self.pick("last_token", x, self.step.q_len - 1)
        self.finish(self.logits(x), "logits")

    def pick(self, name: str, x: str, index: int) -> str:
        """Row `index` of every sequence, as a matrix [batch, hidden]."""
        step = self.step
        if step.q_len == 1:
            return x
        pattern = IndexPattern(index, step.q_len, step.batch)
        return self.gather(name, x, self.ids(f"{name}_rows", step.batch, pattern))

    def logits(self, x: str) -> str:
        """Scores over the vocabulary, with the embedding table when tied."""
        config = self.config
        if not config.tied_embeddings:
            return self.linear("lm_head", x, config.vocab, bias=False)
        m, k = self.tensors[x].shape
        inputs, n = (x, "embedding.weight"), config.vocab
        return self.emit(Gemm("lm_head", inputs, ("lm_head.out",), m=m, n=n, k=k, transpose_b=True))


def feed_forward(build: Builder, name: str, x: str) -> str:
    """One feed-forward for all tokens, or a mixture of experts."""
    if build.layer is not None and build.config.has_experts(build.layer):
        return expert_feed_forward(build, name, x)
    return build.dense(name, x, build.config.ffn)
