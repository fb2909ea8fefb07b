"""The kit that records what a GPU gives, on a machine without one: everything but the kernels."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelsim.validation.gpu import (
    capture,
    cases,
    golden,
    inputs,
    operands,
    provenance,
    recording,
)
from accelsim.validation.gpu.devices import fake

from accelsim import AccelsimError
from accelsim.numerics.formats import number_format

ROOT = Path(__file__).resolve().parents[2]
SETS = {one.name: one for one in cases.capture_sets(1, 64)}


def values_of(fmt, codes):
    held = number_format(fmt)
    with np.errstate(invalid="ignore"):
        return np.asarray(held.decode(held.stored(codes))).astype(np.float64)


# --- operands


@pytest.mark.parametrize("fmt", sorted(inputs.LAYOUTS))
def test_classes_are_what_they_say(fmt):
    drawn = {
        values: values_of(fmt, inputs.draw(fmt, values, (16, 256), "x", 3))
        for values in inputs.CLASSES
    }
    held = number_format(fmt)
    for values in set(inputs.CLASSES) - {"patterns"}:
        assert np.isfinite(drawn[values]).all(), values
    size = np.abs(drawn["narrow"])
    assert size.min() >= 2.0**-4
    assert size.max() < 2.0**4
    assert (drawn["positive"] > 0).all()
    assert (drawn["narrow"] < 0).mean() == pytest.approx(0.5, abs=0.05)
    smallest = 2.0**held.min_exponent
    assert (np.abs(drawn["subnormal"]) < smallest).mean() == pytest.approx(0.75, abs=0.05)
    assert set(np.unique(drawn["integers"])) == {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    pairs = drawn["cancellation"]
    near = np.abs(pairs[:, 0::2] + pairs[:, 1::2]) <= np.abs(pairs[:, 0::2]) / 2**held.mantissa_bits
    assert near.all()
    assert (pairs[:, 0::2] + pairs[:, 1::2] != 0).any()
    if held.has_nan:
        assert np.isnan(drawn["patterns"]).any()


def test_words_are_pinned():
    # Any change of these makes recorded files worthless: raise inputs.VERSION with them.
    drawn = inputs.draw("fp16", "narrow", (4,), "pinned")
    assert [f"{word:04X}" for word in drawn] == PINNED
    assert inputs.draw("fp16", "narrow", (4,), "other").tolist() != drawn.tolist()
    longer = inputs.draw("fp16", "narrow", (8,), "pinned")
    assert longer[:4].tolist() == drawn.tolist()


PINNED = ["4784", "4A4E", "2F7F", "BE06"]


@pytest.mark.parametrize("fmt", [*sorted(inputs.LAYOUTS), "int8", "int32"])
def test_whole_numbers_go_through_bit_patterns(fmt):
    most = 127 if fmt == "int8" else 16 if fmt.startswith("fp8_e4") else 8
    numbers = np.arange(-most, most + 1)
    codes = inputs.encode_integers(fmt, numbers)
    assert (values_of(fmt, codes.view(f"<u{codes.itemsize}")) == numbers).all()
    assert (operands.integers_of(fmt, codes) == numbers).all()
    if fmt == "fp8_e4m3":
        with pytest.raises(ValueError, match="does not hold"):
            inputs.encode_integers(fmt, np.array([17]))


def test_order_free_operands_are_exact_in_every_order():
    for one in cases.capture_sets():
        case = operands.order_free(one.cases[0])
        products = ("mma", "wgmma", "sparse", "gemm", "gemv")
        libraries = ("cublaslt", "scaled_mm", "scaled_mm_fast", "cusparselt")
        if case.kernel not in (*products, *libraries) or case.out == "int32":
            continue
        given = operands.operands(replace(case, batch=1))
        a, b = (np.abs(operands.integers_of(case.a, given[name])) for name in ("a", "b"))
        assert a.any(), case.name
        assert b.any(), case.name
        largest = a.sum(axis=-1).max() * b.max()
        if "c" in given:
            largest += np.abs(operands.integers_of(case.out, given["c"])).max()
        bits = inputs.EXACT_BITS.get(case.out, 8)
        if case.a in cases.FP8:
            bits = min(bits, operands.FP8_EXACT_BITS)
        assert largest < 2**bits, case.name


def test_probes_hold_the_numbers_that_they_name():
    case = next(c for c in SETS["probes-mma"].cases if c.values == "P2")
    given = operands.operands(case)
    products = values_of("bf16", given["a"][0, 3]) * values_of("bf16", given["b"][0, 0])
    assert (products != 0).sum() == 4
    assert set(products[products != 0]) == {2.0**-152}
    case = next(c for c in SETS["probes-mma"].cases if c.values == "P1")
    given = operands.operands(case)
    assert values_of("bf16", given["b"][0, 0])[0] == 2.0**127
    assert values_of("bf16", given["a"][0, 0])[0] == 0


@pytest.mark.parametrize(
    ("name", "row", "column", "want"),
    [
        ("P1", 0, 0, {2.0**-30}), ("P1", 3, 2, {2.0**-35}), ("P2", 0, 1, {2.0**-153}),
        ("P3", 0, 0, {2.0**-25, 2.0**-48}), ("P3", 5, 1, {2.0**-25, 2.0**-42}),
        ("P4", 0, 0, {-(2.0**-26)}), ("P4", 7, 7, {-(2.0**-40)}), ("P4b", 1, 1, {-(2.0**-152)}),
    ],
)  # fmt: skip
def test_probes_multiply_to_what_they_are_about(name, row, column, want):
    for kernel in ("mma", "wgmma"):
        case = next(c for c in SETS[f"probes-{kernel}"].cases if c.values == name)
        given = operands.operands(case)
        x, y = (values_of(case.a, given[key])[0] for key in ("a", "b"))
        products = x[row].astype(np.float64) * y[column]
        assert set(products[products != 0]) == want
        assert not given["c"].any()


def test_sparse_operands_spread_as_their_pairs_say():
    case = SETS["sparse-fp16-fp32"].cases[0]
    given = operands.operands(case)
    dense = operands.spread(given["a"], given["pairs"])
    assert dense.shape[-1] == case.k
    assert (np.count_nonzero(dense.reshape(-1, 4), axis=1) <= 2).all()
    assert (np.take_along_axis(dense, operands.chosen(given["pairs"]), -1) == given["a"]).all()


@pytest.mark.parametrize("groups", [8, 16])
def test_metadata_layouts_hold_every_nibble_once(groups):
    from accelsim.validation.gpu.devices.metadata import LAYOUTS, metadata

    picks = np.arange(16 * groups) ** 2 // 7 % 6
    pairs = operands.PAIRS[picks.reshape(1, 16, groups)]
    seen = set()
    for layout in LAYOUTS:
        words = metadata(layout, pairs)[0].reshape(8, 4)[:, : groups // 4]
        nibbles = sorted((int(w) >> s) & 15 for w in words.ravel() for s in range(0, 32, 4))
        want = sorted(int(p[0]) | int(p[1]) << 2 for p in pairs.reshape(-1, 2))
        assert nibbles == want, layout
        seen.add(words.tobytes())
    assert len(seen) == len(LAYOUTS) - (groups == 8)  # with two lanes the last two are one


# --- the plan


def test_sets_are_complete_and_small():
    sets = cases.capture_sets()
    names = [case.name for one in sets for case in one.cases]
    assert len(names) == len(set(names))
    kernels = {case.kernel for one in sets for case in one.cases}
    assert kernels >= {"mma", "wgmma", "sparse", "gemm", "gemv", "attention", "unary", "cast"}
    assert sum(one.seconds for one in sets) < 240
    assert sum(one.bytes for one in sets) < 3_000_000
    swept = [c for one in sets for c in one.cases if c.kernel.startswith("sweep")]
    assert len(swept) == 9
    assert {c.m * c.k for c in swept} == {1 << 32}
    own = ("mma", "wgmma", "gemm", "gemv")
    assert sum(c.count for one in sets for c in one.cases if c.kernel in own) >= 10**6


def test_a_set_says_what_it_needs():
    assert SETS["wgmma-fp16-fp32"].refusal("9.0") == ""
    assert "9.0, this GPU has 8.0" in SETS["wgmma-fp16-fp32"].refusal("8.0")
    assert "8.9 or later" in SETS["mma-fp8_e4m3-fp32"].refusal("8.0")
    assert SETS["mma-fp8_e4m3-fp32"].refusal("12.0") == ""


def test_a_recipe_changes_with_its_sources_and_cases():
    sources = provenance.source_digests()
    one = SETS["mma-fp16-fp32"]
    recipe = one.recipe(sources)
    assert recipe == one.recipe(sources)
    assert recipe != one.recipe({**sources, "devices/kernels/instructions.cu": "0"})
    assert recipe == one.recipe({**sources, "devices/kernels/wgmma.cu": "0"})
    assert recipe != replace(one, cases=one.cases[:1]).recipe(sources)


def test_dry_run_lists_everything_and_needs_no_gpu():
    command = [sys.executable, "-c", DRY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    for one in cases.capture_sets():
        assert one.name in done.stdout


DRY = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "torch", "triton", "pydantic", "typer", "scipy"):
            raise ImportError(name + " must not be imported here")
sys.meta_path.insert(0, Refuses())
from accelsim.validation.gpu import capture
sys.exit(capture.main(["--dry-run"]))
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "nothing*", "--dry-run"], "no set is called"),
        ([], "--out DIR is missing"),
        (["--out", __file__], "File exists"),
        (["--out", f"{__file__}/below"], "Not a directory"),
        (["--out", "never", "--budget", "nan"], "--budget is nan"),
        (["--out", "never", "--budget", "-1"], "--budget is -1"),
    ],
)
def test_bad_options_are_refused_in_one_line(words, said, capsys):
    assert capture.main(words) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


# --- recording

SMALL = [SETS[name] for name in ("mma-bf16-fp32", "wgmma-int8-int32", "cast-fp16")]


def record(tmp_path, sets=SMALL, device=None, **more):
    device = device or fake.FakeDevice()
    folder = golden.Folder.fresh(tmp_path / "fake", device.machine())
    said = []
    recording.record(folder, sets, device, said.append, **more)
    return golden.Folder.read(tmp_path / "fake", allow_fake=True), said


def test_a_second_run_records_nothing_again(tmp_path):
    folder, said = record(tmp_path)
    assert all("cases" in line for line in said)
    before = folder.sets["cast-fp16"]
    folder, said = record(tmp_path)
    assert [line.split(": ")[1] for line in said] == ["recorded before"] * 3
    assert folder.sets["cast-fp16"] == before
    (folder.path / "cast-fp16.npz").write_bytes(b"cut short")
    _, said = record(tmp_path)
    again = [line for line in said if "recorded before" not in line]
    assert len(again) == 1
    assert again[0].startswith("cast-fp16: 4")


def test_files_are_the_same_byte_for_byte(tmp_path):
    first, _ = record(tmp_path / "a")
    second, _ = record(tmp_path / "b")
    for name in first.sets:
        assert first.sets[name]["sha256"] == second.sets[name]["sha256"]


class Broken(fake.FakeDevice):
    """Gives every ``every``-th output wrong: always, or in shifted runs only."""

    shifted_only = False

    def run(self, case, given, turn):
        output, said = super().run(case, given, turn)
        if turn or not self.shifted_only:
            output.reshape(-1)[5] ^= 1
        return output, said


class Moving(Broken):
    shifted_only = True


def test_a_kernel_that_is_not_exact_is_not_recorded(tmp_path):
    folder, said = record(tmp_path, device=Broken())
    assert all("FAILED" in line and "1 of" in line for line in said)
    assert {entry["status"] for entry in folder.sets.values()} == {"failed"}
    assert not list(folder.path.glob("*.npz"))


def test_a_kernel_that_is_not_repeatable_is_dropped(tmp_path):
    folder, said = record(tmp_path, device=Moving())
    assert all("dropped" in line for line in said)
    entry = folder.sets["mma-bf16-fp32"]
    assert entry["status"] == "dropped"
    assert "run 3 differs from run 1 in 1 outputs" in entry["dropped"]["mma-bf16-fp32-narrow"]


def test_a_gpu_without_an_instruction_skips_the_set(tmp_path):
    folder, said = record(tmp_path, device=fake.FakeDevice("8.0"))
    assert "skipped: needs compute capability 9.0" in said[1]
    assert folder.sets["wgmma-int8-int32"]["status"] == "skipped"
    assert folder.sets["mma-bf16-fp32"]["status"] == "recorded"


def test_what_the_time_does_not_allow_is_left_for_the_next_run(tmp_path):
    folder, said = record(tmp_path, deadline=0.0)
    assert all("not reached" in line for line in said)
    folder, said = record(tmp_path)
    assert all(entry["status"] == "recorded" for entry in folder.sets.values())


def test_another_gpu_needs_another_folder(tmp_path):
    record(tmp_path)
    with pytest.raises(AccelsimError, match="another capability"):
        record(tmp_path, device=fake.FakeDevice("8.9"))


# --- refusals


def test_golden_files_that_cannot_be_believed_are_refused(tmp_path):
    folder, _ = record(tmp_path)
    with pytest.raises(AccelsimError, match="not recorded on a GPU"):
        golden.Folder.read(folder.path)
    file = folder.path / "cast-fp16.npz"
    content = bytearray(file.read_bytes())
    content[-40] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(AccelsimError, match=r"cast-fp16\.npz does not match its digest"):
        folder.goldens("cast-fp16")
    file.unlink()
    with pytest.raises(AccelsimError, match=r"cast-fp16\.npz is missing"):
        folder.goldens("cast-fp16")
    manifest = folder.path / "manifest.json"
    text = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**text, "schema": 99}))
    with pytest.raises(AccelsimError, match="version 99; accepted: 1"):
        golden.Folder.read(folder.path, allow_fake=True)
    manifest.write_text("{")
    with pytest.raises(AccelsimError, match="no JSON"):
        golden.Folder.read(folder.path, allow_fake=True)
    manifest.unlink()
    with pytest.raises(AccelsimError, match=r"holds no manifest\.json"):
        golden.Folder.read(folder.path, allow_fake=True)


def _without(*path):
    def edit(manifest):
        for key in path[:-1]:
            manifest = manifest[next(iter(manifest))] if key == "*" else manifest[key]
        del manifest[path[-1]]

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_without("sets"), "the manifest has no sets"),
        (_without("device", "capability"), "device has no capability"),
        (_without("sets", "cast-fp16", "status"), "set cast-fp16 has the status None"),
        (_without("sets", "cast-fp16", "sha256"), "set cast-fp16 has no sha256"),
        (_without("sets", "cast-fp16", "cases", "*", "inputs"), "case cast-.* has no inputs"),
        (lambda m: m["sets"]["cast-fp16"].update(cases={}), "is recorded, but has no case"),
        (lambda m: m["sets"]["cast-fp16"].update(file="../cast-fp16.npz"), "outside its folder"),
        (lambda m: m["sets"]["cast-fp16"].update(status="good"), "has the status 'good'"),
        (lambda m: next(iter(m["sets"]["cast-fp16"]["cases"].values()))["spans"].pop(), "15 spans"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused_by_name(tmp_path, edit, said):
    folder, _ = record(tmp_path)
    file = folder.path / "manifest.json"
    manifest = json.loads(file.read_text())
    edit(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(AccelsimError, match=said) as fault:
        golden.Folder.read(folder.path, allow_fake=True)
    assert str(file) in str(fault.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays, case: arrays.pop(case), "holds no outputs of cast-fp16"),
        (lambda arrays, case: arrays.update({case: arrays[case][:5]}), "accepted: 1024 bit"),
        (lambda arrays, case: arrays.update({case: arrays[case] * 1.0}), "outputs float64"),
        (lambda arrays, case: arrays.clear(), "holds no outputs"),
        (None, "no archive of arrays"),
    ],
)
def test_files_of_something_else_are_refused_by_name(tmp_path, change, said):
    folder, _ = record(tmp_path)
    entry = folder.sets["cast-fp16"]
    file = folder.path / entry["file"]
    content = b"PK but not that"
    if change is not None:
        with np.load(file) as held:
            arrays = dict(held)
        change(arrays, next(iter(entry["cases"])))
        content = golden.packed(arrays)
    file.write_bytes(content)
    entry["sha256"] = golden.digest(content)
    with pytest.raises(AccelsimError, match=said) as fault:
        folder.goldens("cast-fp16")
    assert str(file) in str(fault.value)


# --- the process that watches

SCRIPT = """
import os, sys, time
from pathlib import Path
from accelsim.validation.gpu import capture, cases, golden, recording
from accelsim.validation.gpu.devices import fake
out, passed = Path(sys.argv[1]), sys.argv[2].split(",")
device = fake.FakeDevice()
class Deadly(fake.FakeDevice):
    lost = False
    def answers(self):
        return not Deadly.lost
    def run(self, case, given, turn):
        if case.name.startswith("wgmma"):
            {death}
        if Deadly.lost:
            raise RuntimeError("the same fault again")
        return super().run(case, given, turn)
