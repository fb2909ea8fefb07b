"""The feed-forward of a mixture of experts, as operators.

    router      logits = x W_r, in fp32; scores = softmax or sigmoid over all experts
    gate        weights of the chosen experts, from their scores
    dispatch    rows of x, expert after expert: each expert's tokens side by side (expert batching)
    experts     gated feed-forward of each expert on its rows: grouped products
    combine     weighted rows added up, token by token, in fp32
    shared      a feed-forward on all tokens, added

Choices that need no computation (experts that give nothing, experts that copy) are not dispatched:
their weights are masked out of the sum, those of copies multiply the token itself. In the sum they
fetch another row of their token and weigh it with zero, as vLLM's kernels do for such experts.

Sources: Mixtral (arXiv 2401.04088, §2.1), DeepSeekMoE (2401.06066, §3), DeepSeek-V3 (2412.19437,
§2.1.2), MoE++ (2410.07348, §3.1: zero and copy experts), LongCat-Flash (2509.01322, §2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelsim.workload.constants import IndexPattern
from accelsim.workload.operators import (
    Elementwise,
    EmbeddingGather,
    ExpertCombine,
    ExpertGate,
    Gemm,
    GroupedGemm,
    Softmax,
)
from accelsim.workload.routing import RoutedIds, Routing
from accelsim.workload.tensors import TensorSpec

if TYPE_CHECKING:
    from accelsim.workload.routing_choice import RoutingChoice
    from accelsim.workload.transformer import Builder
    from accelsim.workload.transformer_config import TransformerConfig

GATES_DTYPE = "fp32"
"""Format of logits, scores and weights: models compute their softmax and sigmoids in fp32."""


def expert_feed_forward(build: Builder, name: str, x: str) -> str:
    """What a layer's experts make of the rows of x [tokens, hidden]."""
    layer = _ExpertLayer(build, name, x)
    weights = layer.gate()
    routed = layer.combine(layer.experts(), weights)
    if not build.config.shared_ffn:
        return routed
    return build.combine(f"{name}.shared_add", routed, layer.shared(), "add")


