"""Speed of the command-log checker: ten million commands, of DRAMsim3 and of every device."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from accelsim.hw.dram.catalog import list_devices
from accelsim.hw.dram.checker import check_log
from accelsim.hw.dram.dramsim3_ini import import_dramsim3
from accelsim.hw.dram.log import CommandLog, read_log
from accelsim.hw.dram.run import run_stream

pytestmark = pytest.mark.bench

DATA = Path(__file__).parents[1] / "unit/data/dramsim3"
COMMANDS = 10_000_000


def repeated(log, times):
    """The log so many times, each after the last and a refresh away from it."""
    columns = {one.name: np.tile(getattr(log, one.name), times) for one in fields(log)}
    span = int(log.cycle[-1]) + 10_000
    columns["cycle"] = columns["cycle"] + np.repeat(np.arange(times) * span, len(log))
    return CommandLog(**columns)


@pytest.mark.parametrize(
    ("config", "stream"),
    [("hbm2_1ch_refon", "mix21_rand"), ("ddr4_2400_refon", "mix21_seq")],
)
def test_check_ten_million_commands(benchmark, config, stream):
    device = import_dramsim3(DATA / f"{config}.ini").device
    one = read_log(DATA / f"{config}_{stream}_n1000.txt.gz")
    check_log(device, one, refresh=False)  # compiles
    log = repeated(one, COMMANDS // len(one) + 1)
    verdict = benchmark.pedantic(check_log, (device, log), {"refresh": False}, rounds=2)
    assert verdict.commands >= COMMANDS


def test_ten_million_random_commands_over_all_devices(benchmark):
    """Made and checked: about three commands a request."""

    def everything():
        runs = [
            run_stream(name, stream="mix21_rand", requests=COMMANDS // 35, check=True)
            for name in list_devices()
        ]
        assert sum(run.violations for run in runs) == 0
        return sum(sum(run.commands.values()) for run in runs)

    assert benchmark.pedantic(everything, rounds=1) >= COMMANDS
