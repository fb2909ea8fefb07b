"""Seeded values for every tensor that exists before a run: the same bits on every machine.

Raw bits come from splitmix64 (numerics.splitmix), counter by counter, keyed by the seed and the
tensor's name; everything up to the final rounding to the tensor's format is exact.
Floating-point values are bell-shaped with standard deviation 0.58 and a full significand;
weights are scaled by a power of two near 1/sqrt(k), norm weights lie around 1, so that
activations keep their size through many layers. Integers use their full range, ids count rows.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.numerics.formats import Format, number_format
from accelsim.numerics.splitmix import Words, key_of, splitmix64
from accelsim.workload.graph import Graph
from accelsim.workload.operators import (
    BatchNorm,
    BatchNormGrad,
    ColumnSum,
    Conv2d,
    CrossEntropyGrad,
    EmbeddingGather,
    EmbeddingGrad,
    ExpertCombine,
    ExpertGate,
    Gemm,
    GroupedGemm,
    LayerNorm,
    LinearAttention,
    OptimizerStep,
    RmsNorm,
    StateUpdate,
)
from accelsim.workload.tensors import TensorSpec

Stored = npt.NDArray[Any]

BLOCK = 1 << 20  # elements made at a time, so that temporaries stay small beside the tensor


@dataclass(frozen=True)
class Recipe:
    """How values follow from random bits: offset + scale * bell, or whole numbers below ``ids``."""

    offset: float = 0.0
    scale: float = 1.0
    ids: int = 0


def graph_values(
    graph: Graph, seed: int = 0, also: Collection[str] = (), scale: float = 1.0
) -> dict[str, Stored]:
    """Stored elements, in shape, of every tensor that no operator creates, by name.

    ``also`` names tensors to fill although an operator creates them, for a slice of a graph.
    ``scale`` multiplies all floating-point values but constants; a power of two is exact.
    """
    recipes = _recipes(graph)
    wanted = [*graph.inputs, *(graph.tensors[name] for name in sorted(also))]
    found = {}
    for spec in wanted:
        recipe = recipes.get(spec.name, Recipe())
        recipe = replace(recipe, offset=recipe.offset * scale, scale=recipe.scale * scale)
        found[spec.name] = _tensor(spec, recipe, seed)
    return found


def _tensor(spec: TensorSpec, recipe: Recipe, seed: int) -> Stored:
    fmt = number_format(spec.dtype)
    if spec.values is not None:
        return fmt.encode(spec.values.array(spec.shape)).reshape(spec.shape)
    stored = np.empty(spec.elements, dtype=fmt.storage_dtype)
    for first in range(0, spec.elements, BLOCK):
        part = stored[first : first + BLOCK]
        part[...] = _elements(fmt, recipe, (seed, spec.name), first, len(part))
    return stored.reshape(spec.shape)


def _elements(
    fmt: Format, recipe: Recipe, source: tuple[int, str], first: int, count: int
) -> Stored:
    words = splitmix64(_key(*source), count, first)
    if recipe.ids:
        return fmt.encode((words % np.uint64(recipe.ids)).astype(np.int64))
    if fmt.is_integer:
        span = fmt.high - fmt.low + 1
        whole = span == 1 << fmt.bits
        # Patterns of all bits, or one of the values that there are; negative ones wrap.
        return fmt.stored(words if whole else words % np.uint64(span) - np.uint64(-fmt.low))
    fill = splitmix64(_key(*source, "fill"), count, first)
    values = recipe.offset + recipe.scale * _bell(words, fill)
    return fmt.encode(values.astype(np.float32))


def _bell(words: Words, fill: Words) -> npt.NDArray[np.float64]:
    """Sum of four uniform 16-bit fields, centred: in [-2, 2], standard deviation 0.577.

    16 bits of ``fill`` below the last place keep sums of such values from being exact in fp32.
    """
    total = (fill >> np.uint64(48)).astype(np.float64) / 65536.0 - 2.0 * 0xFFFF
    for field in range(4):
        total += (words >> np.uint64(16 * field)) & np.uint64(0xFFFF)
    return total / 65536.0


def _key(seed: int, name: str, purpose: str = "value") -> int:
    return key_of(f"{seed}:{purpose}:{name}")


def _recipes(graph: Graph) -> dict[str, Recipe]:
    """Recipes that the tensors' consumers ask for."""
    found: dict[str, Recipe] = {}
    for op in graph.operators:
        second = op.inputs[1] if len(op.inputs) > 1 else ""
        third = op.inputs[2] if len(op.inputs) > 2 else ""
        if isinstance(op, Gemm | GroupedGemm | Conv2d):
            k = op.gemm_k if isinstance(op, Conv2d) else op.k
            if graph.tensors[second].role == "weight":
                # A power of two, so that scaling is exact; the bell's 0.58 keeps outputs below 1.
                found.setdefault(second, Recipe(scale=2.0 ** -math.floor(math.log2(k) / 2)))
            found.setdefault(third, Recipe(scale=0.25))
        elif isinstance(op, LayerNorm | RmsNorm):
            found.setdefault(second, Recipe(offset=1.0, scale=0.25))
            found.setdefault(third, Recipe(scale=0.25))
        elif isinstance(op, EmbeddingGather):
            found[second] = Recipe(ids=op.vocab)
        elif isinstance(op, ExpertGate):
            # Scores are probabilities: positive, so that their sum is a divisor.
            found.setdefault(op.inputs[0], Recipe(offset=1.0, scale=0.25))
            found[second] = Recipe(ids=op.tokens * op.experts)
            found.setdefault(third, Recipe(scale=0.25))
        elif isinstance(op, ExpertCombine):
            found[third] = Recipe(ids=op.table_rows)
        elif isinstance(op, CrossEntropyGrad):
            found[second] = Recipe(ids=op.cols)
        elif isinstance(op, EmbeddingGrad):
            found[second] = Recipe(ids=op.vocab)
        elif isinstance(op, ColumnSum | BatchNorm | BatchNormGrad):
            # Variances are positive.
            found.setdefault(op.operand("variance") or "", Recipe(offset=1.0, scale=0.25))
        elif isinstance(op, OptimizerStep) and op.optimizer == "adam":
            found.setdefault(op.inputs[3], Recipe(offset=0.0625, scale=0.015625))
        elif isinstance(op, LinearAttention | StateUpdate) and op.decay == "gated":
            # Negative, and small enough for a state to outlive some tens of tokens.
            gates = op.operand("log_decay") or ""
            found.setdefault(gates, Recipe(offset=-0.0625, scale=0.03125))
    return found
