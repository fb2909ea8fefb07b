"""Workloads: operators, validated graphs, transformer models, and importers for other formats.

The package is callable: ``accelsim.workload("gpt2")`` is ``accelsim.workload.workload("gpt2")``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from accelsim.workload.graph import Graph
from accelsim.workload.huggingface import read_config
from accelsim.workload.inline import library_folder, list_workloads, parse_workload, workload
from accelsim.workload.operators import (
    KINDS,
    Activation,
    Attention,
    Conv2d,
    Elementwise,
    EmbeddingGather,
    ExpertCombine,
    ExpertGate,
    GatedActivation,
    Gemm,
    GroupedGemm,
    KvAppend,
    LayerNorm,
    LinearAttention,
    Operator,
    Pool2d,
    Residual,
    RmsNorm,
    Rotary,
    Softmax,
    StateUpdate,
)
from accelsim.workload.scalesim import ScaleSimConfig, read_scalesim_config
from accelsim.workload.scalesim_topology import read_topology
from accelsim.workload.segments import Segment
from accelsim.workload.tensors import DTYPES, TensorSpec
from accelsim.workload.transformer import build_transformer, forward_pass
from accelsim.workload.transformer_config import TransformerConfig
from accelsim.workload.yaml_graph import read_yaml_graph

__all__ = [
    "DTYPES",
    "KINDS",
    "Activation",
    "Attention",
    "Conv2d",
    "Elementwise",
    "EmbeddingGather",
    "ExpertCombine",
    "ExpertGate",
    "GatedActivation",
    "Gemm",
    "Graph",
    "GroupedGemm",
    "KvAppend",
    "LayerNorm",
    "LinearAttention",
    "Operator",
    "Pool2d",
    "Residual",
    "RmsNorm",
    "Rotary",
    "ScaleSimConfig",
    "Segment",
    "Softmax",
    "StateUpdate",
    "TensorSpec",
    "TransformerConfig",
    "build_transformer",
    "forward_pass",
    "library_folder",
    "list_workloads",
    "parse_workload",
    "read_config",
    "read_scalesim_config",
    "read_topology",
    "read_yaml_graph",
    "workload",
]


class _CallablePackage(ModuleType):
    """Importing a sub-package sets it as attribute of its parent, which would hide a function
    ``accelsim.workload``; so the package itself is that function."""

    def __call__(self, name: str | Path, **settings: object) -> Graph:
        return workload(name, **settings)


sys.modules[__name__].__class__ = _CallablePackage
