"""What a check judges: caches in another format."""

import importlib

import pytest

import accelsim as xs
from accelsim.workload.operators import Attention

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
