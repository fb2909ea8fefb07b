"""Vision transformers: patches of an image as tokens behind a class token, a BERT-like encoder with
norms before its branches, and a classifier on the class token.

Source: Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021, table 1 and appendix D; the
small one from Touvron et al., DeiT, ICML 2021. Images of another size have another number of
positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.errors import AccelsimError
from accelsim.workload.constants import IndexPattern
from accelsim.workload.graph import Graph
from accelsim.workload.operators import Conv2d, Gemm, PrependToken
from accelsim.workload.parallel import Parallel
from accelsim.workload.routing_choice import RoutingChoice
from accelsim.workload.transformer import Builder, Pass
from accelsim.workload.transformer_config import TransformerConfig

PATCH, CLASSES = 16, 1000


@dataclass(frozen=True)
class VisionSize:
    """What distinguishes the published sizes."""

    hidden: int
    layers: int
    heads: int

    def config(self, name: str, tokens: int) -> TransformerConfig:
        """The encoder."""
        return TransformerConfig(
            name=name, family="bert", hidden=self.hidden, layers=self.layers, heads=self.heads,
            kv_heads=self.heads, head_dim=self.hidden // self.heads, ffn=4 * self.hidden,
            vocab=CLASSES, positions=tokens, norm="layernorm", norm_eps=1e-6, activation="gelu",
            bias_qkv=True, bias_out=True, bias_ffn=True, causal=False,
        )  # fmt: skip


def vision_transformer(
    name: str, sizes: VisionSize, batch: int, dtype: str, side: int, *, trains: bool
) -> Graph:
    """The forward pass for square images; ``trains``: attention in parts, which are kept."""
    if side % PATCH:
        raise AccelsimError(f"{name}: size is {side}; accepted: a multiple of {PATCH}")
    tokens = (side // PATCH) ** 2 + 1
    step = Pass("train" if trains else "encode", batch, tokens, tokens, dtype, "all")
    return _Builder(sizes.config(name, tokens), step, side).graph()


class _Builder(Builder):
    """A transformer's builder whose tokens are patches."""

    def __init__(self, config: TransformerConfig, step: Pass, side: int) -> None:
        super().__init__(config, step, RoutingChoice(), Parallel())
        self.side = side

    def embed(self) -> str:
        """Patches by a convolution as wide as its stride, the class token, positions."""
        config, batch, side = self.config, self.step.batch, self.side
        image = self.tensor("image", (batch, side, side, 3), "input")
        weight = self.tensor("patches.weight", (PATCH, PATCH, 3, config.hidden), "weight")
        bias = self.tensor("patches.bias", (config.hidden,), "weight")
        patches = self.emit(
            Conv2d(
                "patches", (image, weight, bias), ("patches.out",), batch, side, side, 3, PATCH,
                PATCH, config.hidden, (PATCH, PATCH),
            )
        )  # fmt: skip
        token = self.tensor("class_token", (config.hidden,), "weight")
        x = self.emit(
            PrependToken(
                "class_token_first", (patches, token), ("class_token_first.out",), batch,
                self.step.q_len - 1, config.hidden,
            )
        )  # fmt: skip
        table = self.tensor("position_embedding.weight", (self.step.q_len, config.hidden), "weight")
        ids = self.ids("position_ids", self.step.rows, IndexPattern(0, period=self.step.q_len))
        return self.combine("position_add", x, self.gather("position_embedding", table, ids), "add")

    def head(self, x: str) -> None:
        """Classes from the class token."""
        first = self.pick("class_tokens", self.normalise("final_norm", x), 0)
        m, k = self.tensors[first].shape
        weight = self.tensor("head.weight", (k, CLASSES), "weight")
        bias = self.tensor("head.bias", (CLASSES,), "weight")
        inputs = (first, weight, bias)
        self.finish(self.emit(Gemm("head", inputs, ("head.out",), m, CLASSES, k)), "logits")
