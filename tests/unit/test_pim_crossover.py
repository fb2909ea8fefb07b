"""Products and attention go to the banks where they are sooner there, and nowhere else."""

from __future__ import annotations

import pytest

import accelsim as xs
from accelsim.errors import CapacityError

WORSE = 1.1
"""Times the quickest choice that the default may take: costs are those of the parts that limit."""


def quickest(machine: str, work: str, *forced: str) -> tuple[int, int]:
    """Cycles by default, and the least that one of some mappers takes."""
    least = min(xs.simulate(machine, work, mapper=one).cycles for one in forced)
    return xs.simulate(machine, work).cycles, least


@pytest.mark.parametrize("kv", [1000, 2000, 4000])
@pytest.mark.parametrize("kv_heads", [4, 8, 32])
def test_attention_goes_where_it_is_sooner(kv: int, kv_heads: int) -> None:
    """Scores of long contexts do not fit for all channels at once, least so of grouped queries."""
    work = f"attention:heads=32,kv_heads={kv_heads},q=1,kv={kv},d=128,dtype=fp16,batch=64"
    chosen, least = quickest("neupims", work, "pim-attention", "flash-attention")
    assert chosen <= WORSE * least


@pytest.mark.parametrize(
    ("machine", "kv_heads", "kv"),
    [
        ("neupims", 32, 64), ("neupims", 32, 128), ("neupims", 8, 128), ("neupims", 8, 512),
        ("neupims", 8, 256), ("neupims", 4, 128), ("npu-pim", 32, 64), ("npu-pim", 32, 128),
        ("npu-pim", 32, 512), ("npu-pim", 8, 512), ("npu-pim", 4, 128),
    ],
)  # fmt: skip
def test_attention_to_short_contexts_goes_where_it_is_sooner(
    machine: str, kv_heads: int, kv: int
) -> None:
    """Also where arrays wait for keys: for as long as their tiles were chosen by."""
    work = f"attention:heads=32,kv_heads={kv_heads},q=1,kv={kv},d=128,dtype=fp16,batch=32"
    chosen, least = quickest(machine, work, "pim-attention", "flash-attention")
    assert chosen <= WORSE * least


@pytest.mark.parametrize("kv", [1000, 2000])
def test_query_heads_of_a_group_take_turns_where_room_is_short(kv: int) -> None:
    """So that all channels work: their multiplications are a quarter of the peak, as where every
    query has keys of its own; in fewer parts of the scratchpad they were a seventh and less."""
    shape = f"heads=32,kv_heads=8,q=1,kv={kv},d=128,dtype=fp16,batch=64"
    run = xs.simulate("neupims", f"attention:{shape}")
    assert run.mapper == "pim-attention"
    assert run.utilization["pim"] > 0.2
    small = "attention:heads=8,kv_heads=2,q=1,kv=700,d=128,dtype=fp16,batch=3"
    for room in ("2 MiB", "128 KiB"):
        machine = xs.arch("neupims", {"pspad.capacity": room})
        assert xs.check(machine, small, mapper="pim-attention").ok


@pytest.mark.parametrize("machine", ["neupims", "npu-pim"])
@pytest.mark.parametrize("m", [1, 2, 3, 8])
def test_products_go_where_they_are_sooner(machine: str, m: int) -> None:
    """Also where commands are sent one by one, which takes longer than the banks."""
    work = f"gemm:m={m},n=4096,k=4096,dtype=fp16"
    chosen, least = quickest(machine, work, "pim-gemv", "systolic-gemm")
    assert chosen <= WORSE * least


@pytest.mark.parametrize("machine", ["aim", "pim-gpt", "neupims"])
@pytest.mark.parametrize(("dtype", "kept"), [("bf16", "fp16"), ("fp16", "bf16")])
def test_queries_take_the_format_of_the_cache(machine: str, dtype: str, kept: str) -> None:
    shape = "gpt2:phase=decode,layers=1,hidden=256,heads=4,vocab=64,ffn=64,batch=2,contexts=60+33"
    verdict = xs.check(machine, f"{shape},dtype={dtype},kv_dtype={kept}")
    assert verdict.ok, verdict.first


@pytest.mark.parametrize(("m", "k", "by"), [
    (1, 7000, "pim-gemv"), (1, 15000, "systolic-gemm"),
    (2, 5000, "pim-gemv"), (2, 7000, "systolic-gemm"),
])  # fmt: skip
def test_what_does_not_fit_beside_the_banks_is_multiplied_by_arrays(
    m: int, k: int, by: str
) -> None:
    """32 KiB for one or two vectors, and 16 bytes for each of 32 sums of 32 channels."""
    machine = xs.arch("neupims", {"pspad.capacity": "32 KiB"})
    work = f"gemm:m={m},n=1100,k={k},dtype=fp16"
    assert xs.simulate(machine, work, mapper="pim-gemv").mapper == by
    assert xs.check(machine, work, mapper="pim-gemv").ok


def test_machines_of_banks_alone_say_what_does_not_fit() -> None:
    work = "gemm:m=1,n=64,k=2000000"
    with pytest.raises(CapacityError, match=r"'vector\[0\]' of .* does not fit into gpr"):
        xs.simulate("aim", work)
    assert xs.simulate("aim", work, memory="ideal").mapper == "pim-gemv"


@pytest.mark.parametrize("room", ["16 KiB", "32 KiB"])
def test_operators_by_turns_leave_each_other_room(room: str) -> None:
    """Few outputs of a table take as much room on chip as whole turns of all channels."""
    machine = xs.arch("aim", {"gpr.capacity": room})
    shape = "layers=1,hidden=1024,heads=4,vocab=100,ffn=2048,batch=3,context=5,dtype=bf16"
    assert xs.simulate(machine, f"gpt2:phase=decode,{shape}").cycles > 0


def test_arrays_that_cannot_attend_leave_it_to_the_banks() -> None:
    machine = xs.arch("npu-pim", {"acc.capacity": "4 KiB"})
    work = "attention:heads=32,kv_heads=32,q=1,kv=64,d=128,batch=8,dtype=fp16"
    assert xs.simulate(machine, work).mapper == "pim-attention"
