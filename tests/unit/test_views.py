"""Summary, tables and headline say what the result says, and a Run shows itself."""

import json
import re
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from accelsim.api import simulate
from accelsim.errors import AccelsimError
from accelsim.results.result import OperatorResult, Result
from accelsim.results.table import MAX_ROWS, OperatorTable
from accelsim.results.text import count_text, energy_text, percent_text, scaled, seconds_text
from accelsim.simulation import simulate_graph
from accelsim.views.headline import headline, tokens_per_pass
from accelsim.views.run import Run
from accelsim.views.summary import WIDTH, bar, resources, summary


@pytest.fixture(scope="module")
def gemm():
    return simulate("systolic", "gemm:m=96,n=64,k=64")


@pytest.fixture(scope="module")
def decode():
    return simulate("tpu-v3", "opt-125m:phase=decode,batch=4,context=64")


@pytest.fixture(scope="module")
def prefill():
    return simulate("quad-npu", "opt-125m:phase=prefill,batch=2,tokens=32")


@pytest.fixture(scope="module", params=["gemm", "decode", "prefill"])
def run(request):
    return request.getfixturevalue(request.param)


def section(text, title):
    """Lines under a heading of the summary."""
    lines = text.splitlines()
    first = lines.index(title) + 1
    rest = lines[first:]
    return rest[: rest.index("")] if "" in rest else rest


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "B", "0 B"),
        (1, "", "1.00"),
        (999, "B", "999 B"),
        (999.6, "B", "1.00 kB"),
        (1000, "B", "1.00 kB"),
        (30_712_733_760, "B", "30.7 GB"),
        (0.0696537, "s", "69.7 ms"),
        (9.996e-7, "s", "1.00 µs"),
        (999.4e-9, "s", "999 ns"),
        (-2500, "", "-2.50 k"),
        (1e30, "B", "1000000000 ZB"),
    ],
)
def test_scaled_has_three_digits_and_a_prefix(value, unit, text):
    assert scaled(value, unit) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"), (0.0005, "< 0.1 %"), (0.053, "5.3 %"), (0.0996, "10 %"), (0.7862, "79 %"),
        (0.9949, "99 %"), (0.9961, "99.6 %"), (0.99999, "99.9 %"), (1.0, "100 %"),
    ],
)  # fmt: skip
def test_percent_never_rounds_up_to_all(share, text):
    assert percent_text(share) == text


def test_counts_are_whole_while_they_are_short():
    assert [count_text(n) for n in (0, 9999, 10_000)] == ["0", "9,999", "10.0 k"]


def test_bar_grows_in_eighths():
    assert bar(0.0, 10) == ""
    assert bar(1.0, 10) == "█" * 10
    assert bar(1e-9, 10) == "▏"
    assert bar(0.25, 10) == "██▌"
    assert bar(7.0, 10) == "█" * 10


# -- summary ---------------------------------------------------------------------------------------


def test_summary_fits_into_88_columns(run):
    assert max(map(len, summary(run).splitlines())) <= WIDTH


def test_summary_says_cycles_time_and_energy_of_the_result(run):
    head = summary(run).split("\n\n")[1]
    assert f"{run.cycles:,} cycles" in head
    assert seconds_text(run.seconds) in head


def test_decode_is_given_per_token(decode):
    figures = {what: value for value, what in headline(decode).figures}
    assert headline(decode).figures[0] == (f"{seconds_text(decode.seconds)}/token", "")
    assert float(figures["tokens/s"].replace(",", "")) == pytest.approx(
        4 / decode.seconds, rel=1e-3
    )
    assert f"{energy_text(decode.energy_pj['total'] / 4)}/token" in summary(decode)


def test_prefill_is_the_time_to_the_first_token(prefill):
    assert tokens_per_pass(prefill) == 64
    assert headline(prefill).figures[0] == (seconds_text(prefill.seconds), "to the first token")
    assert f"{64 / prefill.seconds:,.0f} tokens/s" in summary(prefill)


def test_an_operator_alone_has_a_rate_and_no_tokens(gemm):
    assert tokens_per_pass(gemm) == 0
    assert scaled(gemm.macs / gemm.seconds, "MAC/s") in summary(gemm)
    assert "token" not in summary(gemm)


def test_machine_and_workload_stand_in_the_first_line(gemm, prefill):
    assert summary(gemm).startswith("gemm  m=96  n=64  k=64  bf16 ")
    assert "systolic @ 1 GHz   memory: bandwidth\n" in summary(gemm)
    assert "4 cores" in headline(prefill).machine


def test_a_saturated_resource_is_called_the_limit(gemm):
    near = dict.fromkeys(gemm.bounds, 0.9 * gemm.cycles)
    told = headline(replace(gemm, bounds=near)).limit
    assert told == f"bound by {gemm.bottleneck}, at 90 % of its peak"


