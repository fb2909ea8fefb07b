"""What the measured rows mean, as workloads, and how often LLMCompass's script ran the kernel.

The scripts (software_model/*.py, run_on_gpu) repeat one kernel on the same input and take the
median of the host's time around each call, so a kernel finds in the L2 cache what the one before
left there. Layers of GPT-3 are one GPU's share of four: 24 of 96 heads, a quarter of each width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from accelsim.errors import AccelsimError
from accelsim.workload import Graph, workload

HIDDEN, HEAD, SHARE_HEADS, GPUS = 12288, 128, 24, 4
BATCH = 8

LAYER = re.compile(r"GPT3-175B layer TP4 (prefill|decode) b=8 (?:s|s_ctx)=(\d+) / (\w+)")


@dataclass(frozen=True)
class Measured:
    """A measured call: its workload, what kind of call it was, and how many were added up."""

    text: str
    call: str
    calls: int = 1


def measured(op: str, shape: str) -> Measured:
    """The call behind a row.

    Raises:
        AccelsimError: an operator that is not known here, e.g. an all-reduce.
    """
    layer = LAYER.fullmatch(op)
    if layer:
        return _of_layer(layer[1], int(layer[2]), layer[3])
    size = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", shape)}
    if op == "matmul":
        return _gemm(size["M"], size["N"], size["K"])
    if op in ("softmax", "layernorm"):
        return Measured(f"{op}:rows={size['M']},cols={size['N']},dtype=fp16", op)
    if op == "gelu":
        return _gelu(size["N"])
    raise AccelsimError(f"no workload for measured operator {op!r}")


def _gemm(m: int, n: int, k: int, batch: int = 1, calls: int = 1) -> Measured:
    return Measured(f"gemm:m={m},n={n},k={k},batch={batch},dtype=fp16", "matmul", calls)


def _gelu(elements: int) -> Measured:
    text = f"activation:function=gelu_tanh,rows=1,cols={elements},dtype=fp16"
    return Measured(text, "gelu")


def _of_layer(phase: str, length: int, name: str) -> Measured:
    """An operator of a GPT-3 layer: ``length`` tokens to fill, or in the cache while decoding."""
    queries = length if phase == "prefill" else 1
    tokens, products = BATCH * queries, BATCH * SHARE_HEADS
    share = HIDDEN // GPUS
    known = {
        # Three products of equal shape; one is timed and counted three times.
        "Q_K_V": _gemm(tokens, share, HIDDEN, calls=3),
        "Q_mul_K": _gemm(queries, length, HEAD, batch=products),
        "A_mul_V": _gemm(queries, HEAD, length, batch=products),
        "Wo_proj": _gemm(tokens, HIDDEN, share),
        "W1_proj": _gemm(tokens, HIDDEN, HIDDEN),
        "W2_proj": _gemm(tokens, HIDDEN, HIDDEN),
        "Softmax": Measured(
            f"softmax:rows={products * queries},cols={length},dtype=fp16", "softmax"
        ),
        "LayerNorm_MHA": Measured(f"layernorm:rows={tokens},cols={HIDDEN},dtype=fp16", "layernorm"),
        "LayerNorm_FFN": Measured(f"layernorm:rows={tokens},cols={HIDDEN},dtype=fp16", "layernorm"),
        "GeLU": _gelu(tokens * HIDDEN),
    }
    if name not in known:
        raise AccelsimError(f"no workload for {name!r} of a layer; known: {', '.join(known)}")
    return known[name]


def twice(text: str) -> Graph:
    """The kernel of a workload two times on the same input, with a result of its own each."""
    graph = workload(text)
    (first,) = graph.operators
    out = f"{first.output}.again"
    again = replace(first, name=AGAIN, outputs=(out,))
    tensors = {**graph.tensors, out: replace(graph.tensors[first.output], name=out)}
    return Graph(graph.name, tensors, (first, again), graph.settings)


AGAIN = "again"
"""Name of the second kernel of ``twice``."""
