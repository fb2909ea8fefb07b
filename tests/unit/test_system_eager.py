"""Generation under a framework: hosts and devices, passes, and what T4 and Xeon reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import accelsim as xs
from accelsim.errors import AccelsimError
from accelsim.system import eager
from accelsim.system.eager import EagerGeneration, extra_bytes
from accelsim.system.generation import generate

T4 = xs.arch("t4")


def test_passes_of_a_cached_step_by_hand() -> None:
    """gelu_new, scale and mask, and a cache that is written anew; two bytes, read and written."""
    graph = xs.workload("gpt2", phase="decode", context=8, layers=1)
    elements = 7 * 3072 + 2 * 12 * 8 + 2 * 12 * 8 * 64
    assert extra_bytes(graph, cached=True) == 2 * 2 * elements
    assert extra_bytes(graph, cached=False) == 2 * 2 * (7 * 3072 + 2 * 12 * 8)


@pytest.fixture
def quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that take a known polynomial of the length of the text."""

    def seconds(arch: object, cached: bool, graph: Any) -> float:
        n = next(op.kv_len for op in graph.operators if op.kind == "attention")
        return 1e-3 * (1 + n) if cached else 1e-3 * (1 + n + 1e-2 * n * n)

    monkeypatch.setattr(eager, "_device_seconds", seconds)


@pytest.mark.usefixtures("quadratic")
def test_a_device_behind_its_host_takes_the_slower_of_both() -> None:
    for cached in (True, False):
        found = EagerGeneration(T4, "fp16", cached, True, 70.0, layer_us=5000.0)
        n = np.arange(1, 257)
        device = 1e-3 * (1 + n) if cached else 1e-3 * (1 + n + 1e-2 * n * n)
        steps = found.step_seconds("gpt2", 256)
        assert steps == pytest.approx(np.maximum(device, 12 * 5e-3))
        synchronous = EagerGeneration(T4, "fp16", cached, False, 70.0, layer_us=5000.0)
        assert synchronous.step_seconds("gpt2", 256) == pytest.approx(device + 12 * 5e-3)


@pytest.mark.usefixtures("quadratic")
def test_energy_is_the_power_of_the_board_all_the_time() -> None:
    run = generate("gpt2", EagerGeneration(T4, "fp16", True, True, 70.0), 64)
    assert run.joules == pytest.approx(70 * run.seconds)
    assert run.machine == "t4"


def test_a_host_without_a_figure_is_refused() -> None:
    with pytest.raises(AccelsimError, match=r"call_us\.layer; accepted: layer_us"):
        _ = EagerGeneration(xs.arch("a100"), "fp16", True, True, 400.0).us_of_a_layer


def test_t4_reaches_what_its_board_lets_it() -> None:
    """24 TFLOP/s of cuBLAS at 4096, and its memory's 240 GB/s where one token decodes."""
    run = xs.simulate("t4", "gemm:m=4096,n=4096,k=4096,dtype=fp16")
    assert 2 * run.macs / run.seconds == pytest.approx(24e12, rel=0.05)
    read = xs.simulate("t4", "gemm:m=1,n=8192,k=8192,dtype=fp16")
    assert 2 * 8192**2 / read.seconds == pytest.approx(240e9, rel=0.15)


@pytest.mark.parametrize(("cores", "rate"), [(18, 99.8e9), (1, 10.8e9)])
def test_xeon_reads_as_its_memory_and_its_cores_let_it(cores: int, rate: float) -> None:
    machine = xs.arch("xeon-6154", {"cores": cores})
    run = xs.simulate(machine, "gemm:m=1,n=4096,k=4096,dtype=fp32")
    assert 4 * 4096**2 / run.seconds == pytest.approx(rate, rel=0.1)
