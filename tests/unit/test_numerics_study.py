"""Accuracy studies: what they measure is what the formats and accumulators do."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import accelsim as xs
from accelsim.errors import AccelsimError
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMATS

EXAMPLE = Path(__file__).parents[2] / "docs/examples/accumulators.py"


def test_hopper_fp8_is_7_percent_low_and_promotion_mends_it():
    study = runpy.run_path(str(EXAMPLE))["study"]
    chain, promoted = (
        study.case("fp8_e4m3", name) for name in ("hopper-wgmma", "hopper-wgmma;promote:128")
    )
    assert -0.075 < chain.bias < -0.065
    assert -0.003 < promoted.bias < 0
    assert abs(study.case("bf16", "hopper-wgmma").bias) < 1e-4
    assert all(0.01 < case.bound <= 1 for case in study.cases)


def test_errors_are_those_of_the_unit():
    a, b = xs.numerics.sample("normal", m=5, n=6, k=70, seed=3)
    study = xs.numerics.compare(["fp16"], ["exact", "tree16-fp32"], (a, b))
    fmt = FORMATS["fp16"]
    held = [fmt.decode(fmt.encode(x)) for x in (a, b)]
    rule = arithmetic("tree16-fp32").rule(types_of("fp16", "fp16", "fp32"))
    size = np.abs(a) @ np.abs(b)
    own = held[0].astype(float) @ held[1].astype(float)
    one = study.case("fp16", "tree16-fp32")
    assert np.array_equal(one.own, (rule.multiply(*held, None) - own) / size)
    assert np.array_equal(one.errors, (rule.multiply(*held, None) - a @ b) / size)
    assert np.array_equal(study.case("fp16", "exact").errors, (own - a @ b) / size)
    assert not study.case("fp16", "exact").own.any()
    row = study.table()[1]
    assert row["rms"] == one.rms
    assert row["worst"] >= row["rms"] >= abs(row["bias"])


def test_scaled_blocks_on_the_unit_that_has_them():
    data = xs.numerics.sample("outliers", m=8, n=8, k=128)
    names = ["mxfp8_e4m3", "mxfp4_e2m1", "nvfp4", "mxint8"]
    study = xs.numerics.compare(names, ["exact", "blackwell-tcgen05", "hopper-wgmma"], data)
    for name in names[:2]:
        one = study.case(name, "blackwell-tcgen05")
        assert "e8m0 scales" in one.arithmetic
        assert "no capture at hand" in one.arithmetic
        # Sums of 32 products of fp8 fit into 25 bits below the largest, nearly always.
        assert np.abs(one.own).max() < 2.0**-22
        assert one.rms == pytest.approx(study.case(name, "exact").rms, rel=1e-3)
    grouped = study.case("nvfp4", "blackwell-tcgen05")
    assert "k64 sums of 16, f35 RZ fp32, fp8_e4m3 scales" in grouped.arithmetic
    assert np.abs(grouped.own).max() < 2.0**-21
    assert {one.accumulator for one in study.cases if one.format == "mxint8"} == {"exact"}
    assert any("mxint8; of block formats it has mxfp8_e4m3" in r for r in study.refused)
    hopper = "hopper-wgmma takes no scales of mxfp8_e4m3; blackwell-tcgen05 does"
    assert hopper in study.refused
    with pytest.raises(AccelsimError, match="in one chain only, not in promote:128"):
        xs.numerics.compare(["mxfp8_e4m3"], ["blackwell-tcgen05;promote:128"], data)


def test_slices_are_added_in_fp32():
    """Split four ways, Hopper's fp8 loses a quarter of what one chain of 4096 loses."""
    a, b = xs.numerics.sample("positive", m=8, n=8, k=4096)
    names = ["hopper-wgmma", "hopper-wgmma;split:4:128", "hopper-wgmma;split:4:128;promote:128"]
    study = xs.numerics.compare(["fp8_e4m3", "int8"], names, (a, b))
    chain, split, promoted = (study.case("fp8_e4m3", name) for name in names)
    assert 0.2 < split.own.mean() / chain.own.mean() < 0.3
    assert abs(promoted.own.mean()) < abs(split.own.mean()) / 4
    assert "split:4:128" in split.arithmetic
    fmt = FORMATS["fp8_e4m3"]
    x, y = (fmt.decode(fmt.encode(v)) for v in (a, b))
    rule = arithmetic("hopper-wgmma").rule(types_of("fp8_e4m3", "fp8_e4m3", "fp32"))
    total = np.zeros((8, 8), np.float32)
    for first in range(0, 4096, 1024):
        total += rule.multiply(x[:, first : first + 1024], y[first : first + 1024], None)
    size, own = np.abs(a) @ np.abs(b), x.astype(float) @ y.astype(float)
    assert np.array_equal(split.own, (total - own) / size)
    assert all(0 < one.bound <= 1 for one in (chain, split, promoted))
    whole = study.case("int8", names[0])
    assert np.array_equal(study.case("int8", names[1]).errors, whole.errors)
    fp16 = xs.numerics.compare(["fp16"], ["exact", "sequential-fp16;split:2:8"], (a, b))
    assert "slices are added in fp32" in fp16.refused[0]


