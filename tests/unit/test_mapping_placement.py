"""Where tensors and buffers lie, and what waits for whom when a place is reused."""

from itertools import pairwise

import pytest

from accelsim.errors import CapacityError
from accelsim.mapping.placement import Arena, Heap, Plan, plan_tensors
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.storage import Storage
from accelsim.program.table import AddressSpace, OperatorInfo, UnitSlot
from accelsim.workload import workload
from accelsim.workload.graph import Graph


def test_heap_reuses_and_merges_freed_extents() -> None:
    heap = Heap("hbm", 1024)
    a, b, c = (heap.take(name, 256) for name in "abc")
    assert (a, b, c) == (0, 256, 512)
    heap.give_back(a, 256)
    heap.give_back(b, 256)
    assert heap.take("d", 512) == 0
    assert heap.peak == 768
    with pytest.raises(CapacityError, match=r"'e' of 512 bytes .* 256 bytes of 1 KiB left"):
        heap.take("e", 512)


def test_activations_share_places_only_when_their_lives_do_not_meet() -> None:
    graph = workload("llama-2-7b:layers=3,hidden=64,heads=4,kv_heads=4,ffn=128,vocab=100,tokens=16")
    plan = plan_tensors(graph, "hbm", 1 << 30)
    first = {n: i for i, op in reversed(list(enumerate(graph.operators))) for n in op.outputs}
    last = {n: i for i, op in enumerate(graph.operators) for n in (*op.inputs, *op.outputs)}
    specs = list(graph.tensors.values())
    for i, one in enumerate(specs):
        for other in specs[i + 1 :]:
            a, b = plan.base[one.name], plan.base[other.name]
            if a < b + other.bytes and b < a + one.bytes:
                # They overlap in place, so one must be dead before the other is born.
                assert one.role == other.role == "activation"
                assert last[one.name] < first[other.name] or last[other.name] < first[one.name]
    persistent = sum(t.bytes for t in specs if t.role != "activation")
    everything = sum(t.bytes for t in specs)
    assert persistent <= plan.peak < everything + 64 * len(specs)


LAYERS = "llama-2-7b:layers=2,hidden=512,heads=8,kv_heads=8,ffn=1000,vocab=1000"
PAGE = 64 << 10


def _extents(graph: Graph, plan: Plan, *, lasting: bool, pages: bool) -> list[tuple[int, int]]:
    """(base, end) of tensors that fill a page, or do not, whole pages or bursts, in their order."""
    step = PAGE if pages else 64
    return sorted(
        (plan.base[one.name], plan.base[one.name] + -(-one.bytes // step) * step)
        for one in graph.tensors.values()
        if (one.bytes >= PAGE) == pages and (one.role != "activation") == lasting
    )


@pytest.mark.parametrize("phase", ["tokens=100", "phase=decode,batch=3,context=77"])
def test_tensors_begin_at_their_own_power_of_two_up_to_a_page(phase: str) -> None:
    graph = workload(f"{LAYERS},{phase}")
    plan = plan_tensors(graph, "hbm", 1 << 30)
    small = _extents(graph, plan, lasting=True, pages=False)
    large = _extents(graph, plan, lasting=True, pages=True)
    assert len(small) > 5 < len(large)
    assert {base % PAGE for base, _ in large} == {0}
    assert {base % PAGE for base, _ in _extents(graph, plan, lasting=False, pages=True)} <= {0}
    for base, end in small:
        power = 1 << (end - base).bit_length() - 1
        assert base % power == 0, (base, end)
    every = sorted(small + large)
    assert all(end <= base for (_, end), (base, _) in pairwise(every))
    # Small ones fill the gap behind the first of the large ones.
    assert small[0][0] == large[0][1]


def test_scratch_in_main_memory_begins_at_its_own_power_of_two() -> None:
    build, _ = _machine()
    sizes = {"a": 100, "b": 70_000, "c": 100, "d": 65_535, "e": 65_536}
    for paged, bases in (
        (True, [192, 65_536, 196_608, 229_376, 327_680]),
        (False, [192, 320, 70_336, 70_464, 136_000]),
    ):
        arena = Arena(build, 0, "hbm", 1 << 20, start=192, paged=paged)
        assert [arena.take(name, nbytes).base for name, nbytes in sizes.items()] == bases


def _waits_of_first_write(build: Builder, storage: Storage) -> set[int]:
    """Instructions that a write to the whole storage, by a unit without history, waits for."""
    instruction = build.fill(1, storage.view(1, storage.nbytes // 4, FORMATS["fp32"]), 0.0)
    program = build.finish()
    return {int(d) for d in program.deps[instruction] if d >= 0}


def _machine() -> tuple[Builder, Arena]:
    units = [UnitSlot("old", "dma", 0), UnitSlot("new", "dma", 0)]
    build = Builder(units, [AddressSpace("spad", "spad", 1024, 0)])
    build.begin_operator(OperatorInfo("probe", "probe", "", 0))
    return build, Arena(build, 0, "spad", 1024)


def _touch(build: Builder, storage: Storage) -> int:
    return build.fill(0, storage.view(1, 8, FORMATS["fp32"]), 1.0)


@pytest.mark.parametrize(("size", "expected"), [(128, {0}), (512, {1}), (256, {0})])
def test_a_new_buffer_waits_for_the_old_ones_under_it(size: int, expected: set[int]) -> None:
    # The latest access of a unit stands for its earlier ones: 1 implies 0.
    build, arena = _machine()
    for name in ("near", "far"):
        _touch(build, arena.take(name, 256))
    arena.reset()
    assert _waits_of_first_write(build, arena.take("fresh", size)) == expected


def test_arena_remembers_what_lies_beyond_a_smaller_operator() -> None:
    build, arena = _machine()
    arena.take("first", 256)
    last = _touch(build, arena.take("far", 512))
    arena.reset()
    arena.take("small", 128)
    arena.reset()
    assert _waits_of_first_write(build, arena.take("large", 768)) == {last}


def test_arena_says_what_does_not_fit() -> None:
    arena = _machine()[1]
    arena.take("first", 256)
    with pytest.raises(CapacityError, match="'big' of 1 KiB does not fit into spad: 768 bytes"):
        arena.take("big", 1024)
