"""The bound of attention whose operands are rounded on their way to the matrix unit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_bounds import (
    BF16,
    FP16,
    array,
    bounded,
    depth_of,
    exact_softmax,
    numbers,
    seeds,
    simulated_attention,
)

from accelsim.numerics import attention_bounds, bounds
from accelsim.numerics.ball import FP32, Ball

D, SCALE = 8, 0.25


def operands(kind, kv, seed):
    """q, k, v [n, D] in fp32, none of which a narrower format holds."""
    return [np.clip(numbers(kind, (n, D), seed + i), -100, 100) for i, n in enumerate((2, kv, kv))]


def rounded(x, formats):
    for fmt in formats:
        x = fmt.decode(fmt.encode(x)).astype(np.float32)
    return x


def exact(q, k, v):
    q, k, v = (x.astype(np.longdouble) for x in (q, k, v))
    return (exact_softmax(q @ k.T * SCALE) @ v).astype(float)


def bound_of(balls, operand):
    """The attention to what is read, and its bound."""
    kv = len(balls[1].value)
    depth = array("ws", 4).summation_depth(max(D, kv), None)
    sums = bounds.Summation(depth)
    steps = attention_bounds.AttentionSteps(sums, depth_of(kv), operand=operand)
    return attention_bounds.attention(*balls, SCALE, np.ones((2, kv), bool), steps)


def computed(read, operand, late):
    return simulated_attention(*read, SCALE, np.ones((2, len(read[1])), bool), operand, late)


@bounded
@given(
    kind=st.sampled_from(("normal", "positive", "one large", "subnormal")),
    kv=st.integers(4, 40),
    late=st.booleans(),
    formats=st.sampled_from(((BF16,), (FP16,), (FP16, BF16), (BF16, FP16))),
    seed=seeds,
)
def test_rounded_on_one_way(kind, kv, late, formats, seed):
    given_ = operands(kind, kv, seed)
    ball = bound_of([attention_bounds.as_read(x, (formats,)) for x in given_], formats[-1])
    off = ball.radius + np.abs(ball.value - exact(*given_))
    got = computed([rounded(x, formats) for x in given_], formats[-1], late)
    assert (np.abs(got - exact(*given_)) <= off).all()


@bounded
@given(kv=st.integers(4, 40), late=st.booleans(), seed=seeds)
def test_rounded_on_several_ways(kv, late, seed):
    """Some of the keys and values come as bf16, others as fp16."""
    given_ = operands("normal", kv, seed)
    ways = ((BF16,), (FP16,))
    ball = bound_of([attention_bounds.as_read(x, ways) for x in given_], BF16)
    which = np.random.default_rng(seed).integers(0, 2, (kv, 1))
    read = [np.where(which[: len(x)], *(rounded(x, way) for way in ways)) for x in given_]
    got = computed(read, BF16, late)
    assert (np.abs(got - exact(*given_)) <= ball.radius + np.abs(ball.value - exact(*given_))).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_bound_without_the_conversion_is_passed(seed):
    """Sums of probabilities are exact enough to show what bf16 took from keys and values."""
    given_ = operands("normal", 12, seed)
    got = computed([rounded(x, (BF16,)) for x in given_], FP32, True)
    blind = bound_of([Ball.exact(x) for x in given_], FP32)
    assert (np.abs(got - blind.value) > blind.radius).any()


def test_what_a_format_holds_is_read_as_it_is():
    x = np.array([0.0, 1.0, 2.0**-130, -1.5])
    for ways in ((), ((FP32,),), ((BF16,), (FP32, BF16))):
        ball = attention_bounds.as_read(x, ways)
        assert (ball.value == x).all()
        assert not ball.radius.any()
    other = attention_bounds.as_read(np.array([1.0 + 2.0**-9]), ((BF16,), (FP16,)))
    assert (other.value, other.radius) == (1.0, 2.0**-9)
