"""A transformer in the cells: pieces by the clocks of their commands, dataflows by hand, laws, and
the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import accelsim as xs
from accelsim.cli.main import app
from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.energy import command_energy_pj
from accelsim.hw.pim.catalog import family
from accelsim.system.cell_text import decode, read_and_write
from accelsim.system.cell_work import CellTime, CellWork
from accelsim.system.token_sharding import TokenSharding, Walk
from accelsim.workload import operators as ops
from accelsim.workload.inline import library_folder

REFRESHING = 1 + 260 / (3900 - 260)
NS = 1e-9 * REFRESHING
WORK = CellWork(family("transpim"))
BUS = replace(WORK, ring=False)
CELLS = replace(WORK, acu=False)
MODEL = "roberta-32k"


@pytest.mark.parametrize(
    ("kind", "clocks"),
    [
        ("operation", 34 + 4 + 14),
        # open, 16 columns, write recovery, close
        ("write", 14 + 15 * 2 + 4 + 2 + 16 + 14),
        ("store", 14 + 15 * 2 + 4 + 2 + 16 + 14),
        ("sum", 34 + 14),
        ("read", 14 + 15 * 2 + 5 + 14),
        ("hop", 2),
        ("transfer", 2),
    ],
)
def test_a_command_takes_its_clocks(kind: str, clocks: int) -> None:
    assert WORK.one(kind).seconds == pytest.approx(clocks * NS, rel=0.04)
    assert WORK.one(kind).joules > 0


def test_joules_are_those_of_all_channels() -> None:
    """Two activations in 16 stripes of 32 banks; stand-by is a small part."""
    activation = command_energy_pj(WORK.family.device)[Command.ACT] * 1e-12
    assert WORK.one("operation").joules == pytest.approx(64 * 1024 * activation, rel=0.1)


def test_bytes_go_around_the_ring_or_over_the_bus() -> None:
    hop, transfer = WORK.one("hop").seconds, WORK.one("transfer").seconds
    assert WORK.spread(6400, 10).seconds == pytest.approx((100 + 8) * hop)
    assert BUS.spread(6400, 10).seconds == pytest.approx(100 * 32 * transfer)
    assert WORK.spread(6400, 1).seconds == WORK.spread(0, 10).seconds == 0
    # 64 channels, out of one and into another
    assert WORK.exchange(64 * 6400).seconds == pytest.approx(200 * transfer)


def test_sums_through_trees_and_in_the_cells() -> None:
    """40 outputs of 2048 products: ten rows, 16 planes each; or eleven levels of halves."""
    assert WORK.summed(40, 2048).seconds == pytest.approx(10 * 16 * WORK.one("sum").seconds)
    moved = WORK.one("read").seconds + WORK.one("store").seconds
    rows = [5, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1]
    by_hand = sum(
        n * (16 + level) * moved + (8 * (16 + level) + 3) * WORK.one("operation").seconds
        for level, n in enumerate(rows)
    )
    assert CELLS.summed(40, 2048).seconds == pytest.approx(by_hand)
    # A second chunk of lanes is added in place first.
    more = CELLS.summed(4, 9000).seconds - CELLS.summed(4, 8192).seconds
    assert more == pytest.approx((8 * 16 + 3) * WORK.one("operation").seconds)


def gemm(m: int, n: int, k: int) -> ops.Gemm:
    found = next(op for op in xs.workload(f"gemm:m={m},n={n},k={k}").operators)
    assert isinstance(found, ops.Gemm)
    return found


def walk(tokens: int = 64, **settings: object) -> Walk:
    graph = xs.workload(MODEL, tokens=tokens, layers=1)
    return Walk(TokenSharding(**settings), graph)  # type: ignore[arg-type]


def test_a_product_by_tokens() -> None:
    """512 tokens have four banks each: 192 outputs, ten in a row, 20 rows in two rounds."""
    spent = walk().token_product(gemm(512, 768, 768))
    vector, both = 8 * WORK.one("store").seconds, 2 * 670 * WORK.one("operation").seconds
    assert spent.products == pytest.approx(vector + both)
    assert spent.sums == pytest.approx(20 * 16 * WORK.one("sum").seconds)
    assert spent.moves == pytest.approx((12 + 2) * WORK.one("hop").seconds)
    assert spent.weights == pytest.approx(768 * 768 * 8 / 8192 * WORK.one("write").seconds)


def test_a_slow_link_holds_weights_back() -> None:
    slow = walk(host_bytes_per_second=1e9).token_product(gemm(512, 768, 768))
    assert slow.weights == pytest.approx(768 * 768 / 1e9)


def test_keys_and_values_meet_all_banks() -> None:
    """512 keys of 768: 6144 columns past 2048 banks; a quarter of them stays in a bank."""
    machine = walk(512)
    attention = machine.attention
    assert attention is not None
    spent = machine.circulated(attention, 128)
    hops, rows = 512 * 768 // 64 + 2046, 128 * 768 * 8 // 8192
    once = hops * WORK.one("hop").seconds + rows * WORK.one("store").seconds
    assert spent.moves == pytest.approx(2 * once)


def test_a_product_layer_by_layer() -> None:
    """768 outputs on 2048 banks: each bank has one for 192 of 512 tokens, whose vectors it gets."""
    machine = walk(dataflow="layer")
    spent = machine.layer_product(gemm(512, 768, 768))
    columns = 192 * 768 / 64
    assert spent.moves == pytest.approx(columns * 32 * WORK.one("transfer").seconds)
    both = 2 * 670 * WORK.one("operation").seconds
    vectors = 20 * 8 * WORK.one("store").seconds
    assert spent.products == pytest.approx(both + vectors)
    assert spent.weights == 0
    around = walk(dataflow="layer", layer_ring=True).layer_product(gemm(512, 768, 768))
    assert around.moves == pytest.approx((columns + 2046) * WORK.one("hop").seconds)


def test_rows_are_brought_together_over_channels_and_stacks() -> None:
    size = 10**9
    eight, one = (walk(dataflow="layer", stacks=n).exchanged(size).moves for n in (8, 1))
    assert eight == pytest.approx(size * 7 / 8 / 256e9)
    assert one == pytest.approx(2 * size / 64 / 8 * WORK.one("transfer").seconds)


def seconds(**settings: object) -> float:
    graph = xs.workload(MODEL, tokens=700, layers=2)
    return TokenSharding(**settings).run(graph).seconds  # type: ignore[arg-type]


def test_what_is_left_out_costs_time() -> None:
    best = seconds()
    for other in (
        {"ring": False}, {"acu": False}, {"family": "transpim-row"}, {"family": "transpim-faw"},
        {"stacks": 4}, {"host_bytes_per_second": 1e9},
    ):  # fmt: skip
        assert seconds(**other) > best, other
    assert seconds(family="transpim-all") < best
    assert seconds(dataflow="layer", layer_ring=True) < seconds(dataflow="layer")


def test_parts_add_up_and_lanes_are_no_more_than_there_are() -> None:
    graph = xs.workload(MODEL, tokens=4096, layers=1)
    machine = TokenSharding()
    spent = machine.run(graph)
    parts = (spent.weights, spent.moves, spent.products, spent.sums, spent.functions)
    assert spent.seconds == pytest.approx(sum(parts))
    assert all(part > 0 for part in parts)
    used = machine.utilisation(graph)
    assert 0.3 < used < spent.products / spent.seconds
    assert CellTime().moving == 0


def test_weights_stay_where_a_text_grows_and_banks_hold_them() -> None:
    few = xs.workload("gpt2", phase="decode", batch=2, context=64)
    assert Walk(TokenSharding(), few).stay
    many = xs.workload("gpt2", phase="decode", batch=2048, context=64)
    assert not Walk(TokenSharding(), many).stay
    assert TokenSharding().run(many).weights > 0
    assert not Walk(TokenSharding(), xs.workload("gpt2", tokens=2)).stay


def test_a_text_is_the_sum_of_its_steps() -> None:
    machine = TokenSharding(dataflow="layer")
    whole = decode("gpt2", machine, 10, 3, 1)
    steps = CellTime()
    for context in (11, 12, 13):
        steps += machine.run(xs.workload("gpt2", phase="decode", context=context))
    assert whole.seconds == pytest.approx(steps.seconds)
    assert whole.joules == pytest.approx(steps.joules)
    # 512 texts have four banks each, and room for ten keys in a row: the 41st token opens another.
    short, long = (decode("gpt2", TokenSharding(), 39, n, 512) for n in (1, 2))
    assert long.sums > 2 * short.sums
    both = read_and_write("gpt2", machine, 10, 3)
    assert both.total.seconds == pytest.approx(both.read.seconds + whole.seconds)


LLAMA = str(library_folder() / "llama-2-7b.json")


@pytest.mark.parametrize(
    ("model", "settings", "prompt", "tokens", "message"),
    [
        ("gpt2", {}, 0, 0, "accepted: one of them from 1"),
        ("gpt2", {}, -1, 0, "prompt = -1"),
        ("gpt2", {"stacks": 0}, 1, 0, "stacks = 0"),
        ("gpt2", {"dataflow": "batch"}, 1, 0, "accepted: token, layer"),
        ("gpt2", {"family": "newton"}, 1, 0, "accepted: transpim and its like"),
        # By its path, which is read whatever it is; by its name it is told which would do.
        (LLAMA, {}, 1, 0, "accepted: operators of GPT-2 and BERT"),
        ("llama-2-7b", {}, 1, 0, "'llama-2-7b'; accepted: bert-base, bert-large, gpt2"),
    ],
)
def test_what_is_not_computed_is_refused(
    model: str, settings: dict[str, object], prompt: int, tokens: int, message: str
) -> None:
    with pytest.raises(AccelsimError, match=message):
        read_and_write(model, TokenSharding(**settings), prompt, tokens)  # type: ignore[arg-type]


def test_models_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CapacityError, match="accepted: up to 0 tokens on 2 stacks"):
        read_and_write("gpt3-175b", TokenSharding(stacks=2), 0, 1)
    with pytest.raises(CapacityError, match=r"accepted: up to [1-9]"):
        read_and_write("gpt2", TokenSharding(stacks=1), 512, 512, batch=4096)


def test_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "text.json"
    call = ["generate", "gpt2", "--on", "transpim", "--prompt", "16", "--tokens", "2"]
    done = CliRunner().invoke(app, [*call, "--json", str(file)])
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert found["seconds"] == read_and_write("gpt2", TokenSharding(), 16, 2).total.seconds
    assert "16 tokens read" in done.stdout
    assert "2 tokens written" in done.stdout
    encoder = CliRunner().invoke(
        app, ["generate", "bert-base", "--on", "transpim-row", "--prompt", "64", "--no-acu"]
    )
    assert "written" not in encoder.stdout
    assert "sums" in encoder.stdout
    for words, message in (
        (["--on", "transpim", "--channels", "4"], "--channels goes with --on pim-gpt"),
        (["--dataflow", "layer"], "--dataflow goes with --on transpim"),
        (["--on", "transpim", "--dataflow", "x"], "accepted: token, layer"),
        (["--on", "transpin"], "did you mean 'transpim'"),
    ):
        done = CliRunner().invoke(app, ["generate", "gpt2", *words])
        assert done.exit_code == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
