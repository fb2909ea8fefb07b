"""What must hold for every run: bounds, monotonic hardware, conservation, determinism."""

import random

import pytest

from accelsim.api import arch, simulate, workload
from accelsim.engine.bind import bind
from accelsim.engine.merge import run
from accelsim.program.opcodes import Opcode
from accelsim.results.result import Result

WORKLOADS = (
    "gemm:m=200,n=300,k=170",
    "gemm:m=1,n=1000,k=300",
    "gemm:m=70,n=64,k=300,batch=3,bias=true",
    "attention:heads=8,kv_heads=2,q=1,kv=200,d=64,batch=3",
    "attention:heads=4,kv_heads=4,q=100,kv=100,d=64,causal=true",
    "conv2d:h=30,w=28,cin=16,cout=24,fh=3,fw=3,padding=1",
    "softmax:rows=500,cols=700",
    "layernorm:rows=300,cols=768",
    "llama-2-7b:layers=2,hidden=256,ffn=512,vocab=500,heads=4,kv_heads=4,tokens=64",
)
ARCHS = ("tpu-v3", "edge-npu", "quad-npu", "systolic")
ALL = [(a, w) for a in ARCHS for w in WORKLOADS]
every_case = pytest.mark.parametrize(("machine", "work"), ALL)


@every_case
def test_no_result_is_below_a_bound_and_ideal_memory_is_never_slower(
    machine: str, work: str
) -> None:
    real, ideal = simulate(machine, work), simulate(machine, work, memory="ideal")
    for result in (real, ideal):
        assert all(result.cycles >= bound - 1e-6 for bound in result.bounds.values())
    assert ideal.cycles <= real.cycles


def _rebound(result: Result, overrides: dict[str, object]) -> list[float]:
    """The same programs on a changed machine: seconds of every segment."""
    changed = result.architecture.override(overrides)  # type: ignore[union-attr]
    ticks = [run(bind(s.bound.program, changed).timed).ticks for s in result.segments]
    return [one / changed.ticks_per_second() for one in ticks]


@every_case
def test_more_bandwidth_and_less_latency_are_never_slower_for_the_same_program(
    machine: str, work: str
) -> None:
    result = simulate(machine, work)
    memory = next(n for n, m in arch(machine).memories.items() if m.shared)
    bandwidth = arch(machine).memories[memory].bandwidth  # type: ignore[attr-defined]
    before = _rebound(result, {})
    faster = _rebound(result, {f"{memory}.bandwidth": 2 * bandwidth})
    latency = arch(machine).memories[memory].latency  # type: ignore[attr-defined]
    closer = _rebound(result, {f"{memory}.latency": latency / 4})
    # Ports serve by arrival, so a changed order may cost a few transfers, never the trend; the most
    # seen is 2.6 %, of a head of 500 words. (At no
    # latency at all, a load's end, its consumer and the next load tie, and one order wins all.)
    assert all(a <= b * 1.03 for a, b in zip(faster, before, strict=True))
    assert all(a <= b * 1.05 for a, b in zip(closer, before, strict=True))


@pytest.mark.parametrize("work", WORKLOADS)
def test_more_arrays_are_never_slower(work: str) -> None:
    cycles = [simulate("tpu-v3", work, overrides={"mxu.count": n}).cycles for n in (1, 2, 4)]
    assert cycles[1] <= cycles[0] * 1.01
    assert cycles[2] <= cycles[1] * 1.01


@every_case
def test_bytes_moved_are_the_bytes_of_the_program(machine: str, work: str) -> None:
    result = simulate(machine, work)
    memory = next(n for n, m in arch(machine).memories.items() if m.shared)
    read = written = 0
    for segment in result.segments:
        program = segment.bound.program
        payload = program.operand_bytes()
        opcode = program.column("opcode")
        loads, stores = opcode == Opcode.LOAD, opcode == Opcode.STORE
        read += segment.repeat * int(payload[program.sources[loads, 0]].sum())
        written += segment.repeat * int(payload[program.column("dst")[stores]].sum())
    traffic = result.traffic_bytes[memory]
    assert traffic["write"] >= written
    assert traffic["read"] >= read
    if arch(machine).memories[memory].access_bytes == 1 and "llama" not in work:  # type: ignore[attr-defined]
        assert (traffic["read"], traffic["write"]) == (read, written)


@every_case
def test_every_output_leaves_and_every_input_arrives_at_least_once(machine: str, work: str) -> None:
    result = simulate(machine, work)
    graph = workload(work)
    moved = next(iter(result.traffic_bytes.values()))
    outputs = sum(t.bytes for t in graph.outputs)
    weights = sum(t.bytes for t in graph.weights if "embed" not in t.name)
    assert moved["write"] >= outputs
    assert moved["read"] >= weights


@every_case
def test_sums_are_the_sums_of_their_parts(machine: str, work: str) -> None:
    result = simulate(machine, work)
    parts = sum(v for k, v in result.energy_pj.items() if k != "total")
    assert result.energy_pj["total"] == pytest.approx(parts)
    assert sum(o.energy_pj for o in result.operators) == pytest.approx(result.energy_pj["total"])
    assert sum(o.cycles for o in result.operators) == pytest.approx(result.cycles, rel=1e-6, abs=1)
    memory = next(n for n, m in arch(machine).memories.items() if m.shared)
    for way, total in result.traffic_bytes[memory].items():
        assert sum(o.traffic_bytes[way] for o in result.operators) == total
    assert sum(o.macs for o in result.operators) == workload(work).macs == result.macs


@every_case
def test_same_input_same_output(machine: str, work: str) -> None:
    first, second = simulate(machine, work).to_dict(), simulate(machine, work).to_dict()
    del first["wall_seconds"], second["wall_seconds"]
    assert first == second


def test_composition_is_close_to_the_whole_program() -> None:
    generator = random.Random(3)
    for machine in ARCHS:
        hidden = generator.choice((64, 128))
        work = f"llama-2-7b:layers=4,hidden={hidden},heads=4,kv_heads=2,ffn=256,vocab=300,tokens=40"
        composed, whole = simulate(machine, work), simulate(machine, work, compose=False)
        # Waits that a layer needs on its neighbour may add joins to the whole program.
        assert whole.instructions == pytest.approx(composed.instructions, rel=0.05)
        assert composed.traffic_bytes == whole.traffic_bytes
        # Draining between slices costs a little; a changed order at the ports may give it back.
        assert 0.99 * whole.cycles <= composed.cycles <= 1.1 * whole.cycles
