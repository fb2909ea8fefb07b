"""What a stranger asks of compute in memory that it cannot do: one line that says what would be
accepted, or a line in the result that says who does it instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import accelsim as xs
from accelsim.arch.catalog import library_folder
from accelsim.cli.main import app
from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.pim import operators as ops
from accelsim.hw.pim.loader import FOLDER
from accelsim.simulation import plan_memory

STEP = "gpt3-7b:layers=1,phase=decode,batch=8"
LARGE = "gpt3-30b:phase=decode,batch=512,context=2000"


def refused(*arguments: str) -> str:
    """The one line that the command line answers with."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("accelsim: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        # DRAM without units, unknown families and operators.
        (
            ("memory", "ddr4-2400", "gemv:m=64,n=64"),
            "memory ddr4-2400 has no units beside its banks, which PIM commands need; accepted: a",
        ),
        (("memory", "neupim", "gemv:m=64,n=64"), "did you mean 'neupims'?"),
        (("memory", "neupims", "gemm:m=64,n=64"), "did you mean 'gemv'?"),
        (
            ("memory", "neupims", "logit:tokens=5,heads=3,tokens=7"),
            "logit:tokens=5,heads=3,tokens=7: tokens is given twice; accepted: once",
        ),
        (
            ("memory", "neupims", "logit:tokens=8"),
            "logit:tokens=8: a value is missing: heads; accepted: logit with tokens, heads, and if"
            " wanted head_dim (128)",
        ),
        (
            ("memory", "neupims", "gemv"),
            "gemv: a value is missing: m, n; accepted: gemv with m, n",
        ),
        (("memory", "hbm-pim", "logit:tokens=64,heads=8"), "accepted: gemv"),
        (("memory", "neupims", "logit:tokens=64,heads=8,head_dim=1024"), "accepted: 512"),
        (
            ("memory", "neupims", "logit:tokens=64,heads=8,head_dim=80"),
            "heads of 80 elements do not fit rows of 512 elements in 32 banks; accepted: 32, 64,",
        ),
        (("memory", "newton", "attend:tokens=64,heads=8,head_dim=16"), "accepted: 32, 64, 128"),
        (("memory", "pim-gpt", "attend:tokens=9,heads=8,head_dim=100"), "multiples of 16 up to"),
        (("memory", "pim-gpt", "logit:tokens=9,heads=8,head_dim=8"), "accepted: multiples of 16"),
        # Formats that lanes of 16 bits do not hold.
        (
            ("run", "hbm-pim", "gemm:m=1,n=4096,k=1024,dtype=bf16"),
            "error: gemm: the banks of hbm-pim multiply fp16, not bf16; accepted: dtype=fp16",
        ),
        (
            ("run", "attacc", "attention:heads=8,q=1,kv=512,d=128,batch=16,dtype=bf16"),
            "attention: the banks of attacc-bank multiply fp16, not bf16; accepted: dtype=fp16",
        ),
        (
            ("run", "hbm-pim", "gpt3-7b:phase=decode,batch=1,context=40,layers=1"),
            "layer0.attention.q_proj: the banks of hbm-pim multiply fp16, not bf16; accepted: d",
        ),
        (
            ("run", "attacc", f"{STEP},context=2048,dtype=fp16,kv_dtype=bf16"),
            "attacc-bank multiply fp16, not bf16; accepted: kv_dtype=fp16",
        ),
        (("memory", "neupims", "logit:tokens=16777216,heads=8"), "accepted: up to 32,768 rows"),
        (
            ("memory", "attacc-bank", "attention:tokens=4097,heads=32"),
            "4097 tokens; accepted: up to 4096, the context for which every head has rows in the",
        ),
        # What only a stream of requests has.
        *(
            (("memory", "neupims", "gemv:m=128,n=128", *option), f"{option[0]} goes with a request")
            for option in (
                ("--stream", "rand_read"), ("--stream", "seq_read"), ("--inject", "qd1"),
                ("--seed", "3"), ("--hashing",), ("--channels", "2"),
            )
        ),
        # Texts.
        (("generate", "gpt2-smal"), "'gpt2-smal'; did you mean 'gpt2-small'? accepted: gpt2"),
        (("generate", "llama-2-7b"), "'llama-2-7b'; accepted: gpt2, gpt2-large, gpt2-medium"),
        (("generate", "bert-base", "--on", "transpim"), "'bert-base'; accepted: gpt2"),
        (("generate", "gpt2", "--asic-clock", "0"), "--asic-clock 0; accepted: 1 Hz and more"),
        # Batches, devices and lengths.
        (("run", "neupims", f"{STEP},context=9,subbatch=2"), "accepted: batch from 256"),
        (("run", "neupims", f"{STEP},context=9,tp=3"), "tp 3; accepted: a divisor of heads 32"),
        (("run", "neupims", f"{STEP},dataset=alpacca"), "(did you mean 'alpaca'?)"),
        (("run", "neupims", f"{STEP},contexts=9+8"), "batch 8 with 2 contexts"),
        (
            ("run", "neupims", f"{STEP},contexts=7/9/20"),
            "request 0 is '7/9/20'; accepted: a whole number from 1 to 2147483647, of several"
            " requests joined by + (12+300+7)",
        ),
        # Parts that do not match.
        (
            ("run", "neupims", STEP, "--set", "hbm.family=ddr4-2400"),
            "neupims: hbm: memory ddr4-2400 has no units beside its banks",
        ),
        (
            ("run", "neupims", STEP, "--set", "hbm.channels=16", "--set", "hbm.capacity=8 GiB"),
            "32 channels of neupims on hbm, which has 16 of neupims",
        ),
        # What another controller would ask; the family's has rules of its own.
        *(
            (("run", "neupims", STEP, "--set", f"hbm.{one}"), f"hbm.{one.partition('=')[0]}: ")
            for one in ("page=closed", "window=1", "hit_cap=1", "refresh_kind=per-bank")
        ),
        (
            ("run", "neupims", STEP, "--set", "hbm.channels=16"),
            "more than 16 channels of newton-hbm2 hold; accepted: up to 68719476736 B",
        ),
        (
            ("run", "neupims", STEP, "--set", "pim.results=hbm"),
            "neupims: pim.results: hbm is a memory of all cores; accepted: a scratchpad",
        ),
        # Families, which banks have, and machines that are asked elsewhere.
        (
            ("run", "newton", STEP),
            "'newton' is a family of banks that compute, not an architecture; accepted: accelsim m",
        ),
        (("run", "transpim", STEP), "accepted: accelsim generate MODEL --on transpim or accelsim"),
        # Mappers that somebody named.
        (
            ("run", "neupims", f"{STEP},context=9,heads=40,hidden=3200", "--mapper",
             "pim-attention"),
            "heads of whole turns of 32 banks that divide a row of 512 elements, not 80",
        ),
        (
            ("run", "hbm-npu", STEP, "--mapper", "pim-attention"),
            "pim-attention needs pim and pim_dram",
        ),
    ],
)  # fmt: skip
def test_it_is_refused_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*arguments)


