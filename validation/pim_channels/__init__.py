"""Channels that compute against the simulators of four families, and what a second row buffer buys.

Newton and NeuPIMs: GEMV, logit and attend of one channel, with and without reads beside them, equal
in clocks. AttAcc: attention in a stack, at banks, bank groups and buffer die; the numbers of all
commands are equal, and cycles within 5 % for 95 % of the points. The authors' table holds results
of two generations of their simulator, one of which opens rows before a barrier is passed; short
contexts at the banks tell them apart. AiM and HBM-PIM: GEMV. Calibrated are two delays of AiM, four
of HBM-PIM's kernels and the time since its last refresh, on the rows named fit.

HBM-PIM against ideal reads and writes: the published benchmarks, of which gemv, mul, add and relu
take these delays and nothing of their own; the baseline is this simulator's, sequential streams
over the same channels, refreshed from another clock on. No run of AiM's commands for vectors is
published; tests hold them to their closed forms. The same kernels as products of a tile program
(architecture hbm-pim) take what they take as streams; results, which the recorded runs leave in the
banks, are read on top of that there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from accelsim.api import arch, workload
from accelsim.engine.bind import bind
from accelsim.hw.dram.run import run_stream
from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.run import PimRun, run_pim
from accelsim.program.opcodes import Opcode
from accelsim.results.claims import Claim, Row, truth, within
from accelsim.simulation import compile_program, plan_memory

CLAIM = Claim(
    name="pim-channels",
    statement="clocks and commands of GEMV, attention and vectors in memory; reads beside them",
    source="runs of NeuPIMs' NewtonSim f299af3, aim_simulator 0f28a07 and PIMSimulator b464dde; "
    "results of attacc_simulator c600051 (MIT, SNU SCAL)",
    tolerance=0.05,
)

NEWTON_TOLERANCE = 0.02
READS_TOLERANCE = 0.02
ATTACC_SHARE = 0.95

LEVELS = {"BA": "attacc-bank", "BG": "attacc-bg", "BUFFER": "attacc-buffer"}
MACS = ("MAC_AB", "MAC_SB", "MAC_PB")
COUNTED = {"softmax": "SFM", "mvgb": "MV_GB", "mvsb": "MV_SB", "wrgb": "WR_GB"}


def rows() -> Iterator[Row]:
    """Every recorded run, and the two statements about concurrency."""
    yield from newton_rows()
    yield from concurrency_rows()
    yield from attacc_rows()
    for file, name in (("aim.csv", "aim"), ("hbm_pim.csv", "hbm-pim")):
        for r in truth(__name__, file):
            run = run_pim(name, f"gemv:m={r['m']},n={r['n']}")
            case = f"{name} {run.operator}"
            row = within(case, int(r["cycles"]), run.cycles, CLAIM.tolerance)
            yield replace(row, split=r["split"])
    yield from benchmark_rows()
    yield from program_rows()


def program_rows() -> Iterator[Row]:
    """HBM-PIM's GEMV as a tile program: clocks of its kernels in the busiest pseudo-channel."""
    machine = arch("hbm-pim")
    for r in truth(__name__, "hbm_pim.csv"):
        graph = workload(f"gemm:m=1,n={r['m']},k={r['n']},dtype=fp16")
        plan = plan_memory(graph, machine, "bandwidth", ("pim-gemv",))
        program = compile_program(graph, graph.operators, machine, plan, "bandwidth", ("pim-gemv",))
        mine = program.column("opcode") == Opcode.PIM
        clocks = np.bincount(program.column("unit")[mine], bind(program, machine).work[mine]).max()
        case = f"hbm-pim gemm:m=1,n={r['m']},k={r['n']}"
        row = within(case, int(r["cycles"]), int(clocks), CLAIM.tolerance)
        yield replace(row, split="program")


