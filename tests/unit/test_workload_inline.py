"""What users type: inline operators, library names, paths, and everything mistyped."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accelsim
import accelsim.workload.inline as inline
from accelsim.errors import AccelsimError
from accelsim.workload import library_folder, list_workloads, parse_workload, workload


def single(text):
    graph = parse_workload(text)
    assert len(graph) == 1
    return graph, graph.operators[0]


def test_inline_gemm_has_tensors_of_its_own():
    graph, op = single("gemm:m=128,n=768,k=512,batch=2,bias=true,transpose_b=true,dtype=int8")
    assert op.macs == 128 * 768 * 512 * 2
    shapes = {s.name: (s.shape, s.dtype, s.role) for s in graph.tensors.values()}
    assert shapes == {
        "gemm.a": ((2, 128, 512), "int8", "input"),
        "gemm.b": ((2, 768, 512), "int8", "weight"),
        "gemm.bias": ((768,), "int32", "weight"),
        "gemm.out": ((2, 128, 768), "int32", "output"),
    }
    assert graph.settings["m"] == "128"


@pytest.mark.parametrize(
    ("text", "macs", "output"),
    [
        ("gemv:n=3,k=4", 12, (1, 3)),
        ("attention:heads=32,kv_heads=8,q=1,kv=2048,d=128", 2 * 32 * 2048 * 128, (1, 4096)),
        ("attention:heads=2,q_len=3,kv_len=3,head_dim=4,causal=TRUE,batch=2", 2 * 4 * 24, (6, 8)),
        ("conv2d:h=8,w=8,cin=4,cout=6,fh=3,fw=3,stride=2,padding=1", 16 * 6 * 36, (1, 4, 4, 6)),
        ("conv2d:h=8,w=8,cin=4,cout=4,fh=3,fw=3,groups=4,bias=true", 36 * 4 * 9, (1, 6, 6, 4)),
        ("softmax:rows=2,cols=3", 0, (2, 3)),
        ("layernorm:rows=2,cols=3,eps=1e-12", 0, (2, 3)),
        ("rmsnorm:rows=2,cols=3", 0, (2, 3)),
        ("rotary:heads=2,d=4,tokens=6,q=3,position=5", 0, (6, 8)),
        ("activation:function=gelu_tanh,rows=2,cols=3", 0, (2, 3)),
        ("elementwise:function=mul,rows=2,cols=3,broadcast_b=true", 0, (2, 3)),
        ("residual:rows=2,cols=3", 0, (2, 3)),
        ("embedding:vocab=100,hidden=8,tokens=5", 0, (5, 8)),
        ("kv_append:kv_heads=2,q=1,d=4,capacity=9,position=8", 0, (1, 2, 9, 4)),
    ],
)
def test_every_inline_kind_builds(text, macs, output):
    graph, op = single(text)
    assert op.macs == macs
    assert graph.tensors[op.output].shape == output
    assert graph.tensors[op.output].dtype == "bf16"


def test_inline_tensors_can_be_filled():
    """Integer ids are int32, and the rotary tables carry their values."""
    graph, _ = single("embedding:vocab=100,hidden=8,tokens=5")
    assert graph.tensors["embedding.ids"].dtype == "int32"
    graph, _ = single("rotary:heads=2,d=4,tokens=6,q=3,position=5")
    cos = graph.tensors["rotary.cos"]
    assert cos.values.array(cos.shape).shape == (8, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gemm:m=1.5,n=1,k=1", r"^gemm: m is '1\.5'; accepted: a whole number from 1 to"),
        ("gemm:m=abc,n=1,k=1", "m is 'abc'"),
        ("gemm:m=0,n=1,k=1", "m is 0"),
        ("gemm:m=-4,n=1,k=1", "m is -4"),
        ("gemm:m=1e3,n=1,k=1", "m is '1e3'"),
        ("gemm:m=１,n=1,k=1", "m is '１'"),
        ("gemm:m=2147483648,n=1,k=1", "m is 2147483648"),
        ("gemm:m=" + "9" * 5000 + ",n=1,k=1", r"m is '999.*\.\.\.; accepted"),
        ("gemm:n=1,k=1", "missing 'm'; accepted: m="),
        ("gemm", "missing 'm'"),
        ("gemm:", "'' is no setting; accepted: key=value"),
        ("gemm:m", "'m' is no setting; accepted: key=value"),
        ("gemm:m=,n=1,k=1", "'m=' is no setting"),
        ("gemm:m=1,,n=1", "'' is no setting"),
        ("gemm:m=1,m=1,n=1,k=1", "'m' is given twice"),
        (
            "gemm:m=1,n=1,k=1,transpse_b=true",
            r"'transpse_b' \(did you mean 'transpose_b'\?\); accep",
        ),
        ("gemm:m=1,n=1,k=1,bias=1", "bias is '1'; accepted: true or false"),
        ("gemm:m=1,n=1,k=1,dtype=float16", r"dtype 'float16' .*accepted: fp32|dtype 'float16'"),
        ("softmax:rows=2,cols=3,dtype=int8", "softmax: dtype 'int8'; accepted: fp32, fp16, bf16"),
        ("attention:heads=6,kv_heads=4,q=1,kv=8,d=8", "kv_heads 4; accepted: a divisor of heads 6"),
        ("attention:heads=6,q=1,q_len=1,kv=8,d=8", "'q_len' and 'q' are the same key"),
        ("activation:rows=2,cols=3", "missing 'function'"),
        ("activation:function=gleu,rows=2,cols=3", "function 'gleu'; accepted: relu"),
        ("layernorm:rows=2,cols=3,eps=x", "eps is 'x'; accepted: a finite number"),
        ("conv2d:h=4,w=4,cin=3,cout=4,fh=5,fw=3", "filter 5x3 is larger than the padded input 4x4"),
        ("conv2d:h=4,w=4,cin=3,cout=4,fh=3,fw=3,padding=-1", "padding is -1; accepted: a whole"),
        ("gmm:m=1", r"unknown workload 'gmm' \(did you mean 'gemm'\?\)"),
        ("llama-2-7", r"unknown workload 'llama-2-7' \(did you mean 'llama-2-7b'\?\)"),
        (
            "llama-2-7b:phse=decode",
            r"unknown key 'phse' \(did you mean 'phase'\?\); accepted: phase",
        ),
        ("", "has no name; accepted: NAME"),
        (":m=1", "has no name"),
        ("none/config.json", "none/config.json: no such file"),
        ("missing.yaml", "missing.yaml: no such file"),
        ("a\x00b", "holds control characters; accepted: one line"),
        ("x" * 10_000, "unknown workload"),
    ],
)
def test_a_mistyped_workload_is_refused_in_one_line(text, message):
    with pytest.raises(AccelsimError, match=message) as caught:
        parse_workload(text)
    assert "\n" not in str(caught.value)


def test_folders_and_other_files_are_refused(tmp_path):
    with pytest.raises(AccelsimError, match=r"no config\.json in it; accepted: a model folder"):
        workload(tmp_path)
    (tmp_path / "model.cfg").write_text("[general]")
    with pytest.raises(AccelsimError, match=r"unknown file type; accepted: \.json, \.csv, \.yaml"):
        workload(tmp_path / "model.cfg")


def test_python_and_text_forms_are_equal():
    text = parse_workload("llama-2-7b:phase=decode,batch=2,context=64,layers=2")
    assert workload("llama-2-7b", phase="decode", batch=2, context=64, layers=2) == text
    assert workload("gemm", m=1, n=2, k=3, bias=True) == parse_workload(
        "gemm:m=1,n=2,k=3,bias=True"
    )
    assert workload("gemm:m=1,n=2", k=3).macs == 6


@pytest.mark.parametrize(
    "bad", [{"m": 1.0}, {"m": None}, {"m": True}, {"m": [1]}, {"bias": "no"}, {"dtype": 16}]
)
def test_python_values_are_checked_like_text(bad):
    with pytest.raises(AccelsimError, match="gemm: "):
        workload("gemm", **{"m": 1, "n": 2, "k": 3, **bad})
    with pytest.raises(AccelsimError, match="'m' is given twice"):
        workload("gemm:m=1", m=1)


@pytest.mark.parametrize("bad", [{"phase": []}, {"phase": 0}, {"dtype": None}, {"logits": {}}])
def test_transformer_settings_of_a_wrong_type_are_refused(bad):
    with pytest.raises(AccelsimError):
        workload("gpt2", **bad)


def test_paths_with_colons_and_library_names_resolve(tmp_path):
    target = tmp_path / "a:b.json"
    shutil.copy(library_folder() / "gpt2.json", target)
    assert workload(target).parameters == workload("gpt2").parameters


def test_the_library_lists_every_file_once_with_one_line():
    listed = list_workloads()
    names = [name for name, _ in listed]
    assert len(set(names)) == len(names) >= 31
    assert {"llama-2-7b", "resnet50", "ffn-block"} <= set(names)
    assert all(text and "\n" not in text for _, text in listed)
    assert dict(listed)["llama-2-7b"] == "llama, 32 layers, hidden 4096, 6.74 B parameters"
    assert dict(listed)["mixtral-8x7b"].endswith("46.7 B parameters (12.7 B active)")
    assert dict(listed)["deepseek-v3"].endswith("(36.6 B active)")


CHECKOUT = Path(accelsim.__file__).parents[1]


@pytest.mark.skipif(not (CHECKOUT / "workloads").is_dir(), reason="installed from a wheel")
def test_the_library_is_found_without_installation(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.resources.files", missing)
    assert (inline.library_folder() / "gpt2.json").is_file()


def test_import_needs_only_the_standard_library():
    code = (
        "import sys, accelsim.workload as w; w.workload('llama-2-7b');"
        "assert not {'numpy', 'yaml', 'networkx'} & set(sys.modules), 'imported too early'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def complaint(text):
    """The message that a text is refused with, or nothing when it is a workload."""
    try:
        parse_workload(text)
    except AccelsimError as error:
        return str(error)
    return ""


KEYS = st.sampled_from(["m", "n", "k", "heads", "q", "kv", "d", "dtype", "batch", "phase", "rows"])
VALUES = st.one_of(st.integers(-2, 9).map(str), st.text(max_size=6))
SETTINGS = st.lists(st.tuples(KEYS, VALUES), max_size=5)
NAMES = st.sampled_from(["gemm", "gemv", "attention", "conv2d", "softmax", "gpt2", "ffn-block"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(NAMES, st.text(max_size=8)), SETTINGS)
def test_no_text_raises_anything_but_our_error(name, pairs):
    text = f"{name}:" + ",".join(f"{key}={value}" for key, value in pairs)
    assert "\n" not in complaint(text)