def test_a_run_far_from_its_bounds_is_not_said_to_be_bound(gemm):
    far = dict.fromkeys(gemm.bounds, 0.1 * gemm.cycles)
    told = headline(replace(gemm, bounds=far)).limit
    assert told.startswith(f"nothing is saturated: {gemm.bottleneck} comes closest, at 10 %")


def test_resources_list_every_bound_and_use_once(run):
    found = {one.name: one for one in resources(run)}
    for name, share in run.utilization.items():
        assert found[name].share == share
        assert found[name].bound == run.bounds.get(name)
    lines = section(summary(run), "Resources")
    for one in resources(run):
        line = next(line for line in lines if line.split()[0] == one.name.split()[0])
        assert percent_text(one.share) in line
        if one.bound:
            assert f"{round(one.bound):,}" in line


def test_private_ports_are_shown_as_the_busiest_core():
    result = simulate("edge-npu", "gemm:m=64,n=64,k=64", overrides={"cores": 2})
    ports = {n: b for n, b in result.bounds.items() if n.endswith("spad")}
    assert len(ports) == 2
    (shown,) = (one for one in resources(result) if "spad" in one.name)
    assert shown.name == "spad (busiest core)"
    assert shown.bound == max(ports.values())


def test_operators_by_kind_add_up_to_the_run(run):
    kinds = run.operators.by_kind()
    assert sum(row.cycles for row in kinds) == pytest.approx(run.cycles, abs=1)
    assert sum(row.share for row in kinds) == pytest.approx(1.0)
    assert sum(row.macs for row in kinds) == run.macs
    assert sum(row.count for row in kinds) == len(run.graph.operators)
    assert sum(row.energy_pj for row in kinds) == pytest.approx(run.energy_pj["total"])
    main = next(iter(name for name, m in run.architecture.memories.items() if m.shared))
    for way in ("read", "write"):
        moved = sum(row.traffic_bytes[way] for row in kinds)
        assert moved == run.traffic_bytes[main][way]
    assert [row.cycles for row in kinds] == sorted((row.cycles for row in kinds), reverse=True)


def test_the_summary_tells_how_attention_was_mapped():
    model = "llama-2-7b:layers=3,hidden=64,ffn=96,vocab=100,heads=4,kv_heads=2,tokens=9"
    told = " ".join(" ".join(section(summary(simulate("a100", model)), "Attention")).split())
    assert told.startswith("- 3 x gpu-flash-attention: scores stay on chip: unfused, they and")
    assert "CTA tiles of 2 heads x 9 queries, key blocks of" in told
    assert "\nAttention\n" not in summary(simulate("a100", "softmax:rows=3,cols=5"))


def test_summary_table_holds_the_kinds(run):
    lines = section(summary(run), "Operators")[2:]
    kinds = run.operators.by_kind()
    assert [line.split()[0] for line in lines] == [row.kind for row in kinds]
    for line, row in zip(lines, kinds, strict=True):
        assert f" {row.count:,} " in line
        assert count_text(row.macs) in line
        assert line.endswith(row.bottleneck)


def test_traffic_and_energy_are_those_of_the_result(run):
    text = summary(run)
    traffic = section(text, "Traffic")[2:]
    assert [line.split()[0] for line in traffic] == list(run.traffic_bytes)
    for line, moved in zip(traffic, run.traffic_bytes.values(), strict=True):
        assert scaled(moved["read"], "B") in line
        assert scaled(moved["write"], "B") in line
    energy = section(text, "Energy")
    assert energy_text(run.energy_pj["total"]) in energy[-1]
    parts = {line.split()[0]: line for line in energy[2:-1]}
    assert set(parts) == set(run.energy_pj) - {"total"}
    for name, line in parts.items():
        assert energy_text(run.energy_pj[name]) in line


def test_an_architecture_without_energy_numbers_says_so(gemm):
    silent = replace(gemm, energy_pj={"total": 0.0})
    assert section(summary(silent), "Energy") == ["  systolic gives no energy numbers"]
    assert "J" not in summary(silent).split("\n\n")[1]


def test_every_approximation_is_declared_in_full(run):
    flat = " ".join(summary(run).split())
    assert run.approximations
    for text in run.approximations:
        assert " ".join(text.split()) in flat


def test_instructions_that_ran_and_those_they_stand_for(prefill, gemm):
    ran = sum(len(segment.bound.program) for segment in prefill.segments)
    assert ran < prefill.instructions
    last = summary(prefill).splitlines()[-1]
    assert last.startswith(f"{ran:,} instructions in ")
    assert f"({count_text(prefill.instructions)} with repeated layers)" in last
    assert "repeated" not in summary(gemm)