def benchmark_rows() -> Iterator[Row]:
    """Clocks in memory and without it, as far as recorded, and the published speed-ups."""
    for r in truth(__name__, "hbm_pim_vectors.csv"):
        run, plain = run_pim("hbm-pim", r["operator"]), baseline_clocks(r)
        case = f"hbm-pim {run.operator}"
        found = [within(f"{case} speed-up", float(r["speedup"]), plain / run.cycles, 0.05)]
        if r["cycles"]:
            found.append(within(case, int(r["cycles"]), run.cycles, CLAIM.tolerance))
            found.append(
                within(f"{case} reads, writes", int(r["baseline"]), plain, CLAIM.tolerance)
            )
        yield from (replace(row, split="benchmark") for row in found)


def baseline_clocks(r: Mapping[str, str]) -> int:
    """Sequential reads and writes of one channel's share, one stream after the other."""
    found = family("hbm-pim")
    burst = found.device.organization.column_bytes * found.channels // 2
    return sum(
        run_stream(found.device, stream=stream, requests=max(1, int(elements) // burst)).cycles
        for stream, key in (("seq_read", "reads"), ("seq_write", "writes"))
        for elements in r[key].split()
    )


def newton_rows() -> Iterator[Row]:
    for r in truth(__name__, "newton.csv"):
        run = run_pim(r["family"], r["operator"], background=int(r["background"]))
        case = f"{r['family']} {r['operator']} background={r['background']}"
        row = within(case, int(r["cycles"]), run.cycles, NEWTON_TOLERANCE)
        yield replace(row, split=r["family"])
        if int(r["background"]):
            reads = within(f"{case} reads", int(r["reads"]), run.background_reads, READS_TOLERANCE)
            yield replace(reads, split=r["family"])


def concurrency_rows() -> Iterator[Row]:
    """1024 tokens beside 128 reads: a second row buffer lets three quarters of the bandwidth flow,
    one row buffer lets no read end before the product does."""
    work = "logit:tokens=1024,heads=8"
    alone, busy = run_pim("neupims", work), run_pim("neupims", work, background=128)
    slower = busy.cycles / alone.cycles
    yield Row("neupims slowed by reads", 1.0, slower, slower <= 1.01, "concurrency")
    share = busy.background_bytes_per_second / busy.peak_bytes_per_second
    yield Row("neupims bandwidth beside it", 0.75, share, share >= 0.75, "concurrency")
    blocked = run_pim("newton", work, background=128)
    ended = blocked.background_reads
    yield Row("newton reads before the end", 0, ended, ended == 0, "concurrency")


def attacc_rows() -> Iterator[Row]:
    """Cycles of every point, whose commands must be equal; then the share that keeps 5 %."""
    inside, points = 0, 0
    for r in truth(__name__, "attacc.csv"):
        run = attacc_run(r)
        case = f"{run.family} {run.operator}"
        row = within(case, int(r["cycle"]), run.cycles, CLAIM.tolerance)
        inside, points = inside + row.ok, points + 1
        yield replace(row, ok=commands_equal(r, run), split="attacc")
    share = inside / points
    yield Row("AttAcc share of points within 5 %", 1.0, share, share >= ATTACC_SHARE, "attacc")


def attacc_run(r: Mapping[str, str]) -> PimRun:
    """The run of one point of the authors' table."""
    level = LEVELS[r["pim_type"]]
    if r["power_constraint"] == "False" and r["pim_type"] != "BUFFER":
        level += "-unlimited"
    return run_pim(
        level,
        f"attention:tokens={r['L']},heads={r['nhead']},head_dim={r['dhead']},bytes={r['dbyte']}",
    )


def commands_equal(r: Mapping[str, str], run: PimRun) -> bool:
    """Whether all five numbers of commands are those of the table."""
    macs = sum(run.commands.get(name, 0) for name in MACS)
    others = all(int(r[key]) == run.commands.get(name, 0) for key, name in COUNTED.items())
    return macs == int(r["mac"]) and others
