"""PIM-GPT: streams of attention by hand, functions by additions, and a text token by token."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from accelsim.validation.pim_gpt import inside
from typer.testing import CliRunner

import accelsim as xs
from accelsim.arch.catalog import library_folder
from accelsim.cli.main import app
from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.adder_array import AdderArray
from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.operators import Attend, Gemv, Logit
from accelsim.hw.pim.programs.bank_attention import append_cycles, cache_rows
from accelsim.hw.pim.run import run_pim
from accelsim.program.opcodes import Function
from accelsim.system.bank_decoder import PIM_GPT_ASIC, BankDecoder
from accelsim.system.generation import generate
from accelsim.system.spending import NOTHING, Spent

F = Function
CHANNELS, BANKS, MACS = 8, 16, 16
DECODER = BankDecoder()


def test_logit_opens_a_row_for_the_heads_that_lie_in_it() -> None:
    """24 heads of 128: eight a row, so three chunks of two groups of 128 tokens."""
    run = run_pim("pim-gpt", Logit(256, 24), refresh=False, check=True)
    assert run.violations == 0
    assert run.commands == {
        "ACT_ABK": CHANNELS * 6, "PRE_ABK": CHANNELS * 6, "WR_GB": CHANNELS * 3 * 64,
        "MAC_ABK": CHANNELS * 6 * 64, "RD_MAC": CHANNELS * 24 * 2,
    }  # fmt: skip
    assert run.commands["MAC_ABK"] * MACS * BANKS == run.macs


def test_heads_that_do_not_divide_a_row_leave_its_end_empty() -> None:
    """16 heads of 96: ten a row, then six."""
    run = run_pim("pim-gpt", Logit(128, 16, 96), refresh=False, check=True)
    assert run.violations == 0
    assert run.commands["ACT_ABK"] == CHANNELS * 2
    assert run.commands["MAC_ABK"] * MACS * BANKS == run.macs


def test_attend_writes_the_weights_of_each_head_once() -> None:
    """12 heads of 64 are six tiles of 128 elements, two heads each of which a channel has one."""
    run = run_pim("pim-gpt", Attend(512, 12, 64), refresh=False, check=True)
    assert run.violations == 0
    assert run.commands["ACT_ABK"] == CHANNELS * 6
    assert run.commands["WR_GB"] == run.commands["MAC_ABK"] == CHANNELS * 6 * 512 // MACS
    # Heads of 256 take two tiles with the same weights.
    wide = run_pim("pim-gpt", Attend(512, 2, 256), refresh=False)
    assert wide.commands["WR_GB"] * 2 == wide.commands["MAC_ABK"]


def test_an_append_opens_rows_of_keys_and_of_values() -> None:
    """Keys: two rows with 96 columns; values: 12 tiles with a column in each bank."""
    opened = 12 + 4 + 1 + 12 + 12
    assert append_cycles(family("pim-gpt"), 24, 64) == (2 + 12) * opened + 96 + 12 * BANKS


def test_a_product_takes_the_published_closed_form() -> None:
    """Rows x (tRCD + columns + tRP) in all banks at once, the vector before, a result behind."""
    run = run_pim("pim-gpt", Gemv(2048, 2048), refresh=False)
    rows = 2048 // (CHANNELS * BANKS) * 2
    assert run.cycles == pytest.approx(rows * (12 + 64 + 12) + 2 * 64, rel=0.03)


def test_functions_take_the_busier_of_adders_and_multipliers() -> None:
    counts = PIM_GPT_ASIC.operations()
    assert [int(one[F.GELU_TANH]) for one in counts] == [9, 11]

    def cycles(function: F, elements: int) -> float:
        return DECODER.functions([(function, elements)]).seconds * DECODER.asic_hz

    assert cycles(F.GELU_TANH, 1000) == pytest.approx(-(-11 * 1000 // 128))
    assert cycles(F.ADD, 1000) == pytest.approx(-(-1000 // 256))
    assert cycles(F.ROW_SUM, 1000) == pytest.approx(-(-1000 // 256))
    few = replace(DECODER, asic=replace(PIM_GPT_ASIC, adders=16))
    assert few.functions([(F.GELU_TANH, 1000)]).seconds * 1e9 == pytest.approx(563)


def test_an_asic_without_its_functions_is_refused() -> None:
    with pytest.raises(AccelsimError, match="accepted: taylor-fp32"):
        AdderArray(lanes=4, adders=4, memory=("s",), functions="correct").check()
    with pytest.raises(AccelsimError, match="adders must be at least 1"):
        AdderArray(lanes=4, adders=0, memory=("s",)).check()
    with pytest.raises(AccelsimError, match="slots follow"):
        AdderArray(lanes=4, adders=4, memory=("s",), slots={"exp": 1}).check()


def test_pieces_pass_two_stages() -> None:
    """The closed form is the recurrence of a pipeline of equal pieces."""
    random = Random(1)
    for _ in range(50):
        pieces, products = random.randint(1, 40), random.uniform(1e-8, 1e-5)
        steps = [(F.EXP_SUB, random.randint(1, 40_000))]
        functions = DECODER.functions(steps).seconds
        first = second = 0.0
        for _ in range(pieces):
            first += products / pieces
            second = max(first, second) + functions / pieces
        both = DECODER.both(Spent(seconds=products, pim_seconds=products), steps, pieces)
        assert both.seconds == pytest.approx(second)
        assert both.pim_seconds == products


def test_every_product_of_the_model_is_in_the_channels() -> None:
    """Columns of one token are the multiplications of its matrices, groups of outputs filled up."""
    graph = xs.workload("gpt2", phase="decode", context=1)
    columns = sum(
        -(-op.n // (CHANNELS * BANKS)) * -(-op.k // MACS) * CHANNELS
        for op in graph.operators
        if op.kind == "gemm"
    )
    attention = 12 * CHANNELS * (12 * 4 + 6)  # 12 layers: 12 heads of 4 columns, 6 tiles of one
    assert DECODER.decode(graph, 1)[0].columns == columns + attention


def test_a_text_is_the_sum_of_its_steps() -> None:
    graph = xs.workload("gpt2", phase="decode", context=64)
    steps = DECODER.decode(graph, 64)
    run = generate("gpt2", tokens=64)
    assert run.seconds == pytest.approx(sum(step.seconds for step in steps))
    assert steps[0].seconds < steps[63].seconds
    assert run.spent == sum(steps, NOTHING)
    assert 0.97 < run.spent.row_hits < 0.99
    assert run.seconds >= run.spent.pim_seconds


def test_what_a_machine_has_more_of_helps() -> None:
    base = generate("gpt2", tokens=128)
    serial = generate("gpt2", BankDecoder(overlap=False), 128)
    slow = generate("gpt2", BankDecoder(asic_hz=100_000_000), 128)
    wide = generate("gpt2", BankDecoder(channels=16), 128)
    assert base.seconds < serial.seconds < slow.seconds
    assert serial.seconds == pytest.approx(serial.spent.pim_seconds + serial.spent.asic_seconds)
    assert 1.5 < base.seconds / wide.seconds < 2


def test_energy_of_a_column_is_the_familys_reads() -> None:
    """The family's figure is 16 reads; fewer take that much less."""
    base = generate("gpt2", tokens=4)
    same = generate("gpt2", BankDecoder(mac_reads=16), 4)
    none = generate("gpt2", BankDecoder(mac_reads=1e-9), 4)
    four = generate("gpt2", BankDecoder(mac_reads=4), 4)
    assert same.joules == pytest.approx(base.joules)
    assert four.joules - none.joules == pytest.approx((base.joules - none.joules) / 4, rel=1e-6)
    assert same.seconds == four.seconds == base.seconds


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        ("gpt2", {"phase": "prefill", "tokens": 4}, "accepted: decode of a batch of 1"),
        ("llama-2-7b", {"phase": "decode", "context": 4}, "operators of GPT-2"),
    ],
)
def test_what_the_machine_does_not_compute_is_refused(
    model: str, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(AccelsimError, match=says):
        DECODER.decode(xs.workload(model, **settings), 1)


def test_tokens_out_of_range_are_refused() -> None:
    with pytest.raises(AccelsimError, match="tokens = 0; accepted: 1 to"):
        xs.generate("gpt2", tokens=0)


@pytest.mark.parametrize(
    "work", ["softmax:rows=3,cols=70", "layernorm:rows=3,cols=70", "gemm:m=2,n=9,k=20,bias=true"]
)
def test_the_asics_numbers_are_those_of_additions_and_multiplications(
    work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tile programs, too, inside bounds that an exp which is off by a hundredth leaves."""
    shipped = library_folder() / "edge-npu.yaml"
    text = shipped.read_text(encoding="utf-8").replace(
        "kind: vector,", "kind: adder_array, adders: 256,"
    )
    text = text.replace("name: edge-npu", "name: with-asic")
    file = tmp_path / "with-asic.yaml"
    file.write_text(text, encoding="utf-8")
    machine = xs.arch(str(file), {"vpu.terms": dict(PIM_GPT_ASIC.terms)})
    assert xs.check(machine, f"{work},dtype=fp32").ok
    if work.startswith("softmax"):
        plain = AdderArray._exp
        monkeypatch.setattr(AdderArray, "_exp", lambda unit, x: plain(unit, x) + np.float32(0.01))
        assert not xs.check(machine, f"{work},dtype=fp32").ok


def test_a_model_that_does_not_fit_is_refused() -> None:
    """1.4 G weights of 16 bits are more than two channels of 512 MiB."""
    with pytest.raises(CapacityError, match="accepted: up to 16,384"):
        generate("gpt3-xl", BankDecoder(channels=2), 8)
    # Keys and values of 128 tokens a row, then of a second group: 2 chunks of heads, 24 layers.
    one, two = (cache_rows(family("pim-gpt"), 24, 64, tokens) for tokens in (128, 129))
    assert (one, two) == (2 + 12, 4 + 12)


@pytest.mark.parametrize("wrong", [{"channels": -1}, {"asic_hz": 0}, {"mac_reads": -1.0}])
def test_machines_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(AccelsimError, match=f"{next(iter(wrong))} must be at least"):
        BankDecoder(**wrong)


def test_the_command_says_what_the_call_does(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    done = CliRunner().invoke(app, ["generate", "gpt2", "--tokens", "3", "--json", str(file)])
    assert done.exit_code == 0, done.output
    run = generate("gpt2", tokens=3)
    assert f"{1e3 * run.seconds_per_token:.4g} ms/token" in done.output
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["seconds"] == run.seconds
    assert written["row_hits"] == run.spent.row_hits
    slow = CliRunner().invoke(app, ["generate", "gpt2", "--tokens", "3", "--asic-clock", "1 MHz"])
    assert slow.exit_code == 0
    assert "ASIC busy 9" in slow.output
    still = CliRunner().invoke(app, ["generate", "gpt2", "--asic-clock", "0 Hz"])
    assert still.exit_code == 2
    assert "--asic-clock 0 Hz; accepted: 1 Hz and more" in still.output


def test_a_figure_outside_a_published_range_fails() -> None:
    assert inside("x", 50.0, (41.0, 137.0), "").error == 0
    assert inside("x", 50.0, (41.0, 137.0), "").ok
    below, above = (inside("x", value, (41.0, 137.0), "") for value in (40.9, 137.1))
    assert (below.ok, below.expected, above.ok, above.expected) == (False, 41.0, False, 137.0)
    assert "41 to 137" in below.case
