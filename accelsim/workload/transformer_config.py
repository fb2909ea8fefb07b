"""Hyper-parameters of a transformer, the same for every model family, and its weight count."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from accelsim.errors import AccelsimError
from accelsim.workload._words import (
    did_you_mean,
    listed,
    parse_bool,
    parse_float,
    parse_text,
    parse_whole,
    shown,
    whole,
)
from accelsim.workload.constants import RopeScaling
from accelsim.workload.operators import ACTIVATIONS

FAMILIES = (
    *("gpt2", "opt", "bert", "llama", "mistral", "qwen2"),
    *("mixtral", "qwen2_moe", "deepseek_v2", "deepseek_v3"),
)
"""Families whose configuration can be read."""

SCORINGS = ("softmax", "sigmoid")

_COUNTS = ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab", "positions")
_OPTIONAL_COUNTS = (
    *("position_offset", "token_types", "experts", "experts_per_token", "expert_ffn"),
    *("shared_ffn", "dense_layers", "expert_groups", "groups_per_token"),
    *("zero_experts", "copy_experts", "q_lora_rank", "kv_lora_rank"),
    *("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
)
MAX_LAYERS = 10_000


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A transformer, normalised: what is multiplied with what, whatever its family calls it.

    The attention inner width is heads*head_dim, which need not equal `hidden` (GPT-3 13B).
    `ffn` is the feed-forward width; a gated feed-forward has a third projection beside the
    activation. `positions` is the length of a learned position table before `position_offset`
    unused rows, or the trained length of a rotary model.

    With `experts`, every layer but the first `dense_layers` has a router, `experts` feed-forwards
    of width `expert_ffn` (0: `ffn`), of which a token visits `experts_per_token`, and one of width
    `shared_ffn` that all tokens visit (with `shared_gate` times a sigmoid of their own). The router
    also chooses among `zero_experts`, which give nothing, and `copy_experts`, which give their
    input. Its scores are a softmax or sigmoids of the logits; the chosen ones are normalised to a
    sum of 1 (`normalise_gates`) and multiplied by `gate_scale`; `gate_bias` corrects the choice. A
    token chooses within `groups_per_token` of `expert_groups` groups.

    With `kv_lora_rank`, attention is latent (DeepSeek-V2, arXiv 2405.04434): head_dim is that of
    queries and keys, qk_nope_head_dim + qk_rope_head_dim.

    Raises:
        AccelsimError: when a field is out of range or two fields contradict each other.
    """

    name: str
    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    norm: str
    norm_eps: float
    activation: str
    gated: bool = False
    bias_qkv: bool = False
    bias_out: bool = False
    bias_ffn: bool = False
    causal: bool = True
    pre_norm: bool = True
    final_norm: bool = True
    embedding_norm: bool = False
    lm_head: bool = True
    tied_embeddings: bool = False
    rotary: bool = False
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    position_offset: int = 0
    token_types: int = 0
    pooler: bool = False
    sliding_window: int | None = None
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    shared_gate: bool = False
    dense_layers: int = 0
    zero_experts: int = 0
    copy_experts: int = 0
    scoring: str = "softmax"
    normalise_gates: bool = False
    gate_scale: float = 1.0
    gate_bias: bool = False
    expert_groups: int = 0
    groups_per_token: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0

    def __post_init__(self) -> None:
        for name in _COUNTS:
            whole(getattr(self, name), f"{self}: {name}")
        for name in _OPTIONAL_COUNTS:
            whole(getattr(self, name), f"{self}: {name}", least=0)
        if self.sliding_window is not None:
            whole(self.sliding_window, f"{self}: sliding_window")
        self._check_choices()
        self._check_agreement()

    def __str__(self) -> str:
        return f"transformer '{self.name}'"

    def _check_choices(self) -> None:
        choices = {
            "family": FAMILIES,
            "norm": ("layernorm", "rmsnorm"),
            "activation": ACTIVATIONS,
            "scoring": SCORINGS,
        }
        for name, accepted in choices.items():
            value = getattr(self, name)
            if value not in accepted:
                hint = did_you_mean(str(value), accepted)
                raise AccelsimError(
                    f"{self}: {name} is {shown(value)}{hint}; accepted: {listed(accepted)}"
                )

    def _check_agreement(self) -> None:
        if self.heads % self.kv_heads:
            raise AccelsimError(
                f"{self}: kv_heads is {self.kv_heads}; accepted: a divisor of heads {self.heads}"
            )
        if self.layers > MAX_LAYERS:
            raise AccelsimError(f"{self}: layers is {self.layers}; accepted: up to {MAX_LAYERS}")
        if self.rotary and self.head_dim % 2:
            raise AccelsimError(
                f"{self}: head_dim is {self.head_dim}; accepted with rotary positions: even"
            )
        if not (math.isfinite(self.rope_theta) and self.rope_theta > 0):
            raise AccelsimError(f"{self}: rope_theta is {self.rope_theta}; accepted: above 0")
        if not 0.0 <= self.norm_eps < 1.0:
            raise AccelsimError(
                f"{self}: norm_eps is {self.norm_eps}; accepted: at least 0 and below 1"
            )
        parts = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        for name in parts if self.kv_lora_rank else ():
            whole(getattr(self, name), f"{self}: with kv_lora_rank, {name}")
        if self.kv_lora_rank and self.v_head_dim != self.qk_nope_head_dim:
            raise AccelsimError(
                f"{self}: v_head_dim is {self.v_head_dim}; accepted: qk_nope_head_dim"
                f" {self.qk_nope_head_dim}, as in the published models"
            )
        self._check_experts()

    def _check_experts(self) -> None:
        """Raise AccelsimError where what is said about experts does not fit together."""
        routed, chosen = self.routed_experts, self.experts_per_token
        if chosen > routed:
            raise AccelsimError(
                f"{self}: experts_per_token is {chosen}; accepted: up to experts {routed}"
            )
        if not self.experts:
            for name in ("zero_experts", "copy_experts", "shared_ffn", "dense_layers"):
                if getattr(self, name):
                    raise AccelsimError(
                        f"{self}: {name} is {getattr(self, name)}; accepted without experts: 0"
                    )
            return
        if not chosen:
            raise AccelsimError(f"{self}: experts_per_token is 0; accepted: 1 to experts {routed}")
        if self.dense_layers > self.layers:
            raise AccelsimError(
                f"{self}: dense_layers is {self.dense_layers}; accepted: up to layers {self.layers}"
            )
        if not 0.0 < self.gate_scale < 1e6:
            raise AccelsimError(
                f"{self}: gate_scale is {self.gate_scale}; accepted: above 0 and below 1e6"
            )
        if self.bias_ffn:
            raise AccelsimError(f"{self}: bias_ffn is True; accepted with experts: false")
        groups, kept = self.expert_groups, self.groups_per_token
        fits = groups and routed % groups == 0 and kept <= groups
        if (groups or kept) and not (fits and chosen <= kept * (routed // groups)):
            raise AccelsimError(
                f"{self}: {kept} of {groups} groups of {routed} experts, {chosen} per token;"
                " accepted: groups of equal size, those kept with enough experts"
            )

    @property
    def routed_experts(self) -> int:
        """What a router chooses from: experts that compute, that give nothing, that copy."""
        return self.experts + self.zero_experts + self.copy_experts

    @property
    def expert_width(self) -> int:
        """Feed-forward width of one expert."""
        return self.expert_ffn or self.ffn

    def has_experts(self, layer: int) -> bool:
        """Whether a layer's feed-forward is a mixture of experts."""
        return self.experts > 0 and layer >= self.dense_layers

    @property
    def q_width(self) -> int:
        """Width of the query projection: heads * head_dim."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of the key projection and of the value projection: kv_heads * head_dim."""
        return self.kv_heads * self.head_dim

    @property
    def table_rows(self) -> int:
        """Rows of the learned position table, 0 for a rotary model."""
        return 0 if self.rotary else self.positions + self.position_offset

    @property
    def parameters(self) -> int:
        """Number of weights, tied weights counted once; all experts of a mixture included."""
        mixed = self.layers - self.dense_layers
        layers = mixed * self.layer_parameters + self.dense_layers * self._dense_layer_weights
        return self._embedding_weights + layers + self._head_weights

    @property
    def active_parameters(self) -> int:
        """Number of weights that one token meets: of the experts those that it visits, all of them
        with weights; of the embedding tables its rows."""
        tables = self.vocab * (not self.tied_embeddings) + self.table_rows + self.token_types
        unvisited = max(self.experts - self.experts_per_token, 0) * self._ffn_weights(
            self.expert_width
        )
        return (
            self.parameters
            - tables * self.hidden
            - (self.layers - self.dense_layers) * (unvisited if self.experts else 0)
        )

    @property
    def layer_parameters(self) -> int:
        """Number of weights of one layer, of one with experts if there are any."""
        if not self.experts:
            return self._dense_layer_weights
        router = (self.hidden + self.gate_bias) * self.routed_experts
        shared = self._ffn_weights(self.shared_ffn) if self.shared_ffn else 0
        shared += self.shared_gate * self.hidden
        experts = self.experts * self._ffn_weights(self.expert_width)
        return self._attention_weights + 2 * self._norm_weights + router + shared + experts

    @property
    def _dense_layer_weights(self) -> int:
        return self._attention_weights + 2 * self._norm_weights + self._ffn_weights(self.ffn)

    @property
    def _attention_weights(self) -> int:
        if self.kv_lora_rank:
            return self._latent_attention_weights
        weights = self.hidden * (2 * self.q_width + 2 * self.kv_width)
        weights += self.bias_qkv * (self.q_width + 2 * self.kv_width)
        return weights + self.bias_out * self.hidden

    @property
    def _latent_attention_weights(self) -> int:
        """Queries, the compressed keys and values with the shared rotary key, their norms, the
        expansion, and the output projection."""
        rank, compressed = self.q_lora_rank, self.kv_lora_rank
        query = self.heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        queries = rank * (self.hidden + 1 + query) if rank else self.hidden * query
        keys = self.hidden * (compressed + self.qk_rope_head_dim) + compressed
        expansion = compressed * self.heads * (self.qk_nope_head_dim + self.v_head_dim)
        return queries + keys + expansion + self.heads * self.v_head_dim * self.hidden

    @property
    def _norm_weights(self) -> int:
        return self.hidden * (2 if self.norm == "layernorm" else 1)

    def _ffn_weights(self, width: int) -> int:
        inward = 2 if self.gated else 1
        biases = self.bias_ffn * (inward * width + self.hidden)
        return (inward + 1) * self.hidden * width + biases

    @property
    def _embedding_weights(self) -> int:
        rows = self.vocab + self.table_rows + self.token_types
        return rows * self.hidden + self.embedding_norm * self._norm_weights

    @property
    def _head_weights(self) -> int:
        head = (self.lm_head and not self.tied_embeddings) * self.vocab * self.hidden
        pooler = self.pooler * (self.hidden + 1) * self.hidden
        return self.final_norm * self._norm_weights + head + pooler

    def overridden(self, changes: dict[str, object]) -> TransformerConfig:
        """The same transformer with some fields replaced, for scaled-down experiments.

        Values may be text, as typed on a command line. When `hidden` or `heads` changes,
        head_dim becomes hidden / heads, and kv_heads follows heads where they were equal,
        unless given too. The name records the changes.

        Raises:
            AccelsimError: unknown field, a value of the wrong type, or a contradiction.
        """
        if not changes:
            return self
        values = {name: self._parsed(name, value) for name, value in changes.items()}
        if "heads" in values and "kv_heads" not in values and self.kv_heads == self.heads:
            values["kv_heads"] = values["heads"]
        if ("heads" in values or "hidden" in values) and "head_dim" not in values:
            values["head_dim"] = self._derived_head_dim(values)
        text = ",".join(f"{name}={value}" for name, value in changes.items())
        return replace(self, name=f"{self.name}:{text}", **values)  # type: ignore[arg-type]

    def _derived_head_dim(self, values: dict[str, object]) -> int:
        hidden = whole(values.get("hidden", self.hidden), f"{self}: hidden")
        heads = whole(values.get("heads", self.heads), f"{self}: heads")
        if hidden % heads:
            raise AccelsimError(
                f"{self}: hidden {hidden} is not a multiple of heads {heads}; "
                "accepted: a multiple, or an explicit head_dim"
            )
        return hidden // heads

    def _parsed(self, name: str, value: object) -> object:
        kinds = {field.name: str(field.type) for field in fields(self)}
        if name not in OVERRIDABLE:
            hint = did_you_mean(name, OVERRIDABLE)
            raise AccelsimError(
                f"{self}: unknown key '{name}'{hint}; accepted: {listed(OVERRIDABLE)}"
            )
        if kinds[name] == "int | None" and value in (None, "none"):
            return None
        return _PARSERS[kinds[name].removesuffix(" | None")](value, f"{self}: {name}")


OVERRIDABLE = tuple(
    field.name
    for field in fields(TransformerConfig)
    if field.name not in ("name", "family", "rope_scaling")
)
"""Fields that a user may replace by key=value."""


def _parse_count(value: object, what: str) -> int:
    return parse_whole(value, what, least=0)


_PARSERS = {"int": _parse_count, "float": parse_float, "bool": parse_bool, "str": parse_text}