sets = [one for one in cases.capture_sets(1, 64) if one.name in {names}]
folder = golden.Folder.fresh(out / "fake", device.machine())
try:
    recording.record(folder, sets, Deadly(), lambda x: print(x, flush=True), passed_over=passed)
except recording.LostError:
    sys.exit(capture.LOST)
"""


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("os._exit(9)", "the process ended with 9"),
        ("time.sleep(600)", "no answer"),
        ("Deadly.lost = True; raise RuntimeError('illegal access')", "illegal access"),
    ],
)
def test_a_set_that_kills_its_process_does_not_take_the_others_along(
    tmp_path, monkeypatch, capsys, death, said
):
    script = tmp_path / "worker.py"
    names = ("mma-bf16-fp32", "wgmma-int8-int32", "cast-fp16")
    script.write_text(SCRIPT.format(death=death, names=names))

    def command(given, left, passed_over):
        return [sys.executable, str(script), str(given.out), ",".join(passed_over)]

    monkeypatch.setattr(capture, "worker_command", command)
    monkeypatch.setattr(capture, "SILENT_SECONDS", 5.0)
    out = tmp_path / "out"
    assert capture.main(["--out", str(out)]) == 1
    folder = golden.Folder.read(out / "fake", allow_fake=True)
    assert folder.sets["wgmma-int8-int32"]["status"] == "failed"
    assert said in folder.sets["wgmma-int8-int32"]["reason"]
    assert folder.sets["cast-fp16"]["status"] == "recorded"
    assert "2 recorded" in capsys.readouterr().out


class Library:
    """NVIDIA's management library of a machine with two GPUs."""

    NAMES = (b"GPU-aa", b"GPU-bb")

    def nvmlInit_v2(self):  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, out):  # noqa: N802
        out._obj.value = 1 + index
        return 0

    def nvmlDeviceGetHandleByUUID(self, name, out):  # noqa: N802
        if name not in self.NAMES:
            return 6
        out._obj.value = 1 + self.NAMES.index(name)
        return 0


@pytest.mark.parametrize(("identity", "handle"), [("", 1), ("bb", 2), ("GPU-bb", 2), ("cc", 1)])
def test_readings_are_of_the_gpu_that_cuda_uses(monkeypatch, identity, handle):
    monkeypatch.setattr(provenance.ctypes, "CDLL", lambda _: Library())
    assert provenance.Nvml(identity)._device.value == handle


def test_provenance_without_a_gpu():
    assert provenance.Nvml(library="libnothing.so").driver() == ""
    assert np.isnan(provenance.Nvml(library="libnothing.so").sample().watts)
    with provenance.Logger(fake.SteadyNvml(), interval=0.001) as log:
        pass
    assert log.summary()["sm_mhz"] == [1980.0, 1980.0, 1980.0]
    digests = provenance.source_digests()
    assert {"inputs.py", "devices/kernels/wgmma.cu"} <= set(digests)
    assert capture.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
