"""DRAM channels against DRAMsim3: equal clocks on request streams, from DRAMsim3's own files.

One row per run: DDR4, GDDR6 and HBM2, one channel and eight, sequential, random, strided and mixed
streams of up to 100,000 requests, with and without refresh, saturating and one at a time. The
device and its controller come out of the .ini file by the importer; nothing is calibrated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import as_file, files

from accelsim.hw.dram.run import MemoryRun, memory_device, run_stream
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="dram",
    statement="clocks of request streams on DRAM channels with a command queue per bank",
    source="runs of DRAMsim3 2981759 (MIT-style, University of Maryland), Li et al., IEEE CAL 2020",
    tolerance=0.0,
)


def rows() -> Iterator[Row]:
    """Every recorded run."""
    for r in truth(__name__, "dramsim3.csv"):
        case = f"{r['config']} {r['stream']} n={r['requests']} {r['inject']} refresh={r['refresh']}"
        yield within(case, int(r["cycles"]), simulated(r).acknowledged_cycles, CLAIM.tolerance)


def simulated(r: Mapping[str, str]) -> MemoryRun:
    """The run of a row."""
    with as_file(files(__name__) / f"{r['config']}.ini") as file:
        memory = memory_device(str(file))
    return run_stream(
        memory,
        stream=r["stream"],
        requests=int(r["requests"]),
        inject=r["inject"],
        controller=replace(memory.controller, refresh=r["refresh"] == "on"),
    )