def test_merges_of_slices_are_compared():
    """Eight slices kept in bf16 lose what bf16 has not; through the output they lose it again."""
    data = xs.numerics.sample("normal", m=16, n=16, k=2048)
    names = [f"ampere-mma;split:8:32:{merge}" for merge in ("forward:fp32", "forward:bf16",
                                                            "serial:bf16")]  # fmt: skip
    study = xs.numerics.compare(["bf16"], names, data)
    exact, rounded, serial = (study.case("bf16", name).own.std() for name in names)
    assert exact * 100 < rounded < serial
    assert all(1e-3 < one.bound <= 1 for one in study.cases)
    assert [one.arithmetic for one in study.cases][1].endswith("; split:8:32:forward:bf16")
    with pytest.raises(AccelsimError, match=r"online:8;.* is the order of an attention"):
        xs.numerics.compare(["bf16"], ["ampere-mma;online:8"], data)


def test_the_accumulator_of_a_tensor_core_is_chosen():
    """fp16 sums of the same products lose what 11 bits cannot hold."""
    a, b = xs.numerics.sample("normal", m=16, n=16, k=256)
    names = ["ampere-mma", "ampere-mma/fp16", "ampere-mma/fp32"]
    study = xs.numerics.compare("fp16", names, (a, b))
    single, half, same = (study.case("fp16", name) for name in names)
    assert single.own.std() * 500 < half.own.std()
    assert np.array_equal(single.own, same.own)
    assert 0.01 < half.bound <= 1
    assert half.arithmetic == "k8 f24 RNE fp16; chain"
    fmt = FORMATS["fp16"]
    held = [fmt.decode(fmt.encode(x)) for x in (a, b)]
    rule = arithmetic("ampere-mma").rule(types_of("fp16", "fp16", "fp16"))
    own, size = held[0].astype(float) @ held[1].astype(float), np.abs(a) @ np.abs(b)
    assert np.array_equal(half.own, (rule.multiply(*held, None) - own) / size)
    ordered = xs.numerics.compare("fp8_e4m3", "hopper-wgmma/fp16;chain:32", (a, b))
    assert ordered.cases[0].accumulator == "hopper-wgmma/fp16;chain:32"


def test_integers_have_one_scale_for_each_tensor():
    a, b = xs.numerics.sample("normal", m=16, n=16, k=256)
    study = xs.numerics.compare(["int8", "int4"], ["exact", "ampere-mma"], (1e-4 * a, 1e3 * b))
    one = study.case("int8", "ampere-mma")
    assert not one.own.any()
    assert "one scale for each tensor" in one.arithmetic
    q = [np.rint(x / (np.abs(x).max() / 127)) for x in (a, b)]
    by = np.abs(a).max() * np.abs(b).max() / 127**2
    want = (q[0] @ q[1] * by - a @ b) / (np.abs(a) @ np.abs(b))
    assert np.abs(one.errors - want).max() < 1e-13  # float64 of scaled data
    assert one.rms * 8 < study.case("int4", "ampere-mma").rms < 0.1
    refused = xs.numerics.compare(["uint8", "int8"], "exact", (a, b)).refused
    assert refused == ("uint8 holds no negative numbers, which the data have",)
    assert xs.numerics.compare("uint8", "ampere-mma", (np.abs(a), np.abs(b))).cases[0].rms < 0.01


@pytest.mark.parametrize(
    ("formats", "accumulators", "says"),
    [
        ("e8m0", "exact", "e8m0 is a format of scales, not of operands"),
        (5, "exact", r"formats are names, e.g. 'bf16' or \['bf16'\], not 5"),
        ("bf16", [3], r"accumulators are names, e.g. 'hopper-wgmma' .*, not \[3\]"),
        ("bf16", "ampere-mma/fp17", "fp17"),
        ("bf16", "ampere-mma/", "unknown"),
        ("bf16", "ampere-mma/fp16", "ampere-mma has no bf16 x bf16 -> fp16; supported"),
        ("nvfp4", "blackwell-tcgen05/fp16", "nvfp4 is summed in fp32 by blackwell-tcgen05, not in"),
        ("int8", "ampere-mma/fp32", "ampere-mma has no int8 x int8 -> fp32"),
    ],
)
def test_what_cannot_be_compared_is_one_line(formats, accumulators, says):
    with pytest.raises(AccelsimError, match=says) as fault:
        xs.numerics.compare(formats, accumulators, xs.numerics.sample(m=2, n=2, k=64))
    assert "\n" not in str(fault.value)


