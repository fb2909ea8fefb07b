"""Encoding: one rounding to nearest even, saturating integers, silent overflow to infinity."""

import numpy as np
import pytest

from accelsim.numerics.formats import FORMATS


def test_halves_round_to_even():
    eps = 2.0**-11
    values = np.array([1 + eps, 1 + 3 * eps, -(1 + eps)], dtype=np.float32)
    assert FORMATS["fp16"].encode(values).tolist() == [1.0, 1 + 4 * eps, -1.0]
    values = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8], dtype=np.float32)
    assert FORMATS["bf16"].encode(values).astype(float).tolist() == [1.0, 1 + 4 * 2.0**-8]


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32"])
def test_overflow_is_infinite_and_silent(name):
    assert np.isinf(FORMATS[name].encode(np.array([3.4e38, -3.4e38]) * 1e3).astype(float)).all()


def test_integers_saturate():
    fmt = FORMATS["int8"]
    assert fmt.encode(np.array([300, -300, 5], dtype=np.int32)).tolist() == [127, -128, 5]
    assert fmt.encode(np.array([2.5, 3.5, -1e9, np.nan])).tolist() == [2, 4, -128, 0]
    assert FORMATS["int32"].encode(np.array([3e9, -3e9])).tolist() == [2**31 - 1, -(2**31)]


@pytest.mark.parametrize("name", list(FORMATS))
def test_stored_values_survive_a_round_trip(name):
    fmt = FORMATS[name]
    stored = fmt.encode(np.array([-3.0, 0.0, 1.0, 100.0]))
    assert fmt.encode(fmt.decode(stored)).tobytes() == stored.tobytes()
