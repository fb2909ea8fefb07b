"""The main path: composition, limits, declared approximations, what a Result carries."""

import json

import pytest

import accelsim as xs
from accelsim.api import simulate
from accelsim.errors import AccelsimError
from accelsim.results.result import Result

SMALL = "llama-2-7b:layers=3,hidden=64,heads=4,kv_heads=4,ffn=128,vocab=100,tokens=16"


def test_public_names_work_as_documented() -> None:
    machine = xs.arch("systolic", {"array.rows": 16, "array.dataflow": "os"})
    work = xs.workload("gemm:m=32,n=32,k=32")
    result = xs.simulate(machine, work)
    assert result.arch == "systolic"
    assert xs.check(machine, work, seed=1).ok
    # The rooms of the same names are still importable.
    from accelsim.arch.model import Architecture
    from accelsim.workload.graph import Graph

    assert isinstance(machine, Architecture)
    assert isinstance(work, Graph)


def test_result_has_the_documented_json_keys() -> None:
    data = simulate("tpu-v3", SMALL).to_dict()
    assert set(data) == {
        "schema", "version", "arch", "workload", "mapper", "memory", "clock_hz", "cycles",
        "seconds", "macs", "instructions", "utilization", "traffic_bytes", "energy_pj", "bounds",
        "bottleneck", "approximations", "links", "operators", "digests", "wall_seconds",
    }  # fmt: skip
    assert data["schema"] == 1
    assert data["seconds"] == data["cycles"] / data["clock_hz"]
    assert {"name", "kind", "cycles", "mapper", "repeat"} <= set(data["operators"][0])
    assert json.loads(json.dumps(data)) == data


def test_digests_follow_arch_and_workload() -> None:
    base = simulate("systolic", "gemm:m=8,n=8,k=8").digests
    other = simulate("systolic", "gemm:m=8,n=8,k=9").digests
    wider = simulate("systolic", "gemm:m=8,n=8,k=8", overrides={"array.rows": 16}).digests
    assert base["arch"] == other["arch"]
    assert base["workload"] != other["workload"]
    assert base["arch"] != wider["arch"]


def test_identical_layers_are_simulated_once_and_that_is_declared() -> None:
    result = simulate("tpu-v3", SMALL)
    assert [s.repeat for s in result.segments] == [1, 3, 1]
    assert any("one of 3 identical layers" in text for text in result.approximations)
    whole = simulate("tpu-v3", SMALL, compose=False)
    assert len(whole.segments) == 1
    assert not any("identical layers" in text for text in whole.approximations)


def test_a_gemm_of_1e15_macs_is_refused_with_the_limit_or_finishes() -> None:
    huge = "gemm:m=100000,n=100000,k=100000"
    with pytest.raises(AccelsimError, match=r"tile instructions, more than the limit of 4,000,000"):
        simulate("systolic", huge)
    with pytest.raises(AccelsimError, match=r"does not fit into hbm.* of 32 GiB left"):
        simulate("tpu-v3", huge)
    assert simulate("systolic", huge, memory="ideal").macs == 10**15


def test_instruction_limit_is_the_users() -> None:
    with pytest.raises(AccelsimError, match="limit of 100:"):
        simulate("systolic", "gemm:m=512,n=512,k=512", max_instructions=100)


def test_a_check_that_would_not_fit_says_so() -> None:
    with pytest.raises(AccelsimError, match=r"too large to compute here.*layers="):
        xs.check("tpu-v3", "llama-2-7b:tokens=16")


def test_a_model_beyond_main_memory_names_the_tensor() -> None:
    with pytest.raises(AccelsimError, match=r"tensor '.*' of .* does not fit into hbm"):
        simulate("tpu-v3", "llama-2-70b:tokens=16")


def test_weights_beyond_main_memory_are_told_together() -> None:
    with pytest.raises(AccelsimError, match=r"MiB of 4 GiB left; all weights together take 325"):
        simulate("pim-gpt", "gpt3-175b:phase=decode,batch=1,context=100")


def energy_lines(found: Result) -> list[str]:
    return [text for text in found.approximations if text.startswith("energy:")]


