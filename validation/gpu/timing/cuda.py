"""Times kernels on a CUDA GPU by torch: graphs of many launches, replayed between two events."""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError

from ..provenance import machine
from .grid import Case, Row, cold_sets
from .method import REPLAYS, WARM_UPS, LostError, Timing, UnavailableError, first_line, launches_for
from .operators import Kernel, Tensors, kernel
from .spread import spread

QUEUE_CYCLES = 200_000
"""The GPU waits so long, about 0.1 ms, before the first event: the host has sent the replay by
then, and its own delay is not in the time."""
HEAT_SECONDS = 1.0
ANCHOR_REPLAYS = 5
EAGER_LAUNCHES = 5
REFUSALS = (RuntimeError, AttributeError, NotImplementedError, TypeError)
"""What torch raises for a kernel that it does not have for a GPU, a format or a shape."""
NAME = 120
"""Characters that are kept of a kernel's name; templates can take thousands."""
MEMORY_SHARE = 0.4
"""Share of the GPU's memory that torch may hold before what it no longer needs is given back."""

ANCHOR_GEMM = Case("", "gemm", "bf16", (("m", 4096), ("n", 4096), ("k", 4096)))
ANCHOR_COPY = Case("", "copy", "bf16", (("bytes", 1 << 30),))


class CudaDevice:
    """The first CUDA GPU that torch sees. Its clocks and limits are left as they are."""

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as fault:
            raise AccelsimError(f"{fault}; accepted: python with torch, or --dry-run") from None
        if not torch.cuda.is_available():
            raise AccelsimError(
                "torch sees no CUDA GPU; accepted: a machine with one, or --dry-run"
            )
        torch.set_float32_matmul_precision("high")  # tf32
        self._torch = torch
        properties = torch.cuda.get_device_properties(0)
        self.capability = (properties.major, properties.minor)
        self._l2_bytes = properties.L2_cache_size
        self._memory_bytes = properties.total_memory
        self._sweep = torch.ones(2 * self._l2_bytes // 4, dtype=torch.float32, device="cuda")
        self._swept = torch.empty((), dtype=torch.float32, device="cuda")
        self._anchors = [self._graph(ANCHOR_GEMM, 10), self._graph(ANCHOR_COPY, 4)]
        self._heat()

    def provenance(self) -> dict[str, Any]:
        return machine()

    def anchor(self) -> tuple[float, float]:
        found = []
        for graph, launches, _ in self._anchors:
            readings = [self._replay_us(graph, cold=False) for _ in range(2 + ANCHOR_REPLAYS)][2:]
            found.append(statistics.median(readings) / launches)
        return found[0], found[1]

    def time(self, row: Row) -> Timing:
        """Microseconds of a launch.

        Raises:
            UnavailableError: torch has no such kernel; its own first line.
            LostError: the GPU does not answer any more.
        """
        try:
            return self._timed(row)
        except REFUSALS as fault:
            self._still_answers(row)
            raise UnavailableError(first_line(fault)) from fault
        finally:
            if self._torch.cuda.memory_reserved() > MEMORY_SHARE * self._memory_bytes:
                self._torch.cuda.empty_cache()

    def kernels(self, case: Case) -> str:
        """One launch under torch's profiler; what it says of the kernels, first to last."""
        torch = self._torch
        try:
            run = kernel(torch, case, "cuda")
            given = run.operands()
            with run.chosen():
                run.launch(given)
                torch.cuda.synchronize()
                with torch.profiler.profile() as seen:
                    run.launch(given)
                    torch.cuda.synchronize()
            with tempfile.TemporaryDirectory() as folder:
                trace = Path(folder) / "trace.json"
                seen.export_chrome_trace(str(trace))
                return told(json.loads(trace.read_text(encoding="utf-8"))["traceEvents"])
        except (*REFUSALS, KeyError, ValueError, AssertionError, OSError):
            return ""

    def _still_answers(self, row: Row) -> None:
        try:
            self._torch.cuda.synchronize()
        except RuntimeError as fault:
            raise LostError(f"the GPU failed at {row.name}: {first_line(fault)}") from fault

    def _timed(self, row: Row) -> Timing:
        torch, case, cold = self._torch, row.case, row.cache == "cold"
        torch.manual_seed(int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:7], "big"))
        run = kernel(torch, case, "cuda")
        with run.chosen():
            first = run.operands()
            run.launch(first)
            eager_us = self._eager_us(run, first)
            launches = launches_for(eager_us)
            sets = cold_sets(case.footprint, self._l2_bytes, launches) if cold else 1
            operands = [first, *(run.operands() for _ in range(sets - 1))]
            graph = self._recorded(run, operands, launches)
        readings = [self._replay_us(graph, cold) for _ in range(WARM_UPS + REPLAYS)][WARM_UPS:]
        return Timing(spread([one / launches for one in readings]), eager_us, launches, sets)

    def _eager_us(self, run: Kernel, given: Tensors) -> float:
        readings = []
        for _ in range(EAGER_LAUNCHES):
            begin, end = self._events()
            begin.record()
            run.launch(given)
            end.record()
            end.synchronize()
            readings.append(1000 * float(begin.elapsed_time(end)))
        return statistics.median(readings)

    def _graph(self, case: Case, launches: int) -> tuple[Any, int, list[Tensors]]:
        """A graph, its launches, and its operands, which must live as long as it does."""
        run = kernel(self._torch, case, "cuda")
        operands = [run.operands()]
        run.launch(operands[0])
        return self._recorded(run, operands, launches), launches, operands

    def _recorded(self, run: Kernel, operands: list[Tensors], launches: int) -> Any:
        """A graph of launches that go round the sets of operands, results included."""
        torch = self._torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set up what they may not while recording
            run.launch(operands[0])
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph, held = torch.cuda.CUDAGraph(), [None] * len(operands)
        # A library may ask for memory or set an attribute of a kernel meanwhile: no other thread
        # uses the GPU, so that this is harmless.
        with torch.cuda.graph(graph, capture_error_mode="relaxed"):
            for i in range(launches):
                place = i % len(operands)
                held[place] = None
                held[place] = run.launch(operands[place])
        return graph

    def _replay_us(self, graph: Any, cold: bool) -> float:
        torch = self._torch
        if cold:  # read, not written: dirty lines would have to be written back meanwhile
            torch.sum(self._sweep, dim=0, out=self._swept)
        torch.cuda._sleep(QUEUE_CYCLES)
        begin, end = self._events()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return 1000 * float(begin.elapsed_time(end))

    def _events(self) -> tuple[Any, Any]:
        event = self._torch.cuda.Event
        return event(enable_timing=True), event(enable_timing=True)

    def _heat(self) -> None:
        until = time.monotonic() + HEAT_SECONDS
        while time.monotonic() < until:
            self.anchor()


def told(events: Sequence[Mapping[str, Any]]) -> str:
    """The kernels and copies of a profile: name, grid, block and bytes of shared memory each."""
    found = []
    for event in sorted(events, key=lambda one: one.get("ts", 0)):
        if event.get("cat") not in ("kernel", "gpu_memcpy"):
            continue
        details, words = event.get("args", {}), [str(event["name"])[:NAME]]
        for label, key in (("grid", "grid"), ("block", "block"), ("shared", "shared memory")):
            value = details.get(key, "")
            if value != "":
                size = value if isinstance(value, (list, tuple)) else [value]
                words.append(f"{label}={'x'.join(map(str, size))}")
        found.append(" ".join(words))
    return " | ".join(found)
