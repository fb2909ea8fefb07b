"""Speed of request streams on a memory, end to end; ten million random commands, checked."""

import time

import pytest

from accelsim import memory_stream
from accelsim.hw.dram.catalog import list_devices

pytestmark = pytest.mark.bench

REQUESTS = 1_000_000


@pytest.mark.parametrize("inject", ["saturating", "qd1"])
@pytest.mark.parametrize("stream", ["rand_read", "seq_read", "mix21_rand", "mix21_seq", "strided"])
@pytest.mark.parametrize("name", ["ddr4-2400", "hbm2"])
def test_requests_per_cpu_second(benchmark, name, stream, inject):
    memory_stream(name, stream, 1000, inject=inject)  # compiles
    run = benchmark.pedantic(memory_stream, (name, stream, REQUESTS), {"inject": inject}, rounds=3)
    began = time.process_time()
    memory_stream(name, stream, REQUESTS, inject=inject)
    seconds = time.process_time() - began
    benchmark.extra_info["requests_per_cpu_second"] = round(REQUESTS / seconds)
    benchmark.extra_info["clocks_per_cpu_second"] = round(run.cycles / seconds)


def test_check_ten_million_random_commands(benchmark):
    names = list_devices()

    def commands():
        total = 0
        for name in names:
            run = memory_stream(name, "mix21_rand", 260_000, check=True)
            assert run.violations == 0
            total += sum(run.commands.values())
        return total

    assert benchmark.pedantic(commands, rounds=1) >= 10_000_000
