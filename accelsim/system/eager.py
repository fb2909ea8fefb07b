"""Text generated token by token by a framework that calls one operator at a time on a host.

The kernels are simulated; the framework adds what it is: *calls*, which the host makes one after
the other (``call_us`` of a simt unit, ``layer``: all calls of a decoder layer), and *passes* over
tensors that a fused kernel would not make. A device that runs behind its host ends a step after the
slower of the two (``asynchronous``), a host that computes itself after their sum.

    cached      keys and values are kept; each step multiplies one token, and concatenates the
                cache, all of which is read and written once more
    recomputed  each step multiplies all tokens so far

Passes beside the graph's, per layer, as modeling_gpt2 of Hugging Face transformers writes them: 7
over the hidden elements of the FFN (gelu_new is 8 element-wise operators), 2 over the scores (scale
and mask), each a read and a write of main memory. What is computed anew has logits of all tokens.

Steps are simulated at some lengths; between them time is the polynomial through these, of degree 1
(cached) or 2 (recomputed: scores grow with the square), as work is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from accelsim.arch.model import Architecture
from accelsim.errors import AccelsimError
from accelsim.hw.simt import Simt
from accelsim.simulation import simulate_graph
from accelsim.workload import operators as ops
from accelsim.workload import workload
from accelsim.workload.graph import Graph
from accelsim.workload.tensors import DTYPES

Floats = npt.NDArray[np.float64]

GELU_PASSES, SCORE_PASSES, CACHE_PASSES = 7, 2, 1
LEAST = 64
"""The shortest prefix that is simulated when everything is computed anew."""


@dataclass(frozen=True)
class EagerGeneration:
    """Generation on ``arch`` in format ``dtype``, with a cache or without (``cached``).

    ``watts`` is the power that all of the time is counted with. ``layer_us`` replaces the
    architecture's figure.
    """

    arch: Architecture
    dtype: str
    cached: bool
    asynchronous: bool
    watts: float
    layer_us: float | None = None

    def step_seconds(self, model: str, tokens: int) -> Floats:
        """Seconds of each of ``tokens`` steps."""
        lengths = (1, tokens) if self.cached else (LEAST, (LEAST + tokens) // 2, tokens)
        graphs = [self.graph(model, length) for length in lengths]
        device = [_device_seconds(self.arch, self.cached, graph) for graph in graphs]
        through = np.polynomial.Polynomial.fit(lengths, device, len(lengths) - 1)
        steps: Floats = np.maximum(through(np.arange(1, tokens + 1)), 0.0)
        host = self.host_seconds(graphs[0])
        return np.asarray(np.maximum(steps, host) if self.asynchronous else steps + host)

    def graph(self, model: str, length: int) -> Graph:
        """One step with so many tokens in the text."""
        if self.cached:
            return workload(model, phase="decode", context=length, dtype=self.dtype)
        return workload(model, phase="prefill", tokens=length, dtype=self.dtype, logits="all")

    def host_seconds(self, graph: Graph) -> float:
        """Calls of a step."""
        layers = sum(isinstance(op, ops.Attention) for op in graph.operators)
        return layers * self.us_of_a_layer * 1e-6

    @property
    def us_of_a_layer(self) -> float:
        if self.layer_us is not None:
            return self.layer_us
        for unit in self.arch.units_of(Simt).values():
            if "layer" in unit.call_us:
                return unit.call_us["layer"]
        raise AccelsimError(f"{self.arch.name}: no simt unit has call_us.layer; accepted: layer_us")


@lru_cache(maxsize=256)
def _device_seconds(arch: Architecture, cached: bool, graph: Graph) -> float:
    """Kernels, and the passes that a fused graph does not make; kept by what is simulated."""
    _, memory = arch.main_memory()
    reached = float(getattr(memory, "efficiency", 1.0))
    rate = reached * memory.peak_bytes_per_second(arch.hz_of(memory))
    return simulate_graph(graph, arch).seconds + extra_bytes(graph, cached) / rate


def extra_bytes(graph: Graph, cached: bool) -> int:
    """Bytes of the passes beside the graph's own, each read and written."""
    bits = 0
    for op in graph.operators:
        width = DTYPES[graph.tensors[op.inputs[0]].dtype].bits
        if isinstance(op, ops.Activation):
            bits += width * GELU_PASSES * op.rows * op.cols
        elif isinstance(op, ops.Attention):
            bits += width * SCORE_PASSES * op.batch * op.heads * op.q_len * op.kv_len
            if cached:
                kept = 2 * op.batch * op.kv_heads * op.kv_len * op.head_dim
                bits += width * CACHE_PASSES * kept
    return 2 * bits // 8
