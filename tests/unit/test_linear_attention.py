"""Linear attention: its meaning, the numbers of every mapper, what it costs, and that mappings
which forget a decay, a chunk or a state are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from accelsim.mappers import chunked_linear_attention, gpu_linear_attention
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import as_arch, check, simulate, workload
from accelsim.errors import AccelsimError, CapacityError
from accelsim.functional.reference import reference
from accelsim.mapping.attention import chunk_tiling, decays
from accelsim.mapping.attention.chunk_tiling import ChunkTiling

NPUS = ("hbm-npu", "quad-npu", "edge-npu", "systolic", "tpu-v3", "mesh-npu", "onnxim-mobile")
GPUS = ("a100", "h100")
SHAPES = (
    "heads=3,q=45,d=16,batch=2,chunk=8,decay=gated,state=true",
    "heads=5,q=37,d=8,dv=24,chunk=16,decay=fixed,state=true,dtype=fp16",
    "heads=2,q=70,d=24,dv=8,dtype=fp32,decay=gated",
    "heads=3,q=1,d=16,batch=2,decay=gated,state=true",
    "heads=2,q=9,d=5,chunk=1,state=true,scale=1",
    "heads=2,q=21,d=16,chunk=1000,decay=fixed,dtype=fp16",
)


# -- what it means ---------------------------------------------------------------------------------


def values_of(shape: str, seed: int = 3) -> tuple[Any, list[Any]]:
    op = workload(shape).operators[0]
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(s) for s in op.input_shapes()]
    for i, item in enumerate(op.present()):
        if item.name == "log_decay":
            inputs[i] = -np.abs(inputs[i]) / 8
    return op, inputs


@pytest.mark.parametrize("decay", ["none", "fixed", "gated"])
def test_the_recurrence_is_a_decayed_sum_over_pairs(decay: str) -> None:
    """The form with a matrix of all pairs, from Retentive Network and Transformers are SSMs."""
    op, inputs = values_of(f"linear_attention:heads=3,q=20,d=4,dv=6,batch=2,decay={decay}")
    q, k, v = (x.reshape(2, 20, 3, -1) for x in inputs[:3])
    for s in range(2):
        for h in range(3):
            logs = np.zeros(20)
            if decay == "fixed":
                logs += np.log(1 - 2.0 ** (-5 - h))
            elif decay == "gated":
                logs = inputs[3].reshape(2, 20, 3)[s, :, h]
            weights = np.zeros((20, 20))
            for i in range(20):
                for j in range(i + 1):
                    weights[i, j] = np.exp(logs[j + 1 : i + 1].sum()) * q[s, i, h] @ k[s, j, h] / 2
            got = reference(op, inputs).reshape(2, 20, 3, 6)[s, :, h]
            assert got == pytest.approx(weights @ v[s, :, h])


@pytest.mark.parametrize("decay", ["none", "fixed", "gated"])
def test_a_sequence_may_be_taken_up_where_its_state_was_left(decay: str) -> None:
    """Outputs of 12 tokens, and of 7, the state after them, and the other 5."""
    shape = f"heads=2,d=4,dv=3,decay={decay}"
    whole, inputs = values_of(f"linear_attention:{shape},q=12")
    first, then = (slice(0, 7), slice(7, 12))
    update = workload(f"state_update:{shape},q=7").operators[0]
    rest = workload(f"linear_attention:{shape},q=5,state=true").operators[0]
    state = reference(update, [x[first] for x in inputs[1:]])
    got = reference(rest, [*(x[then] for x in inputs), state])
    assert got == pytest.approx(reference(whole, inputs)[then])


# -- the numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["linear_attention", "state_update"])
@pytest.mark.parametrize("machine", [*NPUS, *GPUS])
def test_numbers_are_right(machine: str, kind: str, shape: str) -> None:
    if kind == "state_update":
        shape = shape.removesuffix(",scale=1")
    for order in ("clock", "program"):
        result = check(machine, f"{kind}:{shape}", order=order)
        assert result.ok, (order, result.first)


def shapes(draw: Any) -> str:
    given = {
        "heads": draw(st.integers(1, 6)),
        "q": draw(st.one_of(st.just(1), st.integers(1, 90))),
        "d": draw(st.integers(1, 40)),
        "dv": draw(st.integers(1, 40)),
        "batch": draw(st.integers(1, 3)),
        "decay": draw(st.sampled_from(["none", "fixed", "gated"])),
        "chunk": draw(st.sampled_from([0, 0, 1, 5, 16, 33, 200])),
        "state": draw(st.booleans()),
        "dtype": draw(st.sampled_from(["bf16", "fp16", "fp32"])),
    }
    kind = draw(st.sampled_from(["linear_attention", "linear_attention", "state_update"]))
    return f"{kind}:" + ",".join(f"{key}={str(x).lower()}" for key, x in given.items())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_shapes_are_right(data: st.DataObject) -> None:
    shape = shapes(data.draw)
    machine = data.draw(st.sampled_from(["hbm-npu", "quad-npu", "edge-npu", "systolic", "a100"]))
    seed = data.draw(st.integers(0, 3))
    scale = data.draw(st.sampled_from([1.0, 4.0, 2.0**-6]))
    for order in ("clock", "program"):
        result = check(machine, shape, order=order, seed=seed, scale=scale)
        assert result.ok, (machine, shape, order, result.first)


@pytest.mark.parametrize("machine", ["hbm-npu", "h100"])
def test_strong_gates_do_not_overflow(machine: str) -> None:
    """Log decays of -1 on average: e^(c_C) is 0, and e^(-c_j) would be infinite."""
    shape = "linear_attention:heads=2,q=200,d=8,chunk=128,decay=gated,state=true,dtype=fp32"
    result = check(machine, shape, scale=16.0)
    assert result.ok, result.first


@pytest.mark.parametrize("machine", [*NPUS, *GPUS])
def test_a_block_of_a_model_is_right(machine: str) -> None:
    """Projections hand queries, keys and values on, in panels where the machine has them."""
    block = "retention-block:tokens=37,hidden=96,heads=3,head=32"
    for width in (0, 40) if machine not in GPUS else (0,):
        arch = as_arch(machine)
        result = check(arch.override({"dma.activation_panel": width}) if width else arch, block)
        assert result.ok, (width, result.first)


# -- what it costs ---------------------------------------------------------------------------------

LONG = "heads=32,d=128"


@pytest.mark.parametrize("machine", ["hbm-npu", "quad-npu", "edge-npu", "tpu-v3"])
def test_queries_keys_values_and_results_move_once(machine: str) -> None:
    result = simulate(machine, "linear_attention:heads=4,q=500,d=64,decay=fixed")
    moved = next(x for name, x in result.traffic_bytes.items() if name in ("hbm", "dram"))
    tensor = 4 * 500 * 64 * 2
    assert (moved["read"], moved["write"]) == (3 * tensor, tensor)


def test_gates_and_states_move_once() -> None:
    shape = "linear_attention:heads=8,q=512,d=64,decay=gated,state=true"
    moved = simulate("hbm-npu", shape).traffic_bytes["hbm"]
    gates, states = 512 * 8 * 4, 8 * 64 * 64 * 4
    assert moved["read"] == 3 * 512 * 8 * 64 * 2 + gates + states


def test_a_step_of_decoding_reads_the_state_and_its_update_writes_it() -> None:
    shape = "heads=8,q=1,d=64,decay=fixed,state=true"
    states, token = 8 * 64 * 64 * 4, 8 * 64 * 2
    read = simulate("hbm-npu", f"linear_attention:{shape}").traffic_bytes["hbm"]
    written = simulate("hbm-npu", f"state_update:{shape}").traffic_bytes["hbm"]
    assert read == {"read": states + 3 * token, "write": token}
    assert written == {"read": states + 2 * token, "write": states}


@pytest.mark.parametrize("decay", ["none", "fixed", "gated"])
def test_it_is_linear_in_the_length_and_far_cheaper_than_softmax(decay: str) -> None:
    half, whole = (
        simulate("hbm-npu", f"linear_attention:{LONG},q={q},decay={decay}") for q in (4096, 8192)
    )
    assert whole.cycles == pytest.approx(2 * half.cycles, rel=0.02)
    softmax = simulate("hbm-npu", f"attention:{LONG},q=8192,kv=8192,causal=true")
    assert softmax.operators[0].mapper == "flash-attention"
    assert softmax.cycles > 8 * whole.cycles


@pytest.mark.parametrize(
    ("machine", "shape"),
    [
        ("hbm-npu", "heads=16,q=2048,d=64,decay=gated"),
        ("edge-npu", "heads=4,q=512,d=32,decay=fixed"),
        ("quad-npu", "heads=8,q=512,d=32"),
    ],
)
def test_the_chosen_chunk_is_near_the_best(
    machine: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, found = f"linear_attention:{shape}", {}
    chosen = simulate(machine, work).cycles

    def candidates(p: Any, r: Any) -> ChunkTiling:
        found.update({(t.chunk, t.ways): t for t in chunk_tiling.chunk_tilings(p, r)})
        return next(iter(found.values()))

    monkeypatch.setattr(chunked_linear_attention, "best_chunk_tiling", candidates)
    simulate(machine, work)
    best = chosen
    for tiling in found.values():
        monkeypatch.setattr(chunked_linear_attention, "best_chunk_tiling", lambda *_, t=tiling: t)
        best = min(best, simulate(machine, work).cycles)
    assert chosen <= 1.15 * best


# -- wrong mappings are found ----------------------------------------------------------------------

SMALL = "linear_attention:heads=3,q=45,d=16,chunk=8,decay=gated,state=true,dtype=fp16"


def found(machine: str = "hbm-npu", shape: str = SMALL) -> bool:
    """Whether the numbers are wrong, or the verifier has seen it before."""
    try:
        return not check(machine, shape).ok
    except AccelsimError:
        return True


def test_a_forgotten_decay_of_the_state_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not found()
    plain = decays.Decay.whole.fget
    monkeypatch.setattr(
        decays.Decay, "whole", property(lambda self: plain(self.cut(self.before.rows - 1)))
    )
    assert found()


@pytest.mark.parametrize("part", ["before", "left"])
def test_decays_of_the_token_beside_are_found(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = decays.Decays._decays

    def shifted(self: Any, gates: Any) -> Any:
        made = plain(self, gates)
        for one in made:
            column = getattr(one, part)
            if column.rows > 1:
                self.low.build.vector(
                    self.slot, decays.F.COPY, column[1:, :], column[: column.rows - 1, :]
                )
        return made

    assert not found()
    monkeypatch.setattr(decays.Decays, "_decays", shifted)
    assert found()


def test_a_chunk_that_begins_a_token_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = chunked_linear_attention._Stream._window

    def late(self: Any, name: str, member: Any, tokens: slice) -> Any:
        if name == "k" and tokens.start == 8:
            tokens = slice(9, 17)
        return plain(self, name, member, tokens)

    monkeypatch.setattr(chunked_linear_attention._Stream, "_window", late)
    assert found()


def test_a_state_that_is_a_chunk_old_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = chunked_linear_attention._Stream._keep

    def skipped(self: Any, chunk: Any, index: int) -> None:
        if index != 3:
            plain(self, chunk, index)

    monkeypatch.setattr(chunked_linear_attention._Stream, "_keep", skipped)
    assert found()


def test_keys_after_their_query_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = decays.Decays.__init__

    def open_mask(self: Any, *args: Any) -> None:
        plain(self, *args)
        self.low.build.fill(self.core.load_queues[0], self.mask, 0.0)

    monkeypatch.setattr(decays.Decays, "__init__", open_mask)
    assert found()


@pytest.mark.parametrize("name", ["before", "total"])
def test_a_gpu_that_reads_the_wrong_chunk_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = gpu_linear_attention._Kernels
    assert not found("a100")
    plain = getattr(kernels, name)
    if name == "before":
        wrong: Any = lambda self, member, index: plain(self, member, min(index, 3))  # noqa: E731
    else:
        wrong = lambda self, one: plain(self, self.chunks[0])  # noqa: E731
    monkeypatch.setattr(kernels, name, wrong)
    assert found("a100")


# -- wrong inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("decay=slow", "decay 'slow'; accepted: none, fixed, gated"),
        ("chunk=-1", "chunk is -1; accepted: a whole number from 0"),
        ("dv=0", "dv is 0; accepted: a whole number from 1"),
        ("scale=nan", "scale"),
        ("kv_heads=2", "unknown key 'kv_heads'"),
        ("state=yes", "state is 'yes'; accepted: true or false"),
    ],
)
def test_wrong_operators_are_refused(more: str, says: str) -> None:
    with pytest.raises(AccelsimError, match="linear_attention") as fault:
        workload(f"linear_attention:heads=4,q=10,d=16,{more}")
    assert says in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("size", ["heads=-1,q=4,d=4", "heads=1,q=0,d=4", "heads=1,q=4,d=-4"])
def test_negative_sizes_are_refused(size: str) -> None:
    with pytest.raises(AccelsimError, match="accepted: a whole number from 1"):
        workload(f"linear_attention:{size}")


def test_a_state_too_large_for_the_scratchpad_is_refused_in_one_line() -> None:
    with pytest.raises(CapacityError, match=r"a state of 1024 x 1024 needs .* enlarge") as fault:
        simulate("systolic", "linear_attention:heads=1,q=64,d=1024")
    assert "\n" not in str(fault.value)


def test_a_machine_whose_vector_unit_does_not_reach_the_scores_is_refused() -> None:
    machine = as_arch("systolic", {"vpu.memory": ["ofmap"]})
    with pytest.raises(AccelsimError, match="needs a vector unit that works on ifmap and ofmap"):
        simulate(machine, "linear_attention:heads=1,q=64,d=16")