def test_units_of_banks_on_a_plain_memory_are_refused(tmp_path: Path) -> None:
    text = (library_folder() / "neupims.yaml").read_text()
    plain = text.replace("kind: pim_dram, family: neupims,", "kind: dram, device: hbm2,")
    plain = plain.replace("rows: 131072, capacity: 128 GiB", "capacity: 8 GiB")
    (tmp_path / "plain.yaml").write_text(plain)
    line = refused("show", str(tmp_path / "plain.yaml"))
    assert "plain.yaml:11: hbm (kind: dram) has no units beside its banks" in line
    assert "accepted: a memory of kind: pim_dram" in line


@pytest.mark.parametrize(
    ("arguments", "holds", "fit"),
    [
        (("neupims", LARGE), "128 GiB", 55_381),
        (("neupims", f"{LARGE},subbatch=2"), "128 GiB", 55_381),
        (("neupims", LARGE, "--mapper", "flash-attention"), "128 GiB", 56_267),
        (("a100", LARGE), "80 GiB", 18_818),
    ],
)
def test_a_cache_beyond_memory_tells_how_many_tokens_fit(
    arguments: tuple[str, ...], holds: str, fit: int
) -> None:
    line = refused("run", *arguments)
    assert "KV cache of 1,024,000 tokens of all requests" in line
    assert f"it has {holds}: {fit:,} tokens fit, " in line
    assert line.endswith(" requests")


