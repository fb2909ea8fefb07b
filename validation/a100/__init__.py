"""NVIDIA A100 against silicon: GEMM, softmax, layer norm, GELU, and operators of a GPT-3 layer.

The measured times are the host's around a PyTorch call, so each kind of call has an overhead of
the framework beside its kernel. These four overheads (``simt.call_us``) and the efficiency of main
memory are fitted on the rows marked ``fit`` alone (see ``calibrate``); everything else is
published. The verdict is the mean absolute error over the rows marked ``test``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from accelsim.api import arch, simulate
from accelsim.hw.simt import Simt
from accelsim.results.claims import Claim, Row, truth

from .workloads import AGAIN, Measured, measured, twice

CLAIM = Claim(
    name="a100",
    statement="microseconds measured around PyTorch calls on one A100 SXM 80 GB, fp16",
    source="LLMCompass (BSD-3-Clause), ISCA 2024, artifact of figure 5",
    # LLMCompass's own mean error over these operators, on the set it was calibrated with.
    tolerance=0.109,
    mean_of="test",
)

WARM_CACHES = 4
"""Kernels that move more than so many caches full leave nothing for the next one to find."""


def rows() -> Iterator[Row]:
    """Every measured call, simulated."""
    for r in truth(__name__, "measured.csv"):
        call = measured(r["op"], r["shape"])
        case = f"{r['op']} {r['shape'].replace(';', ' ')}".replace(" d_model=12288 heads=96", "")
        yield Row(case, float(r["latency_us"]), round(predicted_us(call), 2), split=r["split"])


def predicted_us(
    call: Measured,
    constants: Mapping[str, object] | None = None,
    overhead_us: Mapping[str, float] | None = None,
) -> float:
    """Simulated microseconds of a call, possibly with other constants."""
    beside = overheads_us() if overhead_us is None else overhead_us
    return call.calls * (kernel_us(call.text, constants) + beside[call.call])


def overheads_us() -> Mapping[str, float]:
    """What a call takes beside its kernel, until the host sees the end of it: a100's call_us."""
    (simt,) = arch("a100").units_of(Simt).values()
    return simt.call_us


def kernel_us(text: str, constants: Mapping[str, object] | None = None) -> float:
    """Simulated microseconds of a kernel that has run before on the same input."""
    machine = arch("a100", constants)
    graph = twice(text)
    moved = sum(graph.tensors[name].bytes for name in graph.operators[0].inputs)
    moved += graph.tensors[graph.operators[0].output].bytes
    if moved > WARM_CACHES * sum(cache.capacity for cache in machine.caches.values()):
        return simulate(machine, text).seconds * 1e6
    run = simulate(machine, graph)
    (again,) = (op for op in run.operators if op.name == AGAIN)
    return again.cycles / run.clock_hz * 1e6
