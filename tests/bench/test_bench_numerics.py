"""Speed of casts and of accumulation: multiply-accumulates and values per second (extra_info)."""

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
    benchmark.extra_info["M MAC/s"] = m * n * k / benchmark.stats["min"] / 1e6
    print(f"\n{unit} {name}: {m * n * k / benchmark.stats['min'] / 1e6:.0f} M MAC/s")


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e4m3", "int8"])
@pytest.mark.parametrize("rounding", ["RNE", "SR"])
def test_casts(benchmark, name, rounding):
    x = np.random.default_rng(2).standard_normal(1 << 20)
    benchmark(FORMATS[name].encode, x, rounding)
    print(f"\n{name} {rounding}: {len(x) / benchmark.stats['min'] / 1e6:.0f} M values/s")
