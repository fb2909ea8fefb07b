"""Graphs written in YAML: wiring, repetition, parameters and errors with their line."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.workload import workload

CHAIN = """\
description: two projections, repeated
parameters: {tokens: 8, blocks: 3}
operators:
  - {name: embed, kind: gemm, m: tokens, n: 16, k: 4}
  - repeat: blocks
    carry:
      x: {first: embed, next: down}
    operators:
      - {name: up, kind: gemm, m: tokens, n: 32, k: 16, inputs: {a: x}, bias: true}
      - {name: down, kind: gemm, m: tokens, n: 16, k: 32, inputs: {a: up}}
  - {name: head, kind: gemm, m: tokens, n: 4, k: 16, transpose_b: true,
     inputs: {a: down, b: embed.b}}
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="chain.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_blocks_repeat_and_carry_their_result(write):
    graph = workload(write(CHAIN))
    names = [op.name for op in graph.operators]
    assert names[:3] == ["embed", "layer0.up", "layer0.down"]
    assert names[-1] == "head"
    assert graph.operator("layer0.up").inputs[0] == "embed.out"
    assert graph.operator("layer2.up").inputs[0] == "layer1.down.out"
    assert graph.operator("head").inputs == ("layer2.down.out", "embed.b")
    assert [segment.count for segment in graph.segments()] == [1, 3, 1]
    assert graph.parameters == 4 * 16 + 3 * (16 * 32 + 32 + 32 * 16)
    assert [spec.name for spec in graph.outputs] == ["head.out"]
    assert graph.name == "chain"


def test_parameters_and_dtype_are_set_by_the_user(write):
    graph = workload(f"{write(CHAIN)}:tokens=2,blocks=5,dtype=fp16")
    assert [segment.count for segment in graph.segments()][1] == 5
    assert graph.tensors["embed.a"].shape == (2, 4)
    assert graph.tensors["embed.a"].dtype == "fp16"
    assert graph.settings == {"tokens": 2, "blocks": 5, "dtype": "fp16"}


def test_integer_sums_do_not_match_integer_weights(write):
    with pytest.raises(AccelsimError, match=r"tensor 'embed\.b' has dtype int8, expected int32"):
        workload(f"{write(CHAIN)}:dtype=int8")


