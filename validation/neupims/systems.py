"""The systems that are compared, the points, and one decoder layer of a point on a system.

Published are figures of one layer of a decode iteration, as the published simulator runs it; here
it is the layer that repeats, in its steady state, with everything that the transformer builder puts
into it (norms, residuals, the sums of the other devices' parts). Embedding and vocabulary head are
left out, as they are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from accelsim.arch.catalog import arch
from accelsim.arch.model import Architecture
from accelsim.engine.bind import BoundProgram, bind
from accelsim.engine.merge import run as run_engine
from accelsim.engine.schedule import Schedule
from accelsim.hw.pim.unit import Pim
from accelsim.hw.systolic import Systolic
from accelsim.program.opcodes import Opcode
from accelsim.simulation import compile_program, plan_memory
from accelsim.workload import workload
from accelsim.workload.graph import Graph
from accelsim.workload.operators import Attention

LAYERS = 4
"""Of the workload that is cut into layers: two that begin and end, and what repeats."""
HALVES_FROM = 256
"""Requests from which the published runs let two halves take turns."""
IN_BANKS = ("pim-attention",)


@dataclass(frozen=True)
class System:
    """An architecture with changes, mappers that are asked for, and how it takes a batch.

    ``halves_from`` requests take turns in two halves (0: never). ``padded``: every request is as
    long as the longest.
    """

    name: str
    arch: str
    mappers: tuple[str, ...] = ()
    changes: Mapping[str, object] = field(default_factory=dict)
    halves_from: int = 0
    padded: bool = False


NEUPIMS = System("NeuPIMs", "neupims", IN_BANKS, halves_from=HALVES_FROM)
NPU_PIM = System("NPU+PIM", "npu-pim", IN_BANKS)
NPU_ONLY = System("NPU-only", "npu-only", ("unfused-attention",))
NPU_FUSED = System("NPU-only, fused", "npu-only")
GPU = System("GPU-only", "a100")
GPU_PADDED = System("GPU-only, padded", "a100", ("gpu-attention",), padded=True)
MAIN = (NEUPIMS, NPU_PIM, NPU_ONLY)
READINGS = (NPU_FUSED, GPU_PADDED)

DUAL = System("dual row buffer", "neupims", IN_BANKS, {"hbm.requests": "in turns"})
BALANCED = System("and balanced channels", "neupims", IN_BANKS)
HALVES = System("and halves by turns", "neupims", IN_BANKS, halves_from=2)
COMPOSED = System("NPU+PIM, commands composed", "npu-pim", IN_BANKS, {"pim.issue": 0})
EVEN = System("NPU+PIM, channels balanced", "npu-pim", IN_BANKS, {"hbm.requests": "balanced"})
STEPS = (DUAL, BALANCED, HALVES)
VARIANTS = (COMPOSED, EVEN)

TENSOR_PARALLEL = {"gpt3-7b": 4, "gpt3-13b": 4, "gpt3-30b": 4, "gpt3-175b": 8}
"""Devices that share a layer, as in the published configurations; pipeline stages (1, 1, 2, 4)
divide the layers, each of which sees the whole batch."""
MODELS = tuple(TENSOR_PARALLEL)
DATA_SETS = ("alpaca", "sharegpt")
BATCHES = (64, 128, 256, 384, 512)


@dataclass(frozen=True)
class Point:
    """A batch of requests of a data set, drawn with a seed, on one of ``tp`` devices."""

    model: str
    data: str
    batch: int
    tp: int
    seed: int = 0

    @classmethod
    def of(cls, model: str, data: str, batch: int, seed: int = 0) -> Point:
        return cls(model, data, batch, TENSOR_PARALLEL[model], seed)

    def __str__(self) -> str:
        return f"{self.model} {self.data} {self.batch}"


POINTS = tuple(Point.of(m, d, b) for m in MODELS for d in DATA_SETS for b in BATCHES)
ON_GPU = tuple(point for point in POINTS if point.model != MODELS[-1])
"""Points that run on a GPU, too: those of the three smaller models."""


@dataclass(frozen=True)
class Layer:
    """A layer's time, and shares of it.

    ``npu_macs``: multiplications of the arrays over what they could do; ``npu_busy``: time in which
    at least one array has work; ``pim_busy``: time that the products of a channel take, mean of
    the channels; ``pim_macs``: multiplications of the banks over what they could do.
    """

    seconds: float
    npu_macs: float = 0.0
    npu_busy: float = 0.0
    pim_busy: float = 0.0
    pim_macs: float = 0.0


def graph_of(system: System, point: Point) -> Graph:
    """The workload of a point as a system takes it."""
    settings: dict[str, object] = {"batch": point.batch, "tp": point.tp, "layers": LAYERS}
    drawn = workload(point.model, phase="decode", dataset=point.data, seed=point.seed, **settings)
    if system.padded:
        longest = max(op.kv_len for op in drawn.operators if isinstance(op, Attention))
        return workload(point.model, phase="decode", context=longest, **settings)
    if not system.halves_from or point.batch < system.halves_from:
        return drawn
    return workload(
        point.model, phase="decode", dataset=point.data, seed=point.seed, subbatch=2,
        subbatch_min=system.halves_from, **settings,
    )  # fmt: skip


@cache
def layer(system_name: str, point: Point) -> Layer:
    """The layer that repeats, simulated alone."""
    system = BY_NAME[system_name]
    machine, graph = arch(system.arch, dict(system.changes)), graph_of(system, point)
    plan = plan_memory(graph, machine, "bandwidth", system.mappers)
    repeated = max(graph.segments(), key=lambda one: one.count)
    program = compile_program(graph, repeated.operators, machine, plan, "bandwidth", system.mappers)
    bound = bind(program, machine, "bandwidth")
    return _measured(machine, bound, run_engine(bound.timed))


def _measured(machine: Architecture, bound: BoundProgram, run: Schedule) -> Layer:
    seconds = run.ticks / machine.ticks_per_cycle("core") / machine.clocks["core"]
    program = bound.program
    opcode = program.column("opcode")
    macs = program.column("m") * program.column("n") * program.column("k")
    shares: dict[str, float] = {}
    for kind, block, what in ((Opcode.MATMUL, Systolic, "npu"), (Opcode.PIM, Pim, "pim")):
        blocks = list(machine.units_of(block).values())
        rows = np.flatnonzero(opcode == kind)
        if not blocks or not len(rows):
            continue
        one = blocks[0]
        peak = one.peak_macs_per_cycle() * one.count * machine.hz_of(one) * seconds
        shares[f"{what}_macs"] = int(macs[rows].sum()) / peak
        if what == "npu":
            shares["npu_busy"] = covered(run.start[rows], run.finish[rows]) / run.ticks
        else:
            shares["pim_busy"] = int(bound.work[rows].sum()) / run.ticks / one.count
    return Layer(seconds, **shares)


def covered(start: np.ndarray, finish: np.ndarray) -> int:
    """Ticks in which at least one of some intervals runs."""
    order = np.argsort(start, kind="stable")
    start, latest = start[order], np.maximum.accumulate(finish[order])
    gaps = np.maximum(start[1:] - latest[:-1], 0)
    return int(latest[-1] - start[0] - gaps.sum()) if len(start) else 0


BY_NAME = {one.name: one for one in (*MAIN, GPU, *READINGS, *STEPS, *VARIANTS)}
