"""Looking an architecture up and changing a parameter: what a sweep does thousands of times."""

import itertools

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from accelsim.api import arch

pytestmark = pytest.mark.bench


def test_warm_lookup(benchmark: BenchmarkFixture) -> None:
    benchmark(arch, "tpu-v3")


def test_override(benchmark: BenchmarkFixture) -> None:
    made, rows = arch("tpu-v3"), itertools.count(1)
    benchmark(lambda: made.override({"mxu.rows": next(rows), "vmem.capacity": "8 MiB"}))
