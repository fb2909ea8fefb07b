"""Transformer graphs of all families from one normalised config; experts: workload.experts.

Weights of projections are stored [in, out], so that y = x @ w; only a tied language-model head
reads the embedding table [vocab, hidden] transposed. Query, key and value are three projections
(GPT-2 publishes them fused; the arithmetic and the weight count are the same).
"""

from __future__ import annotations

from dataclasses import replace

from accelsim.workload.attention_layers import attention_layer
from accelsim.workload.constants import ConstantValues, IndexList, IndexPattern
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
from accelsim.workload.parallel import Parallel, device_part
from accelsim.workload.passes import LOGITS, PHASES, Pass, forward_pass
from accelsim.workload.routing import Routing
from accelsim.workload.routing_choice import RoutingChoice
from accelsim.workload.tensors import Shape, TensorSpec
from accelsim.workload.transformer_config import TransformerConfig

__all__ = ["LOGITS", "PHASES", "Pass", "TransformerConfig", "build_transformer", "forward_pass"]


def build_transformer(
    config: TransformerConfig,
    step: Pass,
    routing: RoutingChoice | None = None,
    spread: Parallel | None = None,
) -> Graph:
    """The operators of one forward pass of a transformer.

    The graph reads `token_ids` int32 [batch*q_len] (sequence-major) and the KV caches, which
    hold the earlier positions, and gives `logits` [batch or batch*q_len, vocab]; an encoder
    gives `sequence` [batch*q_len, hidden] and, with a pooler, `pooled` [batch, hidden].
    `routing` says which experts tokens visit, by default a uniform draw for all layers. With
    `spread` the graph is that of one device; stages but the first read `hidden_states` [batch*
    q_len, hidden] instead of ids, stages but the last give them.

    Raises:
        AccelsimError: a routing or a spread that does not fit.
    """
    return Builder(config, step, routing or RoutingChoice(), spread or Parallel()).graph()


class Builder:
    """Collects the tensors and operators of one pass, layer by layer."""

    def __init__(
        self, config: TransformerConfig, step: Pass, routing: RoutingChoice, spread: Parallel
    ) -> None:
        self.config = device_part(config, spread)
        self.step = step
        self.routing = routing
        self.spread = spread
        self.reduced = 0
        self.tensors: dict[str, TensorSpec] = {}
        self.operators: list[Operator] = []
        self.layer: int | None = None

    def graph(self) -> Graph:
        """The finished graph."""
        x = self.embed() if self.spread.first else self.handed_on()
        for layer in range(self.config.layers):
            self.layer = layer
            x = self.decoder_layer(x, f"layer{layer}")
        self.layer = None
        if self.spread.last:
            self.head(x)
        else:
            self.finish(x, "hidden_states_out")
        settings = self.step.settings | self.spread.settings
        rows, hidden = self.step.rows, self.config.hidden
        words = self.spread.words(self.reduced, rows, hidden, self.step.dtype)
        assumptions = self.step.assumptions + words
        if self.config.experts:
            settings |= self.routing.settings
            assumptions += routing_assumptions(self.config, self.routing, self.step.rows)
        return Graph(self.config.name, self.tensors, tuple(self.operators), settings, assumptions)

    def tensor(self, name: str, shape: Shape, role: str, dtype: str | None = None) -> str:
        """Declare a tensor once and return its name."""
        self.tensors.setdefault(name, TensorSpec(name, shape, dtype or self.step.dtype, role))
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
        inputs = [x, self.tensor(f"{name}.weight", (k, n), "weight")]
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

    def all_reduce(self, name: str, part: str) -> str:
        """A result of all devices from this one's part of the sum: the others' parts arrive as an
        input."""
        if self.spread.tp == 1:
            return part
        self.reduced += 1
        others = self.tensor(f"{name}.others", self.tensors[part].shape, "input")
        return self.combine(name, part, others, "add")

    def handed_on(self) -> str:
        """The rows that the stage before hands on."""
        return self.tensor("hidden_states", (self.step.rows, self.config.hidden), "input")

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
        x = self.all_reduce("embedding_all_reduce", x)
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
        first, offset = step.position, config.position_offset
        pattern: ConstantValues = IndexPattern(first + offset, period=step.q_len)
        if step.positions:
            pattern = IndexList(tuple(p + offset for p in step.positions))
        ids = self.ids("position_ids", step.rows, pattern)
        return self.gather("position_embedding", table, ids)

    def decoder_layer(self, x: str, name: str) -> str:
        """One layer: attention and feed-forward, each with its norm and residual."""
        branches = ((attention_layer, f"{name}.attention"), (feed_forward, f"{name}.ffn"))
        for branch, label in branches:
            if self.config.pre_norm:
                inner = branch(self, label, self.normalise(f"{label}_norm", x))
                inner = self.all_reduce(f"{label}_all_reduce", inner)
                x = self.residual(f"{label}_residual", inner, x)
            else:
                inner = self.all_reduce(f"{label}_all_reduce", branch(self, label, x))
                x = self.residual(f"{label}_residual", inner, x)
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
        inputs, n = (x, self.tensor("embedding.weight", (config.vocab, k), "weight")), config.vocab
        return self.emit(Gemm("lm_head", inputs, ("lm_head.out",), m=m, n=n, k=k, transpose_b=True))


def feed_forward(build: Builder, name: str, x: str) -> str:
    """One feed-forward for all tokens, or a mixture of experts."""
    if build.layer is not None and build.config.has_experts(build.layer):
        return expert_feed_forward(build, name, x)
    return build.dense(name, x, build.config.ffn)