def test_an_attention_is_summed_in_fp32():
    data = [np.ones((4, 8)) for _ in range(3)]
    with pytest.raises(AccelsimError, match="an attention is summed in fp32 by hopper-wgmma"):
        xs.numerics.compare("fp16", "hopper-wgmma/fp16", data)


def test_an_attention_takes_no_slices():
    data = [np.ones((4, 8)) for _ in range(3)]
    with pytest.raises(AccelsimError, match=r"not cut into slices: .*;split:2:8"):
        xs.numerics.compare(["fp16"], ["hopper-wgmma;split:2:8"], data)


def test_one_reason_is_given_once():
    data = xs.numerics.sample(m=2, n=2, k=32)
    study = xs.numerics.compare(["nvfp4"], ["exact", "ampere-mma", "ampere-mma;chain"], data)
    assert len(study.refused) == 1


def test_attention_is_compared_too():
    rng = np.random.default_rng(1)
    data = [rng.standard_normal(s) for s in ((16, 32), (100, 32), (100, 32))]
    study = xs.numerics.compare(["fp16", "bf16"], ["exact", "hopper-wgmma"], data)
    assert "attention" in str(study)
    assert study.case("fp16", "hopper-wgmma").rms < study.case("bf16", "hopper-wgmma").rms / 4
    assert study.case("bf16", "hopper-wgmma").bound <= 1


def test_a_study_prints_and_draws_itself():
    data = xs.numerics.sample("normal", m=4, n=4, k=64)
    study = xs.numerics.compare(["int8", "bf16"], ["ampere-mma", "exact"], data)
    text = str(study)
    assert text.count("\n") == 5
    assert "ampere-mma" in text
    figure = study.figure()
    assert len(figure.data) == 4
    assert figure.layout.yaxis.type == "log"
    assert all(np.asarray(box.y).min() > 0 for box in figure.data)


@pytest.mark.parametrize(
    ("formats", "accumulators", "says"),
    [
        (["bf17"], ["exact"], "unknown format 'bf17'; did you mean 'bf16'"),
        (["bf16"], ["hopper"], "unknown arithmetic 'hopper'"),
        (["bf16"], ["hopper-wgmma;promote"], "unknown reduction order 'promote'"),
        (["fp8_e4m3"], ["ampere-mma"], "ampere-mma has no fp8_e4m3"),
        ([], ["exact"], "nothing to compare"),
    ],
)
def test_bad_names_give_one_line(formats, accumulators, says):
    with pytest.raises(AccelsimError, match=says) as fault:
        xs.numerics.compare(formats, accumulators, xs.numerics.sample(m=2, n=2, k=4))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    "data",
    [[np.ones((2, 3)), np.ones((4, 2))], [np.ones((2, 3))], [np.ones(3), np.ones(3)],
     [np.ones((2, 3)), np.ones((4, 3)), np.ones((5, 3))]],
)  # fmt: skip
def test_data_of_other_shapes_are_refused(data):
    with pytest.raises(AccelsimError, match=r"data of shapes .*; accepted: a \[m, k\]"):
        xs.numerics.compare(["bf16"], ["exact"], data)


def test_data_must_be_finite_and_samples_known():
    with pytest.raises(AccelsimError, match="NaN or infinities"):
        xs.numerics.compare(["bf16"], ["exact"], [np.full((2, 2), np.nan), np.ones((2, 2))])
    with pytest.raises(AccelsimError, match="data hold no numbers"):
        xs.numerics.compare(["bf16"], ["exact"], [["a"], ["b"]])
    with pytest.raises(AccelsimError, match="unknown kind of data 'poisson'"):
        xs.numerics.sample("poisson", m=1, n=1, k=1)
    with pytest.raises(AccelsimError, match="at least 1"):
        xs.numerics.sample(m=0, n=1, k=1)


def test_an_unknown_case_names_the_known_ones():
    study = xs.numerics.compare(["bf16"], ["exact"], xs.numerics.sample(m=2, n=2, k=4))
    with pytest.raises(AccelsimError, match="there are: bf16 with exact"):
        study.case("fp16", "exact")