def test_as_many_tokens_fit_as_it_says() -> None:
    """56,267 tokens are 109 of each of 512 requests, not 110."""
    machine, arrays = xs.arch("neupims"), ("flash-attention",)
    for context in (109, 110):
        graph = xs.workload("gpt3-30b", phase="decode", batch=512, context=context)
        if context == 109:
            plan_memory(graph, machine, "bandwidth", arrays)
            continue
        with pytest.raises(CapacityError, match=r"of 56,320 tokens .*: 56,267 tokens fit"):
            plan_memory(graph, machine, "bandwidth", arrays)


def test_attention_that_stays_on_the_arrays_says_why() -> None:
    narrow = xs.workload(
        "gpt3-7b", phase="decode", layers=1, batch=40, context=33, hidden=640, heads=8, vocab=64
    )
    mapping = {
        op.kind: op.mapping for op in xs.simulate("neupims", narrow).operators if op.kind != "gemm"
    }
    assert (
        "not by pim-attention, which accepts heads of whole turns of 32 banks"
        in (mapping["attention"])
    )
    few = xs.workload("gpt3-7b", phase="decode", layers=1, batch=2, context=33, vocab=64)
    run = xs.simulate("neupims", few)
    told = next(op.mapping for op in run.operators if op.kind == "attention")
    assert "not by pim-attention, which accepts what is sooner in the banks than reading" in told
    assert not any("not by" in text for text in run.approximations)
    there = xs.simulate("neupims", few, mapper="pim-attention")
    assert not any("not by" in op.mapping for op in there.operators)
    other = xs.simulate("hbm-npu", few)
    assert not any("not by" in op.mapping for op in other.operators)


