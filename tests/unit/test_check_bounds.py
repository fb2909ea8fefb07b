"""What a check judges, and what it cannot: caches in another format, softmax without a bound."""

import importlib

import numpy as np
import pytest
from typer.testing import CliRunner

import accelsim as xs
from accelsim.cli.main import app
from accelsim.functional.lowering import Lowering
from accelsim.numerics.ball import Ball
from accelsim.workload.operators import Attention, Softmax

CHECK = importlib.import_module("accelsim.functional.check")  # the package names its function so

STEP = "gpt2:phase=decode,layers=1,hidden=128,heads=2,vocab=246,ffn=128,batch=1,context=200"
BANKS = "gpt3-7b:phase=decode,layers=1,hidden=256,heads=4,vocab=100,ffn=128,batch=4,context=200"
ATTENTION = "layer0.attention.attend"


def judged(verdict):
    return next(one for one in verdict.operators if one.name == ATTENTION)


@pytest.mark.parametrize(
    ("arch", "work", "mapper"),
    [
        ("npu-only", f"{STEP},dtype=bf16,kv_dtype=fp32", ()),
        ("npu-only", f"{STEP},dtype=fp16,kv_dtype=fp32", ()),
        ("hbm-pim", f"{STEP},dtype=bf16,kv_dtype=fp16", ()),
        ("tpu-v3", f"{STEP},dtype=bf16,kv_dtype=fp32", ()),
        ("neupims", f"{BANKS},dtype=fp16,kv_dtype=bf16", "pim-attention"),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_a_cache_in_another_format_is_judged_as_it_is_read(arch, work, mapper, scale):
    for seed in range(2):
        verdict = xs.check(arch, work, scale=scale, seed=seed, mapper=mapper)
        assert verdict.ok, str(verdict.first)


@pytest.mark.parametrize("kept", ["fp32", "fp16", "bf16"])
def test_a_value_that_is_left_out_is_found(kept, monkeypatch):
    """One token of 200 more than there should be, whether the cache is converted or not."""
    whole = CHECK.reference

    def without_a_token(op, operands):
        if isinstance(op, Attention):
            at = op.inputs.index(op.operand("v"))
            operands = [x.copy() if i == at else x for i, x in enumerate(operands)]
            operands[at][..., 17, :] = 0.0
        return whole(op, operands)

    monkeypatch.setattr(CHECK, "reference", without_a_token)
    for seed in range(3):
        verdict = xs.check("npu-only", f"{STEP},dtype=bf16,kv_dtype={kept}", seed=seed)
        assert judged(verdict).mismatches > 8


LARGE = (
    "llama-3-8b:phase=decode,layers=1,hidden=128,heads=1,vocab=202,ffn=512,dtype=bf16,kv_heads=1,"
    "batch=6,context=119"
)


def test_where_no_bound_is_known_nothing_is_called_wrong():
    verdict = xs.check("npu-only", LARGE, scale=16.0, seed=3)
    assert verdict.mismatches == 0
    assert not verdict.ok
    assert verdict.unjudged == judged(verdict).unjudged > 0
    assert str(verdict.first).startswith(f"{ATTENTION}: ")
    assert str(verdict.first).endswith(", of which no finite bound is known")
    assert xs.check("npu-only", LARGE, scale=16.0, seed=1).ok  # all equal
    assert xs.check("npu-only", LARGE, scale=1.0, seed=3).ok


def test_the_command_says_what_is_not_judged():
    done = CliRunner().invoke(app, ["check", "npu-only", LARGE, "--scale", "16", "--seed", "3"])
    assert done.exit_code == 1
    assert "NOT JUDGED: 0 of 207,036 elements differ" in done.output
    assert "no finite bound is known" in done.output
    assert "accepted: a smaller --scale" in done.output
    assert "WRONG" not in done.output


@pytest.mark.parametrize("bound", [np.inf, np.nan], ids=str)
def test_without_a_bound_only_equality_is_right_and_only_garbage_wrong(bound):
    exact = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    got = np.array([1.0, 2.5, np.nan, np.inf, 5.0])
    op = Softmax("soft", ("x",), ("y",), rows=1, cols=5)
    limit = np.array([bound, bound, bound, bound, 0.1])
    one = CHECK._count(op, "y", got, exact, limit, Lowering())
    assert (one.compared, one.mismatches, one.unjudged) == (5, 2, 1)
    assert one.first.index == (2,)


SMALL = "llama-2-7b:layers=1,hidden=256,ffn=512,heads=4,kv_heads=2,vocab=512,dtype=fp16,tokens=32"
GATE, DOWN = "layer0.ffn.gate", "layer0.ffn.down_proj"


@pytest.mark.parametrize("arch", ["hbm-npu", "a100"])
def test_what_is_beyond_the_largest_number_becomes_infinite(arch):
    """152 products are beyond 65504, in every row one: infinity is right, and what it makes."""
    verdict = xs.check(arch, SMALL, scale=16.0)
    assert verdict.mismatches == 0
    found = {one.name: (one.overflowed, one.unjudged) for one in verdict.operators}
    assert found[GATE] == (152, 0)
    assert found[DOWN] == (32 * 256 - 6839, 6839)  # infinity, or one less another
    assert not verdict.ok
    assert not any(one.overflowed for one in xs.check(arch, SMALL).operators)


@pytest.mark.parametrize("mutant", ["as if it were in range", "infinite for no reason"])
def test_an_overflow_that_should_not_be_is_found(mutant, monkeypatch):
    whole = CHECK.reference

    def changed(op, operands):
        exact = whole(op, operands)
        if op.name != GATE:
            return exact
        beyond = np.abs(exact) > 65536
        if mutant == "infinite for no reason":
            return np.where(beyond, np.sign(exact) * 60000.0, exact)
        return np.where(beyond, -exact, exact)

    monkeypatch.setattr(CHECK, "reference", changed)
    verdict = xs.check("hbm-npu", SMALL, scale=16.0)
    wrong = {one.name: one.mismatches for one in verdict.operators if one.mismatches}
    assert wrong == {GATE: 152}


def test_the_command_says_what_overflows():
    done = CliRunner().invoke(app, ["check", "hbm-npu", SMALL, "--scale", "16"])
    assert done.exit_code == 1
    assert "NOT JUDGED: 0 of" in done.output
    assert "elements are infinite, as they should be" in done.output


@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_what_was_never_written_is_wrong_whatever_is_expected(scale, monkeypatch):
    """At 16 the reference of all logits is NaN, as what has not been written is read."""
    whole = CHECK.execute

    def without_logits(*given):
        captures = whole(*given)
        left = {key: x for key, x in captures.tensors.items() if key[0] != "lm_head"}
        return type(captures)(**{**vars(captures), "tensors": left})

    monkeypatch.setattr(CHECK, "execute", without_logits)
    verdict = xs.check("hbm-npu", SMALL, scale=scale)
    assert verdict.mismatches == 512


def near(fmt, exact, radius, got):
    """How many of these are wrong."""
    output = CHECK.number_format(fmt)
    values = [np.array(x, np.float64) for x in (got, exact, radius)]
    return (~CHECK._overflows(output, *values)).sum()


def test_a_format_says_what_becomes_of_large_values():
    assert near("fp16", [65530.0, 65530.0, -7e4, 65510.0], [32.0, 52.0, 35.0, 44.0],
                [np.inf, 65504.0, -np.inf, np.inf]) == 0  # fmt: skip
    assert near("fp16", [65510.0, 7e4, 7e4, 9.0], [33.0, 36.0, 36.0, np.inf],
                [np.inf, -np.inf, np.nan, np.inf]) == 4  # fmt: skip
    assert near("fp8_e4m3", [500.0], [32.0], [np.nan]) == 0
    assert near("fp8_e4m3", [500.0], [32.0], [np.inf]) == 1
    assert near("fp4_e2m1", [9.0], [3.3], [6.0]) == 0


@pytest.mark.parametrize(
    ("fmt", "exact", "radius", "got"),
    [
        ("fp8_e4m3", 440.0, 10.0, np.nan), ("fp8_e4m3", 448.0, 0.5, np.nan),
        ("fp8_e5m2", 57344.0, 10.0, np.inf), ("fp16", 65504.0, 4.5, np.inf),
        ("bf16", 3.3895e38, 0.0, np.inf),
    ],
)  # fmt: skip
def test_what_rounds_to_the_largest_number_has_not_overflowed(fmt, exact, radius, got):
    """The bound holds the rounding: it does not come once more."""
    bound = Ball(np.array([exact]), np.array([radius])).rounded(CHECK.number_format(fmt)).radius
    assert near(fmt, [exact], bound, [got]) == 1


def test_an_operand_that_overflowed_leaves_its_own_sums_without_a_bound():
    """NaN where the reference has a number: wrong of the row without infinities, or unjudged."""
    op = Softmax("soft", ("x",), ("y",), rows=1, cols=4)
    got, exact = np.array([np.nan, np.nan, np.inf, 2.0]), np.array([1.0, 2.0, np.inf, 2.0])
    bound = np.array([np.nan, 0.1, np.nan, 0.1])
    one = CHECK._count(op, "y", got, exact, bound, Lowering(), unbounded=True)
    assert (one.mismatches, one.unjudged, one.overflowed) == (1, 1, 1)
    assert one.max_error_over_bound == np.inf
    one = CHECK._count(op, "y", got, exact, bound, Lowering())
    assert (one.mismatches, one.unjudged, one.overflowed) == (2, 0, 1)