class _ExpertLayer:
    """The operators of one layer's experts."""

    def __init__(self, build: Builder, name: str, x: str) -> None:
        self.build, self.config, self.name, self.x = build, build.config, name, x
        self.tokens, self.hidden = build.tensors[x].shape
        self.top_k = self.config.experts_per_token
        self.routing: Routing = build.routing_of_layer()
        self.counts = self.routing.counts

    def gate(self) -> str:
        """Weights of the chosen experts [tokens, top_k], fp32."""
        build, config, name = self.build, self.config, f"{self.name}.router"
        tokens, experts = self.tokens, config.routed_experts
        weight = build.tensor(f"{name}.weight", (self.hidden, experts), "weight")
        logits = build.emit(
            Gemm(name, (self.x, weight), (f"{name}.out",), m=tokens, n=experts, k=self.hidden),
            GATES_DTYPE,
        )
        label = f"{self.name}.scores"
        if config.scoring == "softmax":
            operator = Softmax(label, (logits,), (f"{label}.out",), tokens, experts)
            scores = build.emit(operator, GATES_DTYPE)
        else:
            scores = build.activate(label, logits, config.scoring, GATES_DTYPE)
        inputs = [scores, self.ids("chosen", tokens * self.top_k)]
        if config.gate_bias:
            inputs.append(build.tensor(f"{name}.bias", (experts,), "weight", GATES_DTYPE))
        return build.emit(
            ExpertGate(
                f"{self.name}.gate", tuple(inputs), (f"{self.name}.gate.out",),
                tokens=tokens, experts=experts, top_k=self.top_k,
                normalise=config.normalise_gates, scale=config.gate_scale,
            ),
            GATES_DTYPE,
        )  # fmt: skip

    def experts(self) -> str:
        """Rows of all experts that compute, expert after expert [visits, hidden]."""
        build, config, name = self.build, self.config, f"{self.name}.experts"
        if not (rows := sum(self.counts)):
            return self.x  # nothing is computed: what the sum fetches weighs zero
        gathered = build.emit(
            EmbeddingGather(
                f"{self.name}.dispatch", (self.x, self.ids("gathered", rows)),
                (f"{self.name}.dispatch.out",),
                vocab=self.tokens, hidden=self.hidden, tokens=rows,
            )
        )  # fmt: skip
        up = self.project(f"{name}.up_proj", gathered, config.expert_width)
        if config.gated:
            gate = self.project(f"{name}.gate_proj", gathered, config.expert_width)
            gate = build.activate(f"{name}.activation", gate, config.activation)
            inner = build.combine(f"{name}.gate", gate, up, "mul")
        else:
            inner = build.activate(f"{name}.activation", up, config.activation)
        return self.project(f"{name}.down_proj", inner, self.hidden)

    def project(self, name: str, x: str, n: int) -> str:
        """A projection of every expert's rows by its own weight."""
        k = self.build.tensors[x].shape[1]
        weight = self.build.projection(f"{name}.weight", (len(self.counts), k, n))
        return self.build.emit(
            GroupedGemm(name, (x, weight), (f"{name}.out",), m=self.counts, n=n, k=k)
        )

    def combine(self, rows: str, weights: str) -> str:
        """The weighted sum of what each token's experts gave [tokens, hidden]."""
        config, inputs = self.config, [rows]
        if config.zero_experts or config.copy_experts:
            inputs.append(self.masked("computing", weights))
        else:
            inputs.append(weights)
        inputs.append(self.ids("places", self.tokens * self.top_k))
        if config.copy_experts:
            inputs += [self.x, self.masked("copying", weights)]
        return self.weighted(f"{self.name}.combine", inputs, self.top_k)

    def masked(self, what: str, weights: str) -> str:
        """The weights of one sort of experts, zero elsewhere."""
        shape = self.tokens, self.top_k
        mask = f"{self.name}.{what}"
        self.build.tensors[mask] = TensorSpec(
            mask, shape, GATES_DTYPE, "constant", RoutedIds(self.routing, what)
        )
        name = f"{self.name}.{what}_weights"
        operator = Elementwise(name, (weights, mask), (f"{name}.out",), *shape, function="mul")
        return self.build.emit(operator, GATES_DTYPE)

    def weighted(self, name: str, inputs: list[str], top_k: int) -> str:
        """A weighted sum of rows of the first input, by weights and places."""
        table_rows = self.build.tensors[inputs[0]].shape[0]
        return self.build.emit(
            ExpertCombine(
                name, tuple(inputs), (f"{name}.out",),
                tokens=self.tokens, hidden=self.hidden, top_k=top_k, table_rows=table_rows,
            )
        )  # fmt: skip

    def shared(self) -> str:
        """The experts that every token visits, as one feed-forward, gated where the model does."""
        build, name = self.build, f"{self.name}.shared"
        out = build.dense(name, self.x, self.config.shared_ffn)
        if not self.config.shared_gate:
            return out
        gate = build.linear(f"{name}.router", self.x, 1, bias=False)
        gate = build.activate(f"{name}.scores", gate, "sigmoid")
        places = build.ids(f"{name}.places", self.tokens, IndexPattern(0, period=self.tokens))
        return self.weighted(f"{name}.gated", [out, gate, places], 1)

    def ids(self, what: str, count: int) -> str:
        """A list of int32 ids that follows from the routing."""
        return self.build.ids(f"{self.name}.{what}", count, RoutedIds(self.routing, what))


def routing_assumptions(
    config: TransformerConfig, choice: RoutingChoice, tokens: int
) -> tuple[str, ...]:
    """What a graph with experts takes for given, in plain words."""
    layers = config.layers - config.dense_layers
    choice.check_layers(layers)
    drawn = [choice.of_layer(config, tokens, i) for i in range(layers if choice.differs else 1)]
    most = max(routing.imbalance for routing in drawn)
    visited = [sum(count > 0 for count in routing.counts) for routing in drawn]
    least, largest = min(visited), max(visited)
    used = f"{least}" if least == largest else f"{least} to {largest}"
    untimed = "limits by groups and sorting tokens by expert are not"
    if not config.expert_groups:
        untimed = "sorting tokens by expert is not"
    found = [
        f"experts: {choice.words()}; {used} of {config.experts} experts have tokens,"
        f" the busiest {most:.2f} times the mean",
        "experts: what a token visits is given, so that its row may be fetched before the gate is"
        f" done; the selection among the scores is timed, {untimed}",
    ]
    if config.zero_experts or config.copy_experts:
        found.append("experts: a visit that computes nothing still fetches a row to weigh with 0")
    return tuple(found)
