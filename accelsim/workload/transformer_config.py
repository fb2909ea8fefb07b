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

FAMILIES = ("gpt2", "opt", "bert", "llama", "mistral", "qwen2", "mixtral")
"""Families whose configuration can be read; mixtral has no graph yet (expert routing)."""

_COUNTS = ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab", "positions")
MAX_LAYERS = 10_000


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A transformer, normalised: what is multiplied with what, whatever its family calls it.

    The attention inner width is heads*head_dim, which need not equal `hidden` (GPT-3 13B).
    `ffn` is the feed-forward width; a gated feed-forward has a third projection beside the
    activation. `positions` is the length of a learned position table before `position_offset`
    unused rows, or the trained length of a rotary model.

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

    def __post_init__(self) -> None:
        for name in _COUNTS:
            whole(getattr(self, name), f"{self}: {name}")
        for name in ("position_offset", "token_types", "experts", "experts_per_token"):
            whole(getattr(self, name), f"{self}: {name}", least=0)
        if self.sliding_window is not None:
            whole(self.sliding_window, f"{self}: sliding_window")
        self._check_choices()
        self._check_agreement()

    def __str__(self) -> str:
        return f"transformer '{self.name}'"

    def _check_choices(self) -> None:
        choices = {"family": FAMILIES, "norm": ("layernorm", "rmsnorm"), "activation": ACTIVATIONS}
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
        if self.experts_per_token > self.experts:
            raise AccelsimError(
                f"{self}: experts_per_token is {self.experts_per_token}; "
                f"accepted: up to experts {self.experts}"
            )

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
        return self._embedding_weights + self.layers * self.layer_parameters + self._head_weights

    @property
    def layer_parameters(self) -> int:
        """Number of weights of one layer."""
        attention = self.hidden * (2 * self.q_width + 2 * self.kv_width)
        attention += self.bias_qkv * (self.q_width + 2 * self.kv_width)
        attention += self.bias_out * self.hidden
        router = self.hidden * self.experts
        return (
            attention + router + max(self.experts, 1) * self._ffn_weights + 2 * self._norm_weights
        )

    @property
    def _norm_weights(self) -> int:
        return self.hidden * (2 if self.norm == "layernorm" else 1)

    @property
    def _ffn_weights(self) -> int:
        inward = 2 if self.gated else 1
        biases = self.bias_ffn * (inward * self.ffn + self.hidden)
        return (inward + 1) * self.hidden * self.ffn + biases

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
