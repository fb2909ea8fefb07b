"""Speed of casts and of accumulation: multiply-accumulates and values per second (extra_info)."""

import time

import numpy as np
import pytest

from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMATS

pytestmark = pytest.mark.bench

UNITS = [
    ("volta-mma", "fp16"), ("ampere-mma", "fp16"), ("hopper-wgmma", "bf16"),
    ("hopper-wgmma", "fp8_e4m3"), ("blackwell-tcgen05", "fp8_e4m3"), ("tree16-fp32", "fp16"),
    ("sequential-fp32", "fp16"), ("fma-fp32", "fp16"),
]  # fmt: skip


@pytest.mark.parametrize(("unit", "name"), UNITS)
def test_accumulation(benchmark, unit, name):
    m = n = 256
    k = 512
    fmt = FORMATS[name]
    rng = np.random.default_rng(1)
    a, b = (fmt.decode(fmt.encode(rng.standard_normal(s))) for s in ((m, k), (k, n)))
    rule = arithmetic(unit).rule(types_of(name, name, "fp32"))
    benchmark(rule.multiply, a, b, None)
    began = time.process_time()
    rule.multiply(a, b, None)
    busy = time.process_time() - began  # on both cores; other work on the machine does not count
    rates = [m * n * k / seconds / 1e6 for seconds in (benchmark.stats["min"], busy)]
    benchmark.extra_info["M MAC/s"], benchmark.extra_info["M MAC per CPU second"] = rates
    print("\n{} {}: {:.0f} M MAC/s, {:.0f} M MAC per CPU second".format(unit, name, *rates))


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e4m3", "int8"])
@pytest.mark.parametrize("rounding", ["RNE", "SR"])
def test_casts(benchmark, name, rounding):
    x = np.random.default_rng(2).standard_normal(1 << 20)
    benchmark(FORMATS[name].encode, x, rounding)
    print(f"\n{name} {rounding}: {len(x) / benchmark.stats['min'] / 1e6:.0f} M values/s")
