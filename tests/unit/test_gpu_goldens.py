"""Recorded bits beside the simulator: the chain from a capture to the claim, on a fake device whose
arithmetic shares no code with the simulator, and the recorded GPUs themselves.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import tensor_core_oracle as oracle
from accelsim.validation import gpu_goldens
from accelsim.validation.gpu import (
    cases,
    golden,
    operands,
    plans,
    recording,
    reference,
    replay,
    sweeps,
)
from accelsim.validation.gpu.devices import fake
from typer.testing import CliRunner

import accelsim as xs
from accelsim import AccelsimError
from accelsim.cli.main import app
from accelsim.results.verdict import judge

NAMES = (
    *(one.name for one in cases.capture_sets(1, 64) if one.name.startswith(("mma", "wgmma"))),
    *(
        "sparse-fp16-fp32",
        "sparse-int8-int32",
        "sparse-wgmma-fp8_e4m3-fp32",
        "probes-mma",
        "probes-wgmma",
        "gemv-fp32",
    ),
    *("attention-fp16", "cast-fp16", "cast-fp8_e4m3", "sweep-fp16"),
    *("sweep-bf16", "sweep-fp8_e4m3", "sweep-fp8_e5m2"),
)
SLOW = ("splitk-fp16", "promote-fp8_e4m3")
"""Whole matrices, of which the fake device computes two cases."""


def small(divisor=64):
    sets = {one.name: one for one in cases.capture_sets(1, divisor)}
    slow = [
        replace(sets[name], cases=tuple(c for c in sets[name].cases if c.values == "narrow"))
        for name in SLOW
    ]
    return [*(sets[name] for name in NAMES), *slow]


def recorded(path, sets, device=None):
    device = device or fake.FakeDevice()
    folder = golden.Folder.fresh(path, device.machine())
    recording.record(folder, sets, device, lambda line: None)
    return golden.Folder.read(path, allow_fake=True)


def known(sets):
    return {case.name: case for one in sets for case in one.cases}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("goldens") / "fake", small())


def test_the_fake_device_agrees_with_rational_numbers():
    # The third implementation: it decides if the other two should ever differ.
    for fmt, out, unit in (
        ("fp16", "fp16", fake.Unit(16, 25, "fp16", 10, True)), ("bf16", "fp32", fake.Unit(16, 25)),
        ("fp8_e5m2", "fp32", fake.Unit(32, 13, "fp32", 13)),
    ):  # fmt: skip
        one = next(s for s in small() if s.name == f"wgmma-{fmt}-{out}")
        for case in one.cases:
            given = {name: x[:1] for name, x in operands.operands(case).items()}
            a, b, c = given["a"][0, :4], given["b"][0], given["c"][0, :4]
            got = unit.chain(fmt, np.repeat(a, 8, 0), np.tile(b, (4, 1)), c.reshape(-1))
            want = [
                oracle.step(
                    [int(x) for x in a[i]], [int(x) for x in b[j]], int(c[i, j]), (fmt, fmt),
                    unit.fraction_bits, out, unit.kept_bits, unit.nearest,
                )
                for i in range(4) for j in range(8)
            ]  # fmt: skip
            assert got.tolist() == want, case.name


def test_every_recorded_case_is_replayed_bit_for_bit(folder):
    found = list(replay.replay(folder, known(small())))
    assert len(found) == sum(len(one.cases) for one in small())
    assert [str(one) for one in found if not one.same] == []
    assert sum(one.outputs for one in found) > 40_000
    rules = {one.set_name: one.rule for one in found}
    assert rules["sparse-fp16-fp32"].startswith("1 step of 16 selected products")
    assert rules["splitk-fp16"].endswith("split:3:64:forward:fp32")


def test_the_claim_holds_and_finds_out_wrong_models(folder):
    rows = list(gpu_goldens.folder_rows(folder, [c for one in small() for c in one.cases]))
    assert [row.case for row in rows if not row.ok] == []
    splits = {row.split for row in rows}
    assert splits == {"right", "wrong"}
    wrong = " ".join(row.case for row in rows if row.split == "wrong")
    for what in ("F = 24", "F = 26", "K = 8", "RNE for RZ", "RZ for RNE", "merged backwards",
                 "one chain", "16 lanes", "sums by 8 lanes", "c first", "k in order"):  # fmt: skip
        assert what in wrong, what


def test_a_wrong_bit_fails_the_claim_and_says_where(folder, tmp_path):
    class Wrong(fake.FakeDevice):
        def run(self, case, given, turn):
            output, said = super().run(case, given, turn)
            if case.values != "integers":
                output.reshape(-1)[77] ^= 1
            return output, said

    sets = [one for one in small() if one.name in ("wgmma-fp16-fp32", "cast-fp16")]
    bad = recorded(tmp_path / "bad", sets, Wrong())
    found = [one for one in replay.replay(bad, known(sets)) if not one.same]
    assert len(found) == 6 + 4
    assert all((one.stored, one.spans) == (1, 1) for one in found)
    assert "first at 77: simulated 0x" in str(found[-1])
    assert "order chain" in str(found[-1])
    rows = list(gpu_goldens.folder_rows(bad, [c for one in sets for c in one.cases]))
    assert not all(row.ok for row in rows if row.split == "right")


def test_a_corner_that_the_model_has_otherwise_is_named(tmp_path):
    class Counts(fake.FakeDevice):
        """Products of zero count for the alignment: P1 as MMA-Sim has it."""

        def run(self, case, given, turn):
            if case.values != "P1":
                return super().run(case, given, turn)
            output, said = super().run(case, given, turn)
            return np.zeros_like(output), said

    sets = [one for one in small() if one.name == "probes-wgmma"]
    found = {one.case: one for one in replay.replay(recorded(tmp_path / "c", sets, Counts()),
                                                    known(sets))}  # fmt: skip
    assert found["probe-wgmma-P1"].reason == "explained by zero_products = True"
    assert not found["probe-wgmma-P1"].same
    assert found["probe-wgmma-P2"].same


def test_the_step_of_sparse_instructions_is_found_out(tmp_path):
    sets = [one for one in small() if one.name.startswith("sparse-fp16")]
    two = recorded(tmp_path / "two", sets, fake.FakeDevice(sparse_steps=2))
    found = list(replay.replay(two, known(sets)))
    assert all(one.same for one in found)
    # Where operands can tell, two steps and not one.
    telling = {one.case.split("-")[-1] for one in found if one.rule.startswith("2 steps of 8")}
    assert {"narrow", "positive", "wide"} <= telling


@pytest.mark.parametrize("name", ["sweep-fp8_e4m3", "sweep-fp16"])
def test_a_cast_that_rounds_otherwise_is_found_in_its_sweep(name):
    whole = next(one for one in cases.capture_sets() if one.name == name).cases[0]
    case = replace(whole, m=1 << 12, k=1 << 20)
    kept = np.zeros(case.m, dtype=np.uint64)
    for block in sweeps.replayed_blocks(case):
        words = sweeps.block_words(case, int(block))
        kept[block] = sweeps.digest_of(words, fake.narrowed(case.out, words))
    inputs = recording.recorded_inputs(operands.operands(case))
    entry = golden.entry_of(kept, inputs, "", {})
    one = golden.Golden(name, case.name, entry, kept)
    assert replay.swept(one, case).same
    wrong = replay.swept(one, case, "RZ")
    assert wrong.stored > 0
    assert "first in the words from 0x" in str(wrong)


def test_what_is_not_stored_is_compared_too(tmp_path):
    case = next(c for one in small(1) for c in one.cases if c.name.startswith("cast-fp16-narrow"))
    output, _ = fake.FakeDevice().run(case, operands.operands(case), 0)
    stored = output[golden.positions(case.name, output.size)]
    assert len(stored) == golden.KEPT < output.size
    entry = golden.entry_of(output, "", "", {})
    one = golden.Golden("s", case.name, entry, stored)
    assert one.differing(output) == (0, 0)
    hidden = np.setdiff1d(np.arange(output.size), golden.positions(case.name, output.size))[0]
    other = output.copy()
    other[hidden] ^= 1
    assert one.differing(other) == (0, 1)
    unseen = replay.Compared("s", case.name, output.size, 0, 1, "RNE")
    assert not unseen.same
    assert [row.ok for row in gpu_goldens._verdicts("GPU", "s", [unseen])] == [False, False]
    with pytest.raises(AccelsimError, match="outputs recomputed"):
        one.differing(output[:-1])


def test_a_golden_of_other_operands_or_another_order_is_refused(folder):
    cases_ = known(small())
    name, goldens = next(replay.recorded_sets(folder))
    one = goldens[0]
    case = cases_[one.case]
    with pytest.raises(AccelsimError, match="other operands"):
        replay.given_of(golden.Golden(name, one.case, {**one.entry, "inputs": "0"}, one.kept), case)
    with pytest.raises(AccelsimError, match=r"in order 'online:64;.*', not 'promote:64'"):
        replay.case_of(one, {one.case: replace(case, order="promote:64")})
    with pytest.raises(AccelsimError, match="no case is called"):
        replay.case_of(one, {})


# --- libraries, whose plans are tried


def library_case(kernel, out="fp32", k=256):
    return cases.Case(
        name=f"{kernel}-test", kernel=kernel, a="fp16", b="fp16", out=out, m=16, n=24, k=k,
        values="narrow", order="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("configuration", "rule", "required"),
    [
        ({"algorithm": 66, "split_k": 1}, "chain", True),
        ({"algorithm": 21, "split_k": 1}, "chain", False),
        ({"algorithm": 66, "split_k": 2, "reduction": 2}, "split:2:64:forward:fp32", True),
        ({"algorithm": 66, "split_k": 2, "reduction": 4}, "split:2:64:forward:fp16", True),
        ({"algorithm": 23, "split_k": 2, "reduction": 1}, "split:2:64:serial:fp16", False),
    ],
)
def test_the_plan_of_cublas_follows_its_recorded_algorithm(configuration, rule, required):
    case = library_case("cublaslt", "fp16")
    first = plans.of(case, "9.0", {"configuration": configuration})[0]
    assert first.rule.endswith(rule)
    assert first.required is required
    got = first.outputs(operands.operands(case))
    assert got.shape == (16, 24)
    assert got.dtype == np.uint16


def test_a_tail_of_k_under_split_k_is_listed_not_judged():
    configuration = {"algorithm": 66, "split_k": 4, "reduction": 2}
    plan = plans.of(library_case("cublaslt", k=250), "9.0", {"configuration": configuration})[0]
    assert plan.outputs is None
    assert "may be dropped" in plan.reason


def test_a_sparse_product_is_a_dense_one_where_order_does_not_matter():
    case = replace(library_case("cusparselt", "fp16", k=1024), values="integers")
    given = operands.operands(case)
    for plan in plans.of(case, "9.0", {}):
        assert (plan.outputs(given) == operands.exact_outputs(case, given)).all()


def test_the_table_of_ex2_is_kept_whole(tmp_path):
    class Functions(fake.FakeDevice):
        """Correctly rounded special functions."""

        def refusal(self, kernel):
            return ""

        def run(self, case, given, turn):
            start, count = (int(x) for x in given["words"])
            x = (np.uint32(start) + np.arange(count, dtype=np.uint32)).view(np.float32)
            y = plans.FUNCTIONS[case.values](x.astype(np.float64)).astype(np.float32)
            return y.view("<u4"), {}

    sets = [one for one in cases.capture_sets(1, 64) if one.name in ("unary-ex2", "unary-lg2")]
    found = recorded(tmp_path / "f", sets, Functions())
    assert (found.path / "unary-ex2.npz").stat().st_size < 2_000_000
    one = found.goldens("unary-ex2")[0]
    words, values = replay.table(found, one, known(sets)["unary-ex2"])
    assert words.view(np.float32).min() == -2.0
    assert words.view(np.float32).max() < -1.0
    assert len(values) == 2**23
    assert plans.ulps_off("ex2", words, values) <= 0.5
    rows = list(gpu_goldens.folder_rows(found, [c for s in sets for c in s.cases]))
    assert all("ulp off" in row.case and row.split == "listed" for row in rows)
    assert "8,388,608 of 8,388,608 values, at most 0.500 ulp" in rows[0].case


def test_attention_of_a_library_is_judged_by_its_bound():
    case = cases.Case(
        name="sdpa-test", kernel="sdpa", a="fp16", b="fp16", out="fp16", m=16, n=64, k=128,
        values="narrow", order="", arithmetic="mma",
    )  # fmt: skip
    given = operands.operands(case)
    fp32 = fake.FakeDevice()._attention(case, given).view(np.float32)
    half = fp32.astype(np.float16).view(np.uint16)

    def ratio(output):
        kept = output.reshape(-1)[golden.positions(case.name, output.size)]
        entry = golden.entry_of(output, recording.recorded_inputs(given), "", {})
        return plans.bound_ratio(case, "9.0", golden.Golden("s", case.name, entry, kept))

    assert 0 < ratio(half) <= 1
    assert ratio(half ^ np.uint16(0x0200)) > 1


# --- the claim, and recorded GPUs


def test_without_a_capture_the_claim_is_outstanding_and_does_not_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_goldens.outstanding, "__defaults__", (tmp_path / "none",))
    done = CliRunner().invoke(app, ["validate", "gpu-goldens", "--no-report"])
    assert done.exit_code == 0, done.output
    assert "outstanding: no GPU has been recorded: run `python -m" in done.stdout
    told = CliRunner().invoke(app, ["validate", "gpu-goldens", "--no-report", "--json", "-"])
    content = json.loads(told.stdout)
    assert content["ok"] is True
    assert content["claims"][0]["ok"] is False
    assert "no GPU" in content["claims"][0]["outstanding"]
    report = CliRunner().invoke(app, ["validate", "gpu-goldens", "--to", str(tmp_path / "r")])
    assert report.exit_code == 0
    assert "Outstanding: no GPU" in (tmp_path / "r" / "report.md").read_text()
    assert "outstanding" in (tmp_path / "r" / "report.html").read_text()


def test_a_gpu_of_which_nothing_could_be_recorded_is_outstanding(tmp_path):
    about = {**fake.machine(), "kind": "cuda"}
    folder = golden.Folder.fresh(tmp_path / "gpu", about)
    assert "no GPU has been recorded" in gpu_goldens.outstanding(tmp_path)
    folder.note("mma-fp16-fp32", "skipped", reason="no compiler")
    assert "no GPU has been recorded" in gpu_goldens.outstanding(tmp_path)
    recorded(tmp_path / "other", small()[:1])
    (tmp_path / "other").rename(tmp_path / "gpu2")
    manifest = tmp_path / "gpu2" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"kind": "fake"', '"kind": "cuda"'))
    assert gpu_goldens.outstanding(tmp_path) == ""


def test_a_fake_capture_is_no_evidence(folder, monkeypatch):
    monkeypatch.setattr(gpu_goldens.outstanding, "__defaults__", (folder.path.parent,))
    verdict = judge(gpu_goldens)
    assert verdict.fails
    assert "was not recorded on a GPU" in verdict.problem


def test_recorded_gpus_give_the_simulators_bits_and_find_out_wrong_models():
    # The claim replays every case; here those that take no second.
    for one in replay.folders():
        rows = list(gpu_goldens.folder_rows(one, most_macs=1 << 22))
        assert [row.case for row in rows if not row.ok] == []
        assert {"right", "wrong"} <= {row.split for row in rows}


def test_large_cases_can_be_passed_over(folder):
    all_ = [c for one in small() for c in one.cases]
    few = list(gpu_goldens.folder_rows(folder, all_, most_macs=1 << 14))
    assert few
    assert not any("splitk" in row.case for row in few)
    assert len(few) < len(list(gpu_goldens.folder_rows(folder, all_)))


# --- check --reference

SHAPE = "gemm:m=64,n=64,k=512,dtype=fp16"


def products(workload=SHAPE, arch="h100", order="program", **overrides):
    machine, graph = xs.arch(arch, overrides or None), xs.workload(workload)
    return list(reference.compiled(machine, graph, (), "bandwidth", order))


def test_a_program_gives_the_bits_of_the_reference_kernel():
    found = reference.against_gpu(products(), fake.FakeDevice())
    assert [one.reference for one in found] == [
        f"this GPU: {values}" for values in reference.LIVE_CLASSES
    ]
    assert all(one.ok and one.compared == 4096 for one in found)
    assert {one.order for one in found} == {"chain"}


def test_a_program_of_another_arithmetic_does_not():
    class Ampere(fake.FakeDevice):
        def _unit(self, case):
            return fake.Unit(8, 24)

    found = reference.against_gpu(products(), Ampere())
    assert any(not one.ok for one in found)
    assert "order chain" in next(one.first for one in found if one.first)


def test_products_that_the_reference_kernel_does_not_compute_are_refused():
    with pytest.raises(AccelsimError, match="m and n in multiples of 64"):
        reference.against_gpu(products("gemm:m=65,n=64,k=512,dtype=fp16"), fake.FakeDevice())
    with pytest.raises(AccelsimError, match="this GPU computes as ampere-mma"):
        reference.against_gpu(products(), fake.FakeDevice("8.0"))


def test_a_program_is_compared_with_the_goldens_of_its_product(tmp_path, monkeypatch):
    sets = [one for one in cases.capture_sets(1, 64) if one.name == "gemm-fp16"]
    sets = [replace(sets[0], cases=sets[0].cases[:2])]
    root = tmp_path / "golden"
    recorded(root / "fake", sets)
    monkeypatch.setattr(replay, "folders", lambda _: [golden.Folder.opened(root / "fake")])
    monkeypatch.setattr(replay, "all_cases", lambda: known(sets))
    found = reference.against_goldens(products())
    assert [one.ok for one in found] == [True, True]
    assert found[0].compared == golden.KEPT
    done = CliRunner().invoke(app, ["check", "h100", SHAPE, "--reference", "golden"])
    assert done.exit_code == 0, done.output
    assert "OK: 0 of 2,048 outputs differ in bits" in done.stdout
    words = ["check", "h100", SHAPE, "--reference", "golden", "--json", "-", "--order", "both"]
    content = json.loads(CliRunner().invoke(app, words).stdout)
    assert content["ok"] is True
    assert [one["compared"] for one in content["operators"]] == [1024] * 4
    several = products() + products("gemm:m=64,n=128,k=512,dtype=fp16")
    several[1] = replace(several[1], operator=replace(several[1].operator, name="other"))
    found = reference.against_goldens(several)
    assert (found[-1].operator, found[-1].reference) == ("other", "no golden matches")
    assert found[-1].compared == 0
    other = ["h100", "gemm:m=64,n=64,k=256,dtype=fp16"]
    none = CliRunner().invoke(app, ["check", *other, "--reference", "golden"])
    assert none.exit_code == 2
    assert "no golden matches gemm (64 x 64 x 256, fp16 x fp16 -> fp16, hopper-wgmma, chain)" in (
        none.stderr
    )
    no = ["check", "h100", SHAPE, "--set", "tensor.arithmetic=ampere-mma", "--reference", "golden"]
    assert CliRunner().invoke(app, no).exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reference", "gold"), "unknown reference 'gold'; accepted: float64, golden, gpu"),
        (("--reference", "golden", "--seed", "3"), "operands of --reference golden are its own"),
        (("--reference", "gpu"), "a GPU is reached through torch and triton"),
    ],
)
def test_references_that_are_not_there_are_one_line(words, said):
    if "torch" in said and reference_has_torch():
        pytest.skip("torch is on this machine")
    done = CliRunner().invoke(app, ["check", "h100", SHAPE, *words])
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def reference_has_torch():
    from importlib.util import find_spec

    return find_spec("torch") is not None