def test_what_worked_without_energy_parameters_is_said() -> None:
    """Units that compute, memories and networks; what only moves bytes is no part."""
    work = "opt-125m:layers=1,tokens=16"
    whole = simulate("tpu-v3", work)
    assert energy_lines(whole) == []
    off = {"mxu.mac_pj": 0, "vmem.read_pj_per_byte": 0, "vmem.write_pj_per_byte": 0}
    some = simulate("tpu-v3", work, overrides=off)
    assert energy_lines(some) == ["energy: mxu, vmem have no parameters and are not counted"]
    assert not {"mxu", "vmem"} & {*some.energy_pj}
    assert energy_lines(some)[0] in some.to_dict()["approximations"]
    half = simulate("tpu-v3", work, overrides={"vmem.read_pj_per_byte": 0})
    assert energy_lines(half) == []
    wires = simulate("mesh-npu", work, overrides={"noc.hop_pj_per_byte": 0})
    assert energy_lines(wires) == ["energy: noc has no parameters and is not counted"]


def test_what_did_no_work_is_not_missed_in_the_energy() -> None:
    off = {"vpu.op_pj": 0}
    product, softmax = "gemm:m=64,n=64,k=64", "softmax:rows=8,cols=64"
    assert energy_lines(simulate("tpu-v3", product, overrides=off)) == []
    assert energy_lines(simulate("tpu-v3", softmax, overrides=off)) == [
        "energy: vpu has no parameters and is not counted"
    ]
    rows = simulate("a100", "softmax:rows=8,cols=64")
    assert not sum(rows.traffic_bytes["shared"].values())
    assert energy_lines(rows) == ["energy: registers has no parameters and is not counted"]


def test_a_cache_without_energy_parameters_is_said() -> None:
    off = {"l2.read_pj_per_byte": 0, "l2.write_pj_per_byte": 0}
    told = energy_lines(simulate("a100", "gemm:m=64,n=64,k=64", overrides=off))
    assert len(told) == 1
    assert "l2" in told[0]
    ideal = energy_lines(simulate("a100", "gemm:m=64,n=64,k=64", memory="ideal", overrides=off))
    assert not any("l2" in line for line in ideal)  # nobody asks it


def test_where_no_energy_is_counted_nothing_is_added() -> None:
    found = simulate("onnxim-mobile", "gemm:m=64,n=64,k=64")
    assert not found.energy_pj["total"]
    assert energy_lines(found) == []


def test_a_row_longer_than_the_scratchpad_is_refused_by_name() -> None:
    """Sums over the scores of a row hold them on chip; a softmax sweeps over its rows."""
    with pytest.raises(AccelsimError, match=r"operator 'attention' .*row of 20000000 elements"):
        simulate("tpu-v3", "attention:heads=1,q=1,kv=20000000,d=1")
    simulate("tpu-v3", "softmax:rows=2,cols=20000000")


def test_unknown_mapper_and_fidelity_name_the_known_ones() -> None:
    with pytest.raises(AccelsimError, match=r"known mappers: .*systolic-gemm"):
        simulate("tpu-v3", "gemm:m=8,n=8,k=8", mapper="systolic-gem")
    with pytest.raises(AccelsimError, match="accepted: ideal, bandwidth, dram"):
        simulate("tpu-v3", "gemm:m=8,n=8,k=8", memory="flash")


def test_a_users_mapper_file_goes_through_the_same_door(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from accelsim.mapping.registry import MAPPERS, load_file

    file = tmp_path / "mine.py"
    file.write_text(
        "from accelsim.hw.dma import Dma\n"
        "from accelsim.mapping.registry import mapper\n"
        "from accelsim.mapping.products import gemm_products, lower_products\n"
        "@mapper('mine', lowers=('gemm',), needs=(Dma,))\n"
        "def mine(op, low):\n"
        "    '''As the built-in one.'''\n"
        "    lower_products(low, gemm_products(op, low))\n"
    )
    try:
        assert load_file(file) == ("mine",)
        result = simulate("tpu-v3", "gemm:m=8,n=8,k=8", mapper="mine")
        assert result.mapper == "mine"
    finally:
        MAPPERS.pop("mine", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1\n", "registers no mapper"), ("import nothing_there\n", "ModuleNotFoundError")],
)
def test_a_bad_mapper_file_is_one_line(tmp_path, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    from accelsim.mapping.registry import load_file

    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(AccelsimError, match=message):
        load_file(file)
    with pytest.raises(AccelsimError, match="no such Python file"):
        load_file(tmp_path / "missing.py")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), 17.0])
def test_a_scale_out_of_range_is_refused(scale: float) -> None:
    with pytest.raises(AccelsimError, match=r"scale .* is out of range"):
        xs.check("tpu-v3", "softmax:rows=4,cols=4", scale=scale)
    assert xs.check("tpu-v3", "softmax:rows=4,cols=40", scale=16.0).ok
