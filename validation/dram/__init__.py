"""DRAM channels against two simulators, closed forms and the rules of their standards: all equal.

Simulators: one row per recorded run, on DDR4, GDDR6 and HBM2, sequential, random, strided and mixed
streams of up to 100,000 requests, with and without refresh. DRAMsim3's devices and controllers come
out of its own files by the importer; those of Ramulator 2.1 are device files of its presets under
policy ``first-ready``. Closed forms and checked commands: every shipped device. Nothing is
calibrated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import as_file, files

from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.run import MemoryRun, memory_device, run_stream
from accelsim.results.claims import Claim, Row, truth, within

from .checked import checked_rows
from .closed_forms import closed_form_rows

CLAIM = Claim(
    name="dram",
    statement="clocks of request streams on DRAM channels, closed forms, violated constraints",
    source="runs of DRAMsim3 2981759 (MIT, University of Maryland) and Ramulator 2.1 c5b1c3a (MIT, "
    "SAFARI); closed forms of the devices' timings",
    tolerance=0.0,
)

RAMULATOR_MAPPING = "RoBaBgRaPcCoCh"
"""What Ramulator's RoBaRaCoCh comes to: it takes the levels of a device from the channel down."""


def rows() -> Iterator[Row]:
    """Every recorded run, every closed form, every checked log."""
    for r in truth(__name__, "dramsim3.csv"):
        yield _row(
            "DRAMsim3", f"{r['config']} {r['stream']} n={r['requests']} {r['inject']}", r,
            simulated(r).acknowledged_cycles,
        )  # fmt: skip
    for r in truth(__name__, "ramulator.csv"):
        case = f"{r['device']} {r['stream']} n={r['requests']}"
        yield _row("Ramulator 2.1", case, r, simulated_first_ready(r).accepted_cycles)
    yield from closed_form_rows()
    yield from checked_rows()


def _row(split: str, case: str, r: Mapping[str, str], cycles: int) -> Row:
    case = f"{split} {case} refresh={r['refresh']}"
    return replace(within(case, int(r["cycles"]), cycles, CLAIM.tolerance), split=split)


def simulated(r: Mapping[str, str]) -> MemoryRun:
    """The run of a row of DRAMsim3."""
    with as_file(files(__name__) / f"{r['config']}.ini") as file:
        memory = memory_device(str(file))
    return run_stream(
        memory,
        stream=r["stream"],
        requests=int(r["requests"]),
        inject=r["inject"],
        controller=replace(memory.controller, refresh=r["refresh"] == "on"),
    )


def simulated_first_ready(r: Mapping[str, str]) -> MemoryRun:
    """The run of a row of Ramulator 2.1, which ends when the last request has been accepted."""
    standard = r["device"].partition("-")[0]
    with as_file(files(__name__) / f"ramulator_{standard}.yaml") as file:
        memory = memory_device(f"{file}:{r['device']}")
    return run_stream(
        memory,
        stream=r["stream"],
        requests=int(r["requests"]),
        mapping=RAMULATOR_MAPPING,
        controller=Controller.of_policy("first-ready", refresh=r["refresh"] == "on"),
    )
