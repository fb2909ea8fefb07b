"""The H200 as an architecture: its datasheet's peaks, its formats, and how its kernels behave."""

import numpy as np
import pytest

from accelsim.api import arch, check, simulate
from accelsim.arch.describe import peak_bytes_per_second, peak_macs_per_second
from accelsim.hw.simt import Simt
from accelsim.hw.tensor_core import TensorCore

H200 = arch("h200")
(TENSOR,) = H200.units_of(TensorCore).values()
(SIMT,) = H200.units_of(Simt).values()
DENSE_TFLOPS = {"bf16": 989, "fp16": 989, "fp8_e4m3": 1979, "fp8_e5m2": 1979, "int8": 1979}
DENSE_TFLOPS["tf32"] = 494.5
"""NVIDIA H200 datasheet, 2023, without sparsity."""


def microseconds(text, constants=None):
    return simulate(arch("h200", constants), text).seconds * 1e6


def test_the_peaks_are_those_of_the_datasheet():
    assert 2 * peak_macs_per_second(H200) == pytest.approx(989e12, rel=0.001)
    assert peak_bytes_per_second(H200, "hbm") == 4_800_000_000_000
    assert H200.memories["hbm"].capacity == 141 * 10**9
    assert H200.caches["l2"].capacity == 50 * 2**20


def test_what_is_carried_over_is_declared_as_calibrated():
    told = simulate(H200, "gemm:m=64,n=64,k=64").approximations
    for name in ("hbm.efficiency", "tensor.efficiency", "tensor.prologue", "simt.launch"):
        (said,) = (text for text in told if f"{name} =" in text)
        assert "calibrated, not published" in said
        assert "not fitted on rows of an H200 yet" in said


@pytest.mark.parametrize("dtype", DENSE_TFLOPS)
def test_every_dense_format_runs_near_its_peak_and_never_above(dtype):
    run = simulate(H200, f"gemm:m=4096,n=4096,k=4096,dtype={dtype}")
    tflops = 2 * 4096**3 / run.seconds / 1e12
    assert 0.6 * DENSE_TFLOPS[dtype] < tflops < DENSE_TFLOPS[dtype]
    # The array's share of the time is that of the format's own peak.
    (product,) = run.operators
    assert product.utilization == pytest.approx(tflops / DENSE_TFLOPS[dtype], rel=0.02)


@pytest.mark.parametrize("dtype", DENSE_TFLOPS)
def test_every_dense_format_is_right(dtype):
    assert check(H200, f"gemm:m=70,n=90,k=300,dtype={dtype}").ok


def test_waves_make_a_staircase():
    """By 128 rows at a time: nothing within a wave of CTAs, a jump where the next one begins."""
    times = np.array([microseconds(f"gemm:m={m},n=4096,k=4096") for m in range(1024, 4353, 128)])
    steps = np.diff(times)
    flat, jumps = np.abs(steps) < 0.03 * times[:-1], steps > 0.2 * times[:-1]
    assert flat.sum() > 0.6 * len(steps)
    assert 1 <= jumps.sum() <= 4
    assert steps[jumps].sum() > 0.6 * (times[-1] - times[0])


def test_flat_products_take_the_time_of_their_weights():
    one, many = (microseconds(f"gemm:m={m},n=8192,k=8192") for m in (1, 64))
    weights = 2 * 8192**2 / 4.8e6
    assert weights < one < many < 1.6 * weights


@pytest.mark.parametrize("kv_heads", [1, 4, 32])
def test_decode_attention_takes_the_time_of_its_cache(kv_heads):
    """Queries that share keys ride along: time goes with the keys' heads."""
    text = f"attention:heads=32,kv_heads={kv_heads},q=1,kv=16384,d=128,batch=16"
    cache = 2 * 2 * kv_heads * 16384 * 128 * 16 / 4.8e6
    assert cache < microseconds(text) < 1.6 * cache


def test_tiny_kernels_take_their_launch_and_little_else():
    launch = SIMT.launch / H200.clocks["core"] * 1e6
    tiny = microseconds("activation:function=relu,rows=1,cols=64")
    assert launch < tiny < launch + 1.5
    later = microseconds("activation:function=relu,rows=1,cols=64", {"simt.launch": 5000})
    assert later - tiny == pytest.approx((5000 - SIMT.launch) / 1830, rel=1e-3)
