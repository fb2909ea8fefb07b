"""Families of compute in memory: measured runs, what their logs show, and bad files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelsim.validation.pim_channels import attacc_run, commands_equal
from typer.testing import CliRunner

import accelsim
from accelsim.cli.main import app
from accelsim.errors import AccelsimError
from accelsim.hw.dram.energy import standby_power_mw
from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.channel.checker import check_log
from accelsim.hw.pim.channel.log import PimLog
from accelsim.hw.pim.layouts.families import weight_layout
from accelsim.hw.pim.layouts.layout import BankGrid
from accelsim.hw.pim.loader import FOLDER, load_families
from accelsim.hw.pim.operators import Gemv, parse
from accelsim.hw.pim.programs.registry import streams_of
from accelsim.hw.pim.run import run_pim
from accelsim.results.claims import truth

CLAIM = "accelsim.validation.pim_channels"


@pytest.mark.parametrize("name", ["newton", "neupims"])
def test_clocks_and_reads_of_the_measured_channel_are_equal(name: str) -> None:
    rows = [r for r in truth(CLAIM, "newton.csv") if r["family"] == name]
    for r in rows[::4] + rows[-3:]:
        run = run_pim(name, r["operator"], background=int(r["background"]))
        assert (run.cycles, run.background_reads) == (int(r["cycles"]), int(r["reads"])), r


def test_a_second_row_buffer_lets_reads_through() -> None:
    work = "logit:tokens=256,heads=8"
    alone, busy = run_pim("neupims", work), run_pim("neupims", work, background=128)
    assert busy.cycles <= 1.01 * alone.cycles
    assert busy.background_bytes_per_second >= 0.75 * busy.peak_bytes_per_second
    assert run_pim("newton", work, background=128).background_reads == 0


def test_attention_in_a_stack_sends_the_published_commands() -> None:
    rows = [r for r in truth(CLAIM, "attacc.csv") if int(r["cycle"]) < 40_000]
    for r in rows[::7]:
        run = attacc_run(r)
        assert commands_equal(r, run), r
        assert run.cycles == pytest.approx(int(r["cycle"]), rel=0.05), r


def test_products_of_aim_and_hbm_pim() -> None:
    for r in truth(CLAIM, "aim.csv"):
        assert run_pim("aim", f"gemv:m={r['m']},n={r['n']}").cycles == int(r["cycles"])
    for r in truth(CLAIM, "hbm_pim.csv"):
        run = run_pim("hbm-pim", f"gemv:m={r['m']},n={r['n']}")
        assert run.cycles == pytest.approx(int(r["cycles"]), rel=0.02), r


def test_pim_gpt_takes_its_closed_form() -> None:
    """The vector, then tRCD + 64 columns + tRP for each row of all banks, then CL and a burst."""
    one, two = (run_pim("pim-gpt", f"gemv:m={m},n=1024", refresh=False) for m in (128, 256))
    first, precharge, last = 2, 1, 1  # clocks before the first command, and of the others
    assert one.cycles == first + 64 + 12 + 64 + precharge + 12 + 1 + last
    assert two.cycles - one.cycles == 12 + 64 + 12
    assert one.commands == {"ACT_ABK": 8, "PRE_ABK": 8, "WR_GB": 512, "MAC_ABK": 512, "RD_MAC": 8}


def test_without_refresh_it_is_never_slower() -> None:
    for name in ("newton", "neupims", "hbm-pim", "pim-gpt"):
        with_it = run_pim(name, "gemv:m=16384,n=1024")
        without = run_pim(name, "gemv:m=16384,n=1024", refresh=False)
        assert without.cycles < with_it.cycles
        assert "REFAB" not in without.commands


def test_energy_counts_every_column_of_a_composite() -> None:
    dual, single = run_pim("neupims", "gemv:m=64,n=512"), run_pim("newton", "gemv:m=64,n=512")
    assert dual.commands["COMPS_READRES"] == 2
    assert single.commands["COMP"] == 64
    read = family("newton").commands[family("newton").number("COMP")].energy_pj
    assert dual.energy_pj["pim"] == pytest.approx(single.energy_pj["pim"] - 2 * read / 4, rel=1e-9)
    for run in (dual, single):
        parts = [pj for name, pj in run.energy_pj.items() if name != "total"]
        assert run.energy_pj["total"] == pytest.approx(sum(parts))


def test_a_rank_stands_by_once() -> None:
    """Whether it has one row buffer or two, of which one is open here."""
    for name in ("newton", "neupims"):
        found = family(name)
        run = run_pim(name, "logit:tokens=1024,heads=8")
        active, idle = standby_power_mw(found.device)
        time = found.device.organization.channel_ranks * run.cycles * found.device.tck_ns
        time *= run.channels
        assert idle * time <= run.energy_pj["standby"] <= active * time


def logged() -> PimLog:
    return run_pim("neupims", "gemv:m=96,n=512", background=16, log=True).logs[0]


def changed(log: PimLog, at: int, **values: int) -> PimLog:
    columns = {name: getattr(log, name).copy() for name in vars(log)}
    for name, value in values.items():
        columns[name][at] = value
    return PimLog(**columns)


def test_the_checker_finds_what_was_changed() -> None:
    found, log = family("neupims"), logged()
    assert check_log(found, log).ok
    opened = int(np.flatnonzero(log.command == found.number("G_ACT"))[5])
    composite = int(np.flatnonzero(log.command == found.number("COMPS_READRES"))[1])
    for at, values, rule in (
        (opened, {"row": 999}, "columns need their row open in all banks"),
        (composite, {"row": 999}, "columns need their row open in all banks"),
        (opened, {"cycle": int(log.cycle[opened - 1])}, "one command per clock on a command bus"),
        (opened, {"cycle": 0}, "commands in the order of their clocks"),
    ):
        assert rule in check_log(found, changed(log, at, **values)).rules, rule


def test_a_dropped_constraint_shows_in_the_log() -> None:
    found = family("neupims")
    for name in ("tFAW", "tRCDRD", "columns of the tile"):
        looser = replace(
            found, constraints=tuple(one for one in found.constraints if one.name != name)
        )
        log = run_pim(looser, "logit:tokens=96,heads=8", log=True).logs[0]
        assert name in check_log(found, log).rules


def test_a_late_refresh_is_found() -> None:
    found = family("neupims")
    log = run_pim("neupims", "gemv:m=16384,n=512", refresh=False, log=True).logs[0]
    assert not check_log(found, log).ok
    assert check_log(found, log, refresh=False).ok


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("scope: rank, cycles: tFAW", "scope: shelf, cycles: tFAW", "unknown scope 'shelf'"),
        ("role: header", "role: heading", "unknown role 'heading'"),
        ("energy: 16 RD", "energy: 16 XX", "accepted: 12.5 (pJ) or 4 RD"),
        *(
            ("energy: 16 RD", f"energy: {given}", "; accepted: 12.5 (pJ) or 4 RD, 0 to 1e+12 pJ")
            for given in (
                "1e400 RD",
                "1e300 RD",
                "nan ACT",
                "-1 RD",
                "1e400",
                "nan",
                ".nan",
                ".inf",
            )
        ),
        ("closes: PRE, hold", "closes: SHUT, hold", "unknown command 'SHUT'"),
        ("window: 1", "window: 99", "accepted: 1 to 32"),
        ("row_buffer: dual", "row_buffer: single", "row_buffer is single"),
        ("newton_hbm2.yaml:newton-hbm2", "hbm9", "unknown memory device 'hbm9'"),
        ("tCOMP: max", "tCOMP: most", "most"),
        ("accumulate: fp32", "accumulate: fp33", "unknown accumulate 'fp33'; did you mean 'fp32'"),
        ("accumulate: fp32", "accumulate: int32", "sums in int32, trees and lanes in fp32, fp16"),
        ("order: tree", "order: shrub", "unknown order 'shrub'; accepted: exact, lanes, tree"),
        ("order: tree", "order: exact", "accepted: exact sums in int32"),
        ("order: tree", "order: lanes, sum_banks: 4", "sum_banks = 4 with order lanes; accepted"),
        ("order: tree", "order: tree, sum_banks: 3", "a divisor of the 32 banks of a channel"),
        ("order: tree", "column_accumulate: fp8", "unknown column_accumulate 'fp8'; did you mean"),
        ("order: tree", "vector_bytes: 100", "unknown key of units 'vector_bytes'"),
        ("macs: 16", "macs: 24", "units.macs = 24; accepted: a power of two"),
        ("macs: 16", "macs: 4096", "unknown arithmetic 'tree4096-fp32'"),
        ("operand_bits: 16", "operand_bits: 128", "units.operand_bits = 128; accepted: 1 to 64"),
        ("channels: 32", "channels: 99999999999", "not 99999999999; accepted: 1 to 1024"),
        ("tGWRITE: (tCCD_S + tCCD_L) * 32", "tGWRITE: -5", "tGWRITE: -5; accepted: 0 to 1000"),
        ("tFILL: 6 * tCCD_S", "tFILL: tCCD_S - 9", "tFILL: tCCD_S - 9 = -8; accepted: 0 to 1000"),
        ("tFILL: 6 * tCCD_S", "tFILL: 6 * 999999999", "tFILL: 6 * 999999999 = 5999999994; accep"),
        ("hold: tGWRITE", "hold: -1", "hold: -1; accepted: 0 to"),
        ("cycles: tRTW, name: read to write", "cycles: -3, name: x", "cycles: -3; accepted: 0 to"),
        ("reopen: tRTP + tRP + tRCDRD", "reopen: -1", "reopen: -1; accepted: 0 to"),
        ("window: 1", "window: 1\n      pim_queue: 9999999", "pim_queue = 9999999; accepted: 1 to"),
        (
            "{tBuffers: tRRD_L",
            "{tBufers: tRRD_L",
            "unknown timing 'tBufers'; did you mean 'tBuffer",
        ),
        ("tFILL: 6 * tCCD_S", "tFAW: 8", "tFAW is that of newton-hbm2; accepted: a name that it"),
        ("channels: 32", "channels: 32\nnumbers: {pice: 16}", "unknown key of numbers 'pice'; did"),
        # A column that works on another row buffer than what opens its rows waits for ever.
        (
            "second_buffer: true, opens: G_ACT",
            "opens: G_ACT",
            "COMPS_READRES works on the first row buffer, and G_ACT, which it opens rows by, works"
            " on the second row buffer; accepted: the same second_buffer for both",
        ),
        ("role: close, reach: bank, second_buffer: true", "role: close, reach: bank", "PIM_PRE, w"),
    ],
)
def test_a_fault_in_a_file_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (FOLDER / "newton.yaml").read_text()
    assert old in text
    file = tmp_path / "own.yaml"
    file.write_text(text.replace(old, new))
    with pytest.raises(AccelsimError) as fault:
        load_families(file)
    assert message in str(fault.value)
    assert str(fault.value).startswith(f"{file}:")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("name", "family_name", "operator", "missing"),
    [
        ("newton.yaml", "neupims", "gemv:m=64,n=512", "P_HEADER"),
        ("newton.yaml", "neupims", "gemv:m=64,n=512", "COMPS_READRES"),
        ("newton.yaml", "newton", "gemv:m=64,n=512", "READRES"),
        ("hbm_pim.yaml", "hbm-pim", "gemv:m=64,n=512", "WR_CRF"),
        ("aim.yaml", "aim", "af:n=64", "RD_AF"),
        ("attacc.yaml", "attacc-bank", "attention:tokens=64,heads=2", "MV_SB"),
    ],
)
def test_a_command_that_a_program_misses_is_named(
    tmp_path: Path, name: str, family_name: str, operator: str, missing: str
) -> None:
    text = re.sub(rf"\b{missing}\b", f"{missing}2", (FOLDER / name).read_text())
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(AccelsimError) as fault:
        run_pim(f"{file}:{family_name}", operator)
    assert f"of family {family_name}: unknown command '{missing}'" in str(fault.value)
    assert f"did you mean '{missing}2'?" in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("name", "family_name", "operator", "missing"),
    [
        ("hbm_pim.yaml", "hbm-pim", "gemv:m=64,n=512", "crf"),
        ("aim.yaml", "aim", "gemv:m=64,n=512", "inputs_first"),
        ("attacc.yaml", "attacc-bank", "attention:tokens=64,heads=2", "longest_context"),
    ],
)
def test_a_figure_that_a_program_misses_is_named(
    tmp_path: Path, name: str, family_name: str, operator: str, missing: str
) -> None:
    text = re.sub(rf"\b{missing}: \d+(, )?", "", (FOLDER / name).read_text())
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(AccelsimError, match=f"of family {family_name} need numbers.{missing}: "):
        run_pim(f"{file}:{family_name}", operator)


def test_a_family_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    text = (FOLDER / "newton.yaml").read_text()
    file.write_text(text.replace("tGWRITE: (tCCD_S + tCCD_L) * 32", "tGWRITE: 48"))
    faster = run_pim(f"{file}:neupims", "gemv:m=32,n=512")
    assert faster.cycles == run_pim("neupims", "gemv:m=32,n=512").cycles - 48


def test_what_cannot_be_computed_is_refused_in_one_line() -> None:
    for name, work, message in (
        ("neupim", "gemv:m=1,n=1", "did you mean 'neupims'"),
        ("neupims", "conv:m=1", "unknown PIM operator 'conv'"),
        ("neupims", "gemv:m=0,n=1", "accepted: whole numbers from 1"),
        ("neupims", "gemv:m=1", "a value is missing"),
        ("neupims", "attention:tokens=4,heads=1", "accepted: logit, attend"),
        ("aim", "logit:tokens=4,heads=1", "accepted: gemv"),
        ("attacc-bank", "attention:tokens=9999,heads=1", "up to 4096"),
        ("newton", "gemv:m=16000000,n=512", "rows"),
    ):
        with pytest.raises(AccelsimError) as fault:
            run_pim(name, work)
        assert message in str(fault.value)
        assert "\n" not in str(fault.value)


def test_streams_say_what_they_hold() -> None:
    found = family("neupims")
    ((stream, channels),) = streams_of(found, parse("logit:tokens=70,heads=5"))
    assert channels == 1
    # Two chunks of a row (four heads and one), three tiles of 32 tokens each.
    assert stream.counts(found) == {"P_HEADER": 6, "GWRITE": 2, "COMPS_READRES": 15}
    ((stream, _),) = streams_of(family("newton"), Gemv(33, 513))
    assert stream.counts(family("newton"))["COMP"] == 2 * 32 + 2 * 1


def test_the_command_line(tmp_path: Path) -> None:
    log = tmp_path / "log.gz"
    call = ["memory", "neupims", "gemv:m=64,n=512", "--check", "--log", str(log), "--json", "-"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["cycles"] == 378
    assert said["checked"]["violations"] == 0
    assert said["schema"] == 1
    assert log.stat().st_size > 0
    run = accelsim.pim_run("neupims", "gemv:m=64,n=512")
    assert "378 clocks" in str(run)
    for words, message in (
        (["neupims"], "accepted: an operator after it"),
        (["neupims", "gemv:m=1,n=1", "--window", "3"], "--window goes with a request stream"),
        (["hbm2", "--background", "3"], "--background goes with an operator"),
        (["neupims", "gemv:m=1,n=1", "--background", "-1"], "background = -1"),
        (["ddr4-3200", "gemv:m=1,n=1"], "memory ddr4-3200 has no units beside its banks"),
        (["hbm-pim", "add:n=0"], "n = '0'; accepted: whole numbers from 1"),
        (["newton", "add:n=5"], "newton computes no add; accepted: logit, attend, gemv"),
    ):
        done = CliRunner().invoke(app, ["memory", *words])
        assert done.exit_code == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_lists_and_pages_name_the_families() -> None:
    listed = CliRunner().invoke(app, ["list", "memories"])
    assert "attacc-buffer" in listed.stdout
    page = CliRunner().invoke(app, ["show", "neupims"])
    assert "COMPS_READRES" in page.stdout
    assert "NPU of eight arrays on 32 channels" in page.stdout
    alone = CliRunner().invoke(app, ["show", "attacc-bank"])
    assert alone.stdout.startswith("attacc-bank ")
    refused = CliRunner().invoke(app, ["show", "attacc-bank", "--set", "hbm.channels=4"])
    assert refused.exit_code == 2
    assert "2 + 2 x max(k, 6)" in page.stdout


@pytest.mark.parametrize(
    ("name", "command", "m", "n"),
    [
        ("newton", "COMP", 129, 1030),
        ("neupims", "COMPS_READRES", 70, 1500),
        ("aim", "MAC_ABK", 1100, 2500),
        ("pim-gpt", "MAC_ABK", 300, 2500),
    ],
)
def test_a_program_opens_rows_in_the_order_of_the_layout(
    name: str, command: str, m: int, n: int
) -> None:
    found = family(name)
    parts, bits = found.device.organization, found.units.operand_bits
    channels = found.channels if command == "MAC_ABK" else 1
    grid = BankGrid(channels, found.banks, parts.rows, parts.row_bytes, parts.column_bytes, bits)
    layout = weight_layout(name, grid, m, n)
    groups, chunks = -(-m // (channels * grid.banks)), -(-n // grid.row_elements)
    assert groups > 1
    assert chunks > 1
    # What lies first in the first bank of the first channel, group by group and chunk by chunk.
    first = layout.place(
        grid.banks * np.arange(groups)[:, None], grid.row_elements * np.arange(chunks)
    )
    assert not first.channel.any()
    assert not first.bank.any()
    assert not first.column.any()
    ((stream, _),) = streams_of(found, Gemv(m, n))
    opened = stream.row[stream.command == found.number(command)]
    order = first.row if name == "aim" else first.row.T
    assert opened.tolist() == order.ravel().tolist()
    assert layout.last_row == opened.max()


def test_rows_that_stay_open_cost_a_tile_its_columns() -> None:
    plain, held = (run_pim(name, "gemv:m=64,n=512") for name in ("neupims", "neupims-held"))
    assert held.cycles == plain.cycles + 2 * 32