def test_a_mapper_that_somebody_named_and_that_does_not_take_it_is_told() -> None:
    run = xs.simulate("neupims", "gemm:m=100,n=64,k=64", mapper="pim-gemv")
    assert run.mapper == "systolic-gemm"
    told = "gemm not by pim-gemv, which accepts x W of up to 64 rows"
    assert any(text.startswith(told) for text in run.approximations)
    assert not any("pim-gemv" in text for text in xs.simulate("neupims", "gemm:m=100,n=64,k=64")
                   .approximations)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        # Runs whose commands come sooner than a constraint between them allows.
        (
            "pim_gpt",
            "after: MAC_ABK, scope: channel, cycles: tCCD_S, name: tCCD",
            "after: MAC_ABK, scope: channel, cycles: tCCD_S + 1, name: tCCD",
            "pim-gpt: MAC_ABK: step 1 of its runs, but tCCD asks 2 from one MAC_ABK to the next;"
            " accepted: step 2 or more",
        ),
        ("hbm_pim", "WR_GRF: {role: move, reach: rank, repeat: run, step: tPIM",
         "WR_GRF: {role: move, reach: rank, repeat: run, step: 3", "WR_GRF: step 3 of its runs"),
        # Commands that may not overtake each other.
        ("transpim", "window: 1", "window: 2", "transpim: rules.window = 2, but in programs"
         " bit-serial operations take the rows that those before them left and closed; accepted:"
         " 1, commands in order"),
        ("hbm_pim", "window: 1", "window: 4", "hbm-pim: rules.window = 4, but in programs hbm-pim"
         " columns take the instructions of one microprogram, in order; accepted: 1"),
        # Barriers in a queue that has none.
        ("attacc", "window: 32", "window: 1", "attacc-bank: rules.window = 1, but programs attacc"
         " part their steps by barriers, which a queue in order has not; accepted: 2 to 32"),
        ("newton", "window: 1", "window: 4", "in programs newton rows and columns belong to the"),
        ("aim", "window: 1", "window: 4", "in programs banks columns take the vector that was"),
        ("aim", "WR: {role: column, reach: bank,",
         "WR: {repeat: run, step: 1, role: column, reach: bank,", "WR: step 1 of its runs, but"),
    ],
)  # fmt: skip
def test_a_family_whose_channel_would_break_its_own_rules_is_refused(
    tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert old in text
    file = tmp_path / "own.yaml"
    file.write_text(text.replace(old, new))
    line = refused("memory", f"{file}:{name.replace('_', '-')}", "gemv:m=64,n=512", "--check")
    assert line.startswith(f"accelsim: error: {file}:")
    assert words in line


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ops.Gemv(0, 5), "Gemv: m = 0; accepted: whole numbers from 1 to 16,777,216"),
        (lambda: ops.Gemv(-5, 5), "Gemv: m = -5; accepted"),
        (lambda: ops.Gemv(5, 2.5), "Gemv: n = 2.5; accepted"),  # type: ignore[arg-type]
        (lambda: ops.Gemv("3", 5), "Gemv: m = '3'; accepted"),  # type: ignore[arg-type]
        (lambda: ops.Gemv(True, 5), "Gemv: m = True; accepted"),
        (lambda: ops.Gemv(1 << 25, 5), "Gemv: m = 33554432; accepted"),
        (lambda: ops.Attention(0, 0), "Attention: tokens = 0; accepted"),
        (lambda: ops.Attention(4, 4, bytes=0), "Attention: bytes = 0; accepted"),
        (lambda: ops.Ewmul(0), "Ewmul: n = 0; accepted"),
        (lambda: ops.Logit(10, 1, 0), "Logit: head_dim = 0; accepted"),
        (lambda: ops.Attend(10, None), "Attend: heads = None; accepted"),  # type: ignore[arg-type]
        (lambda: ops.parse("gemv:m=5,n=" + "9" * 5000), "gemv: n = '999"),
        (lambda: xs.pim_run(1, "gemv:m=4,n=4"), "family is 1; accepted: a name such"),  # type: ignore[arg-type]
        (lambda: xs.pim_run(None, "gemv:m=4,n=4"), "family is None; accepted"),  # type: ignore[arg-type]
        (lambda: xs.pim_run("neupims", 5), "operator is 5; accepted: a text such as"),  # type: ignore[arg-type]
        (lambda: xs.pim_run("neupims", None), "operator is None; accepted"),  # type: ignore[arg-type]
        *(
            (lambda given=given: xs.pim_run("neupims", "gemv:m=4,n=4", **given), words)
            for given, words in (
                ({"background": "5"}, "background = '5'; accepted: 0 to 1000, a whole number"),
                ({"background": 2.5}, "background = 2.5; accepted: 0 to 1000"),
                ({"refresh": "off"}, "refresh is 'off'; accepted: True or False"),
                ({"log": 3}, "log is 3; accepted: True or False"),
                ({"check": None}, "check is None; accepted: True or False"),
            )
        ),
        (lambda: xs.generate("gpt2", tokens="7"), "tokens = '7'; accepted: 1 to 65,536, a whole"),  # type: ignore[arg-type]
        (lambda: xs.generate("gpt2", tokens=2.5), "tokens = 2.5; accepted"),  # type: ignore[arg-type]
        (lambda: xs.generate("gpt2", machine="pim-gpt"), "machine is 'pim-gpt'; accepted: BankD"),  # type: ignore[arg-type]
        (lambda: xs.generate(5), "model is 5; accepted: a name such as 'gpt2'"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_values_of_other_types_are_refused_in_python(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(AccelsimError) as fault:
        make()
    assert words in str(fault.value)
    assert "\n" not in str(fault.value)


def test_numbers_of_numpy_are_numbers() -> None:
    assert ops.Gemv(np.int32(3), np.int64(5)) == ops.Gemv(3, 5)  # type: ignore[arg-type]
    assert type(ops.Gemv(np.int32(3), 5).m) is int  # type: ignore[arg-type]