def test_a_result_without_machine_and_graph_still_has_a_summary(decode):
    bare = replace(decode, architecture=None, graph=None, segments=())
    text = summary(bare)
    assert decode.workload in text
    assert f"{decode.cycles:,} cycles" in text
    assert f"{decode.instructions:,} instructions" in text


# -- tables ----------------------------------------------------------------------------------------


def operator(name="a", **given):
    values = {
        "kind": "gemm", "mapper": "m", "repeat": 1, "cycles": 10.0, "macs": 100,
        "traffic_bytes": {"read": 8, "write": 2}, "energy_pj": 1.0, "utilization": 0.5,
        "bottleneck": "mxu",
    }  # fmt: skip
    return OperatorResult(name=name, **{**values, **given})


def test_columns_are_aligned():
    table = OperatorTable([operator("short"), operator("a.much.longer.name", cycles=12_345.0)])
    lines = str(table).splitlines()
    assert len(lines) == 4
    assert len({line.index("gemm") for line in lines[2:]}) == 1
    assert repr(table) == str(table)


def test_kind_sums_weigh_utilization_by_time_and_name_the_longest_limit():
    table = OperatorTable([
        operator("a", cycles=30.0, utilization=1.0, bottleneck="mxu", repeat=2),
        operator("b", cycles=10.0, utilization=0.2, bottleneck="hbm"),
        operator("c", kind="softmax", cycles=0.0, macs=0, utilization=0.0, bottleneck="vpu"),
    ])  # fmt: skip
    gemms, softmax = table.by_kind()
    assert (gemms.count, gemms.cycles, gemms.macs) == (3, 40.0, 200)
    assert gemms.utilization == pytest.approx((30 + 2) / 40)
    assert gemms.bottleneck == "mxu"
    assert gemms.traffic_bytes == {"read": 16, "write": 4}
    assert (softmax.share, softmax.utilization) == (0.0, 0.0)


def test_a_long_table_is_cut_and_says_so():
    table = OperatorTable([operator(f"op{i}") for i in range(MAX_ROWS + 5)])
    assert str(table).endswith("… and 5 more rows")
    assert "op64" not in str(table)
    assert "… and 5 more rows" in table._repr_html_()


def test_html_is_escaped():
    html = OperatorTable([operator("<script>&")])._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;&amp;" in html


def test_pandas_is_asked_for_by_name_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(AccelsimError, match=r"pip install 'accelsim\[data\]'"):
        OperatorTable([operator()]).to_pandas()


def test_pandas_frame_has_a_column_per_value():
    pytest.importorskip("pandas")
    frame = OperatorTable([operator("a"), operator("b")]).to_pandas()
    assert list(frame["name"]) == ["a", "b"]
    assert list(frame["traffic_bytes.read"]) == [8, 8]


def test_tables_are_plain_data_too(decode):
    assert decode.operators.to_dicts() == [op.to_dict() for op in decode.operators]
    json.dumps(decode.operators.by_kind().to_dicts())


# -- run -------------------------------------------------------------------------------------------


def test_simulate_returns_a_run_equal_to_its_result(gemm):
    result = simulate_graph(gemm.graph, gemm.architecture)
    assert type(result) is Result
    run = Run.of(result)
    assert isinstance(gemm, Run)
    assert all(getattr(run, field.name) == getattr(result, field.name) for field in fields(Result))
    assert isinstance(run.operators, OperatorTable)
    assert run.to_dict() == result.to_dict()
    assert Run.of(run) is run


def test_a_run_prints_as_its_summary_and_stays_short_in_a_list(gemm):
    assert str(gemm) == summary(gemm)
    assert repr(gemm) == f"<Run of {gemm.workload} on systolic: {gemm.cycles:,} cycles>"


def test_a_notebook_shows_html_with_the_same_numbers(run):
    bundle = run._repr_mimebundle_()
    assert bundle["text/plain"] == summary(run)
    html = bundle["text/html"]
    assert f"{run.cycles:,}" in html
    assert headline(run).limit in html
    for row in run.operators.by_kind():
        assert row.kind in html
    for tag in ("table", "tr", "td", "th", "div", "p", "ul", "li", "details"):
        opened = len(re.findall(rf"<{tag}[ >]", html))
        assert opened == html.count(f"</{tag}>"), tag


def test_summaries_do_not_load_plotly():
    code = (
        "import sys, accelsim.views.summary, accelsim.views.run, accelsim.views.html\n"
        "import accelsim.explore.sweep, accelsim.explore.spec\n"
        "from accelsim.api import simulate\n"
        "print(simulate('systolic', 'gemm:m=8,n=8,k=8')._repr_html_()[:0])\n"
        "assert 'plotly' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