def test_a_carried_name_without_a_first_is_one_new_input():
    graph = workload("ffn-block:tokens=2,hidden=8,ffn=12,blocks=2")
    inputs = [spec for spec in graph.tensors.values() if spec.role == "input"]
    assert [spec.shape for spec in inputs] == [(2, 8)]
    first, second = graph.operator("layer0.add"), graph.operator("layer1.add")
    assert first.inputs[1] == inputs[0].name
    assert second.inputs[1] == "layer0.add.out"
    assert graph.macs == 2 * 3 * 2 * 8 * 12
    assert [segment.count for segment in graph.segments()] == [2, 1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: gemm, m: tokens, n: 16, k: 4", "kind: gmm", r":4: unknown kind 'gmm' .*'gemm'"),
        ("n: 16, k: 4}", "n: 16}", ":4: missing 'k'"),
        ("n: 16, k: 4}", "n: 16, k: 4, q: 1}", ":4: unknown key 'q'"),
        ("n: 16, k: 4}", "n: 0, k: 4}", ":4: n is 0"),
        ("n: 16, k: 4}", "n: 1.5, k: 4}", ":4: n is 1.5"),
        ("n: 16, k: 4}", "n: width, k: 4}", ":4: n is 'width'"),
        (
            "n: 16, k: 4}",
            "n: 17, k: 4}",
            r"tensor 'embed\.out' has shape \[8, 17\], expected \[8, 16\]",
        ),
        ("n: 16, k: 4}", "n: 16, k: 4, dtype: fp7}", ":4: unknown dtype 'fp7'"),
        ("{name: embed,", "{", ":4: name is None; accepted: name: a word"),
        ("{name: embed,", "{name: up,", r":7: no tensor 'embed'"),
        ("inputs: {a: x}", "inputs: {a: y}", ":9: no tensor 'y'; accepted: embed"),
        ("inputs: {a: x}", "inputs: {c: x}", ":9: unknown key 'c'; accepted: a, b, bias"),
        ("inputs: {a: x}", "inputs: x", r":9: accepted: inputs: \{OPERAND: OPERATOR\}"),
        ("inputs: {a: x}", "inputs: {a: [x]}", r":9: no tensor \['x'\]"),
        ("next: down", "next: dwn", r":7: no tensor 'dwn' \(did you mean 'down'\?\)"),
        ("next: down", "nxt: down", r":6: accepted: NAME: \{first: OP, next: OP\}"),
        ("repeat: blocks", "repeat: 0", ":5: repeat is 0"),
        ("repeat: blocks", "repeat: [3]", r":5: repeat is \[3\]"),
        ("repeat: blocks", "repeat: 2147483647", ":5: repeat 2147483647; accepted"),
        ("repeat: blocks", "repeat: 2\n    times: 3", r":6: unknown key 'times'; accepted: repeat"),
        ("{tokens: 8, blocks: 3}", "{tokens: few, blocks: 3}", ":2: tokens is 'few'"),
        ("{tokens: 8, blocks: 3}", "7", ":2: accepted: NAME: SIZE pairs"),
        ("description: two", "descripton: two", r":1: unknown key 'descripton' .*'description'"),
        ("operators:\n  - {name: embed", "operators: 3\nname:\n  - {name: embed", "operators is 3"),
        ("tokens: 8, ", "tokens: 8, tokens: 9, ", ":2: key 'tokens' is given twice"),
        ("tokens: 8, ", "1: 8, ", ":2: key 1 is not a word"),
        ("name: head,", "name: embed,", "two operators are called 'embed'"),
        ("{name: embed,", "{name: [embed],", r":4: name is \['embed'\]"),
        ("- {name: embed", "- {name: embed: 3", r":4: invalid YAML"),
        ("tokens: 8,", "tokens: !!bool x,", "not a YAML text|invalid YAML"),
    ],
)
def test_a_bad_entry_names_file_and_line(write, old, new, message):
    assert CHAIN.count(old) >= 1
    with pytest.raises(AccelsimError, match=message) as caught:
        workload(write(CHAIN.replace(old, new, 1)))
    assert "chain.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_user_setting_must_be_a_parameter(write):
    with pytest.raises(AccelsimError, match=r"unknown key 'tokns' \(did you mean 'tokens'\?\)"):
        workload(f"{write(CHAIN)}:tokns=2")
    with pytest.raises(AccelsimError, match=r"chain\.yaml:2: tokens is 'x'"):
        workload(f"{write(CHAIN)}:tokens=x")


def test_blocks_do_not_nest(write):
    nested = CHAIN.replace(
        "      - {name: up", "      - {repeat: 2, operators: []}\n      - {name: up"
    )
    with pytest.raises(AccelsimError, match=":9: a block inside a block; accepted: one level"):
        workload(write(nested))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: the top level is not a mapping"),
        (b"- 1", ":1: the top level is not a mapping"),
        (b"\xff\xfe\x00", "not a YAML text"),
        (b"a: &x [*x]", "operators|invalid YAML"),
        (b"[" * 5000, "YAML"),
        (b"operators: []", ":1: operators is"),
        (b"name: 3\noperators:\n  - {name: a, kind: residual, rows: 1, cols: 1}", "name is 3"),
    ],
)
def test_a_broken_file_is_refused(write, content, message):
    with pytest.raises(AccelsimError, match=message):
        workload(write(content))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([".json", ".yaml", ".csv"]))
def test_no_file_content_raises_anything_but_our_error(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(AccelsimError):
        workload(path)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_edit_of_a_good_file_raises_anything_but_our_error(tmp_path_factory, data):
    at = data.draw(st.integers(0, len(CHAIN) - 1))
    cut = data.draw(st.integers(0, 6))
    text = CHAIN[:at] + data.draw(st.text(max_size=4)) + CHAIN[at + cut :]
    path = tmp_path_factory.mktemp("fuzz") / "file.yaml"
    path.write_text(text.encode("utf-8", "replace").decode(), encoding="utf-8")
    with contextlib.suppress(AccelsimError):
        workload(path)
