"""The CUDA kernels and their launches, on this CPU: what the GPU will run gives the bits that the
fake device gives, which is written independently. Skipped, visibly, without g++.
"""

from dataclasses import replace

import cuda_host
import numpy as np
import pytest
from accelsim.validation.gpu import capture, cases, golden, operands, recording, sweeps
from accelsim.validation.gpu.devices import cuda, fake
from accelsim.validation.gpu.devices.metadata import LAYOUTS

pytestmark = pytest.mark.skipif(
    cuda_host.compiler() is None, reason="no g++ with C++20 and halves on this machine"
)

SETS = {one.name: one for one in cases.capture_sets(1, 64)}
FINITE = ("narrow", "subnormal", "cancellation", "positive", "integers", "patterns")


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return cuda_host.HostDevice(tmp_path_factory.mktemp("host"))


def chosen_cases(one):
    """Cases without Inf and NaN, which this CPU's tensor cores do not have."""
    integers = one.cases[0].out == "int32"
    return [c for c in one.cases if c.values in FINITE and (integers or c.values != "patterns")]


def small(case):
    return replace(case, batch=1)


INSTRUCTIONS = [name for name in SETS if name.startswith(("mma", "wgmma", "sparse"))]


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions(device, name):
    picked = [small(case) for case in chosen_cases(SETS[name])]
    recording.checked(picked, device)  # which also finds the layout of the metadata
    for case in picked:
        given = operands.operands(case)
        output, said = device.run(case, given, 0)
        want, _ = fake.FakeDevice().run(case, given, 0)
        assert (output == want).all(), case.name
        assert said == ({"metadata": "split rows"} if case.kernel == "sparse" else {})


def test_blocks_may_be_shifted(device):
    case = replace(SETS["mma-fp16-fp32"].cases[0], batch=3)
    given = operands.operands(case)
    first, _ = recording.repeated_runs(case, given, device)
    assert first.shape == (3, 16, 8)


def test_a_wrong_layout_of_metadata_is_not_exact(device):
    case = small(operands.order_free(SETS["sparse-int8-int32"].cases[0]))
    given = operands.operands(case)
    exact = operands.exact_outputs(case, given)
    fits = [x for x in LAYOUTS if (device._sparse_with(x, case, given, 0) == exact).all()]
    assert fits == ["split rows"]


@pytest.mark.parametrize("name", ["gemv-fp16", "gemv-bf16", "gemv-fp32", "attention-fp16"])
def test_kernels_in_declared_orders(device, name):
    case = SETS[name].cases[0]
    picked = [replace(c, m=min(c.m, 16)) for c in SETS[name].cases if c.values != "cancellation"]
    recording.checked([replace(case, m=min(case.m, 16))], device)
    for case in picked:
        given = operands.operands(case)
        output, _ = device.run(case, given, 1)
        want, _ = fake.FakeDevice().run(case, given, 0)
        assert (output == want).all(), case.name


@pytest.mark.parametrize("out", sorted(cases.CASTS))
def test_casts(device, out):
    for case in SETS[f"cast-{out}"].cases:
        given = operands.operands(case)
        output, _ = device.run(case, given, 0)
        want, _ = fake.FakeDevice().run(case, given, 0)
        assert (output == want).all(), case.name


@pytest.mark.parametrize("name", sorted(cases.UNARY))
def test_special_functions_are_called_by_their_names(device, name):
    start, _ = cases.UNARY[name]
    case = replace(SETS[f"unary-{name}"].cases[0], m=20000)
    given = {"words": np.array([start, 20000], dtype=np.uint64)}
    output, _ = device.run(case, given, 0)
    assert output.shape == (20000,)
    if name == "ex2":
        assert set(recording.table_of(case, output)) == {"table-first", "table-steps"}
    with pytest.raises(RuntimeError, match="is off by"):
        cuda._near("tanh" if name == "ex2" else "ex2", start, output)


@pytest.mark.parametrize("name", [name for name in SETS if name.startswith("sweep")])
def test_sweeps_digest_what_the_plain_kernels_give(device, name):
    case = SETS[name].cases[0]
    found, _ = recording.repeated_runs(case, operands.operands(case), device)
    words = sweeps.block_words(case, 7)
    if case.kernel == "sweep_cast":
        assert found.tolist() == fake.FakeDevice().run(case, {}, 0)[0].tolist()
        results = device._narrowed(case.out, words)
    else:
        results = device._function(case.values, int(words[0]), len(words))
    assert sweeps.digest_of(words, results) == found[7]
    results[100] ^= 1
    assert sweeps.digest_of(words, results) != found[7]


def test_a_worker_records_from_its_device(tmp_path, monkeypatch, capsys):
    class Host(cuda_host.HostDevice):
        readings = fake.SteadyNvml()

    monkeypatch.setattr("accelsim.validation.gpu.devices.cuda.CudaDevice", Host)
    sets = [replace(SETS["mma-int8-int32"]), SETS["cast-bf16"]]
    for _ in range(2):
        assert capture.work(tmp_path, sets, 100.0, [""]) == 0
    folder = golden.Folder.opened(tmp_path / "fake")
    assert {entry["status"] for entry in folder.sets.values()} == {"recorded"}
    assert [sorted(run) for run in folder.manifest["runs"]] == [["clocks", "commit", "date"]] * 2
    assert not list(folder.path.glob(".*"))
    assert [one.name for one in tmp_path.iterdir()] == ["fake"]
    assert capsys.readouterr().out.count("recorded before") == 2
