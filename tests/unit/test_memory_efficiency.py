"""The share of its bandwidth that a memory sustains: what transfers take, what is shown."""

from __future__ import annotations

import pytest

from accelsim.api import arch, simulate
from accelsim.arch.describe import peak_bytes_per_second
from accelsim.errors import AccelsimError
from accelsim.hw.memory import MainMemory

STREAM = "elementwise:function=add,rows=4096,cols=1024,dtype=fp32"


def test_a_stream_takes_its_bytes_over_the_sustained_bandwidth() -> None:
    nbytes = 3 * 4096 * 1024 * 4
    for efficiency in (1.0, 0.8, 0.5):
        result = simulate("tpu-v3", STREAM, overrides={"hbm.efficiency": efficiency})
        least = nbytes / (450e9 * efficiency) * 940e6
        assert result.bounds["hbm"] == pytest.approx(least, rel=0.01)
        assert least <= result.cycles < 1.05 * least


def test_the_peak_is_shown_without_it() -> None:
    assert peak_bytes_per_second(arch("tpu-v3", {"hbm.efficiency": 0.5}), "hbm") == 450 * 10**9


def test_a_full_one_changes_nothing() -> None:
    memory = MainMemory(capacity=2**30, bandwidth=123_456_789_123)
    assert memory.peak_bandwidth == 123_456_789_123


@pytest.mark.parametrize("efficiency", [0.0, -0.1, 1.01])
def test_impossible_shares_are_refused(efficiency: float) -> None:
    with pytest.raises(AccelsimError, match="efficiency must be above 0, at most 1"):
        arch("tpu-v3", {"hbm.efficiency": efficiency})
