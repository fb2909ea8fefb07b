"""What a check judges, and what it cannot: caches in another format, softmax without a bound."""

import importlib

import numpy as np
import pytest
from typer.testing import CliRunner

import accelsim as xs
from accelsim.cli.main import app
from accelsim.functional.lowering import Lowering
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
