"""A decode step of a server: GPUs that share a model, with attention beside the banks or without.

A device's part of a step is simulated, kernel after kernel (tensor parallel: workload/parallel).
What lies between devices and between kernels is added by rules of AttAcc's authors:

    all-reduce      in a ring, n - 1 hops, each the larger of 6.06 us + 0.009 ns per byte of a
                    device's share (measured on A100) and its bytes over one way of the link; it
                    replaces the kernels that add what arrives
    head by head    (``pipelined``) while the banks attend to one head, the GPU makes or projects
                    another: both take as long as the longer, and the shorter's first head
    feed-forward    (``co_processing``) a share of these weights lies in the banks, which multiply
                    every request's vector with it as fast as they read keys; the share is the one
                    with which both sides end together

A step ends with the last layer: the published model has no vocabulary head.

Source: Park et al., AttAcc, ASPLOS 2024, section 6, and its simulator (MIT, SNU SCAL).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from accelsim.arch.model import Architecture
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layouts.families import GROUP_BANKS
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.unit import Pim
from accelsim.simulation import simulate_graph
from accelsim.workload import operators as ops
from accelsim.workload.graph import Graph
from accelsim.workload.tensors import DTYPES

if TYPE_CHECKING:
    from accelsim.results.result import OperatorResult

LONG_TOKENS = 4096
"""Tokens of a head whose keys are read for so long that rows and refresh are in the rate."""


@dataclass(frozen=True)
class Ring:
    """Links between devices: NVLink 3 of an A100, as the authors measured and configured it."""

    hop_seconds: float = 6.06e-6
    seconds_per_byte: float = 0.009e-9
    bytes_per_second: float = 300e9  # one way
    pj_per_byte: float = 10.4

    def all_reduce_seconds(self, nbytes: int, devices: int) -> float:
        """Until every device has the sum of everybody's ``nbytes``."""
        share = nbytes / devices
        hop = max(self.hop_seconds + self.seconds_per_byte * share, share / self.bytes_per_second)
        return hop * (devices - 1)


NVLINK = Ring()


@dataclass(frozen=True)
class StepTime:
    """Seconds of the layers of a step by part, before anything overlaps, and joules of all devices.

    ``attention`` has the new keys and values and what carries them.
    """

    attention: float
    projections: float
    feed_forward: float
    others: float
    all_reduce: float
    joules: float
    heads: int
    co_processed: float  # the share of the feed-forward weights that lies in the banks

    @property
    def serial(self) -> float:
        """One kernel after the other."""
        parts = self.attention + self.projections + self.feed_forward
        return parts + self.others + self.all_reduce

    def seconds(self, pipelined: bool = False, co_processing: bool = False) -> float:
        """The whole step."""
        both = self.attention, self.projections
        found = max(both) + min(both) / self.heads if pipelined else sum(both)
        feed_forward = self.feed_forward * (1 - self.co_processed * co_processing)
        return found + feed_forward + self.others + self.all_reduce


@dataclass(frozen=True)
class Server:
    """``devices`` of one architecture; ``mappers`` are names to prefer."""

    arch: Architecture
    devices: int = 8
    ring: Ring = NVLINK
    mappers: tuple[str, ...] = ()

    def step(self, graph: Graph) -> StepTime:
        """A decode step, of which ``graph`` is a device's part."""
        run = simulate_graph(graph, self.arch, mappers=self.mappers)
        seconds = dict.fromkeys(("attention", "projections", "feed_forward", "others"), 0.0)
        joules, all_reduce = 0.0, 0.0
        operator = {op.name: op for op in graph.operators}
        for one in run.operators:
            if not one.name.startswith("layer"):
                continue
            if one.name.endswith("_all_reduce"):
                nbytes = _bytes(graph, operator[one.name])
                all_reduce += one.repeat * self.ring.all_reduce_seconds(nbytes, self.devices)
                joules += one.repeat * nbytes * self.devices * self.ring.pj_per_byte * 1e-12
                continue
            seconds[_part(one)] += one.cycles / run.clock_hz
            joules += self.devices * one.energy_pj * 1e-12
        attends = [op for op in graph.operators if isinstance(op, ops.Attention)]
        share = self._co_processed(graph, seconds["feed_forward"])
        return StepTime(
            **seconds, all_reduce=all_reduce, joules=joules, heads=attends[0].heads,
            co_processed=share,
        )  # fmt: skip

    def _co_processed(self, graph: Graph, gpu_seconds: float) -> float:
        """The share of the feed-forward weights with which GPU and banks end together."""
        if not self.weights_per_second:
            return 0.0
        mine = [op for op in graph.operators if isinstance(op, ops.Gemm) and ".ffn." in op.name]
        nbytes = sum(op.m * op.k * op.n * 2 for op in mine)
        return gpu_seconds / (gpu_seconds + nbytes / self.weights_per_second)

    @cached_property
    def weights_per_second(self) -> float:
        """Bytes of weights that all banks of a device multiply with a vector in a second; 0 where
        none compute."""
        units = list(self.arch.units_of(Pim).values())
        if not units:
            return 0.0
        features = GROUP_BANKS * units[0].pim.units.macs
        taken = product_cost(units[0].family, Sweep(1, 1, LONG_TOKENS, features))
        clocks = taken.cycles / units[0].own_clock_hz
        return units[0].count * LONG_TOKENS * features * 2 / clocks


def _part(one: OperatorResult) -> str:
    """Where an operator of a layer belongs."""
    if one.kind in ("attention", "kv_append"):
        return "attention"
    if one.kind == "gemm":
        return "feed_forward" if ".ffn." in one.name else "projections"
    return "others"


def _bytes(graph: Graph, op: ops.Operator) -> int:
    """Of what an operator writes."""
    spec = graph.tensors[op.outputs[0]]
    return spec.elements * DTYPES[spec.dtype].bits // 8
