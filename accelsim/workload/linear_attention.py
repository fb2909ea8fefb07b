"""Linear attention: states of a fixed size instead of a growing cache, plain, decayed or gated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from accelsim.workload._words import listed, whole
from accelsim.workload.operator_base import DtypeRule, Operand, Operator, float_dtypes
from accelsim.workload.tensors import Shape

DECAYS = ("none", "fixed", "gated")
"""How a state fades from token to token: not at all, by a constant of the head, by an operand."""


class Recurrence(Operator):
    """What linear attention and the update of its state have in common: the recurrence

        S_t = a_t S_(t-1) + k_t v_t^T        S [head_dim, value_dim], per sequence and head

    with a_t = 1 (`decay` none), a_t = 1 - 2^(-5 - h) of head h (fixed), or a_t = exp(g_t) (gated)
    with the logarithm g_t <= 0, finite, of the operand `log_decay` fp32 [batch*q_len, heads].

    Shapes: k [batch*q_len, heads*head_dim], v [batch*q_len, heads*value_dim], state fp32
    [batch, heads, head_dim, value_dim]. `value_dim` 0 stands for head_dim, `decay` "" for none.
    `chunk` is the number of tokens that a mapper takes at once (0: it chooses), cut where a
    sequence is shorter.

    Sources: Katharopoulos et al., Transformers are RNNs, ICML 2020 (none); Sun et al., Retentive
    Network, 2023, arXiv 2307.08621, section 2.2 (fixed); Dao and Gu, Transformers are SSMs, 2024,
    arXiv 2405.21060, section 6 (a gate per head and token). A gate per element of the key, as in
    Yang et al., Gated Linear Attention Transformers, 2023, arXiv 2312.06635, is left out.
    """

    batch: int
    heads: int
    q_len: int
    head_dim: int
    value_dim: int
    decay: str
    chunk: int
    state: bool

    @classmethod
    def implied(cls, fields: Mapping[str, object]) -> frozenset[str]:
        gates = {"log_decay"} if fields.get("decay") == "gated" else set()
        return frozenset(gates | ({"state"} if fields.get("state") else set()))

    def check_recurrence(self) -> None:
        """Raise AccelsimError where a field is none of the accepted."""
        whole(self.chunk, f"{self}: chunk", least=0)
        if not self.value_dim:
            object.__setattr__(self, "value_dim", self.head_dim)
        whole(self.value_dim, f"{self}: value_dim")
        if not self.decay:
            object.__setattr__(self, "decay", DECAYS[0])
        if self.decay not in DECAYS:
            raise self.error(f"decay {self.decay!r}; accepted: {listed(DECAYS)}")

    def present(self) -> tuple[Operand, ...]:
        has = self.implied(vars(self))
        return tuple(item for item in self.operands if not item.optional or item.name in has)

    @property
    def decayed(self) -> bool:
        """Whether a state fades at all."""
        return self.decay != "none"

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return self.batch * self.q_len

    @property
    def log_decays(self) -> tuple[float, ...]:
        """Logarithm of the fixed decay of every head."""
        return tuple(math.log1p(-(2.0 ** (-5 - h))) for h in range(self.heads))

    @property
    def state_shape(self) -> Shape:
        """Shape of the states of all sequences and heads."""
        return (self.batch, self.heads, self.head_dim, self.value_dim)

    def input_shapes(self) -> tuple[Shape, ...]:
        keys: Shape = (self.tokens, self.heads * self.head_dim)
        shapes: dict[str, Shape] = {
            "q": keys,
            "k": keys,
            "v": (self.tokens, self.heads * self.value_dim),
            "log_decay": (self.tokens, self.heads),
            "state": self.state_shape,
        }
        return tuple(shapes[item.name] for item in self.present())

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        """Floating point; gates and states in fp32."""
        fixed = {"log_decay": "fp32", "state": "fp32"}
        rest = tuple((fixed.get(item.name, main),) for item in self.present()[1:])
        return (float_dtypes(), *rest), ((self._result(main),),)

    def _result(self, main: str) -> str:
        return main


@dataclass(frozen=True)
class LinearAttention(Recurrence):
    """o_t = scale q_t^T S_t of the states of a Recurrence, from S_0 = 0 or, with `state`, from the
    states that this operand holds.

    Shapes: q as k, output as v, see Recurrence. `scale` 0 stands for 1/sqrt(head_dim). Feature maps
    of q and k, and a normaliser, are operators of their own.
    """

    batch: int
    heads: int
    q_len: int
    head_dim: int
    value_dim: int = 0
    decay: str = ""
    chunk: int = 0
    scale: float = 0.0
    state: bool = False

    kind: ClassVar[str] = "linear_attention"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("q"),
        Operand("k"),
        Operand("v"),
        Operand("log_decay", optional=True),
        Operand("state", optional=True),
    )
    dimensions: ClassVar[tuple[str, ...]] = ("batch", "heads", "q_len", "head_dim")

    def check_fields(self) -> None:
        self.check_recurrence()
        if not math.isfinite(self.scale):
            raise self.error(f"scale {self.scale}; accepted: a finite number")
        if self.scale == 0.0:
            object.__setattr__(self, "scale", 1.0 / math.sqrt(self.head_dim))

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.tokens, self.heads * self.value_dim),)

    @property
    def macs(self) -> int:
        """Of the recurrence, or of all pairs of tokens if they are cheaper.

        Chunks mix both, so that no length of them takes fewer.
        """
        d, e, n = self.head_dim, self.value_dim, self.q_len
        pairs = n * (n + 1) // 2 * (d + e) + self.state * n * d * e
        return self.batch * self.heads * min(2 * n * d * e, pairs)

    @property
    def vector_ops(self) -> int:
        """Scaling, and the decay of what is kept and of what is read."""
        return self.tokens * self.heads * (self.value_dim + 2 * self.decayed)


@dataclass(frozen=True)
class StateUpdate(Recurrence):
    """The states after the last token of a Recurrence, from S_0 = 0 or, with `state`, from the
    states of this operand, as a tensor of its own: what decodes token by token swaps both.

    Shapes: k, v, and log_decay if it is gated; state and output fp32, see Recurrence. Keys and
    values are read once more than by the LinearAttention of the same tokens.
    """

    batch: int
    heads: int
    q_len: int
    head_dim: int
    value_dim: int = 0
    decay: str = ""
    chunk: int = 0
    state: bool = False

    kind: ClassVar[str] = "state_update"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("k"),
        Operand("v"),
        Operand("log_decay", optional=True),
        Operand("state", optional=True),
    )
    dimensions: ClassVar[tuple[str, ...]] = ("batch", "heads", "q_len", "head_dim")

    def check_fields(self) -> None:
        self.check_recurrence()

    def output_shapes(self) -> tuple[Shape, ...]:
        return (self.state_shape,)

    def _result(self, main: str) -> str:
        return "fp32"

    @property
    def macs(self) -> int:
        return self.tokens * self.heads * self.head_dim * self.value_dim

    @property
    def vector_ops(self) -> int:
        """Fewest with one chunk: the decay of the first state."""
        faded = self.decayed and self.state
        return faded * self.batch * self.heads * self.head_dim * self.value_dim
