"""The operator kinds of a workload, and the table that finds a class by its kind string."""

from __future__ import annotations

from accelsim.workload.attention_operators import Attention, KvAppend
from accelsim.workload.expert_operators import ExpertCombine, ExpertGate, GroupedGemm
from accelsim.workload.gradient_operators import (
    ActivationGrad,
    BatchNorm,
    BatchNormGrad,
    Col2im,
    ColumnSum,
    CrossEntropyGrad,
    NormGrad,
    NormWeightGrad,
    OptimizerStep,
    Pool2dGrad,
    SoftmaxGrad,
)
from accelsim.workload.head_operators import (
    DropToken,
    EmbeddingGrad,
    HeadProduct,
    PrependToken,
    ScoreSoftmax,
)
from accelsim.workload.layer_sparsity import LayerSparseConv2d, LayerSparseGemm
from accelsim.workload.linear_attention import DECAYS, LinearAttention, StateUpdate
from accelsim.workload.matrix_operators import Conv2d, ConvWeightGrad, Gemm
from accelsim.workload.operator_base import Operand, Operator, check_dtypes, natural_dtypes
from accelsim.workload.pruning_operators import PruneWeight
from accelsim.workload.vector_operators import (
    ACTIVATIONS,
    ELEMENTWISE,
    Activation,
    Elementwise,
    EmbeddingGather,
    GatedActivation,
    LayerNorm,
    Pool2d,
    Residual,
    RmsNorm,
    Rotary,
    Softmax,
)

KINDS: dict[str, type[Operator]] = {
    cls.kind: cls
    for cls in (
        *(Gemm, Conv2d, ConvWeightGrad, Attention, KvAppend, LinearAttention, StateUpdate),
        *(Softmax, LayerNorm, RmsNorm, Rotary, Activation, GatedActivation),
        *(Elementwise, Residual, EmbeddingGather, Pool2d),
        *(ExpertGate, GroupedGemm, ExpertCombine),
        *(LayerSparseGemm, LayerSparseConv2d, PruneWeight),
        *(ActivationGrad, SoftmaxGrad, NormGrad, NormWeightGrad, ColumnSum),
        *(HeadProduct, ScoreSoftmax, EmbeddingGrad, PrependToken, DropToken),
        *(BatchNorm, BatchNormGrad, CrossEntropyGrad, Col2im, Pool2dGrad, OptimizerStep),
    )
}

__all__ = [
    "ACTIVATIONS",
    "DECAYS",
    "ELEMENTWISE",
    "KINDS",
    "Activation",
    "ActivationGrad",
    "Attention",
    "BatchNorm",
    "BatchNormGrad",
    "Col2im",
    "ColumnSum",
    "Conv2d",
    "ConvWeightGrad",
    "CrossEntropyGrad",
    "DropToken",
    "Elementwise",
    "EmbeddingGather",
    "EmbeddingGrad",
    "ExpertCombine",
    "ExpertGate",
    "GatedActivation",
    "Gemm",
    "GroupedGemm",
    "HeadProduct",
    "KvAppend",
    "LayerNorm",
    "LayerSparseConv2d",
    "LayerSparseGemm",
    "LinearAttention",
    "NormGrad",
    "NormWeightGrad",
    "Operand",
    "Operator",
    "OptimizerStep",
    "Pool2d",
    "Pool2dGrad",
    "PrependToken",
    "PruneWeight",
    "Residual",
    "RmsNorm",
    "Rotary",
    "ScoreSoftmax",
    "Softmax",
    "SoftmaxGrad",
    "StateUpdate",
    "check_dtypes",
    "natural_dtypes",
]
