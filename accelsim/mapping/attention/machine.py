"""A core as attention uses it: arrays, and a vector unit that works on their memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.mapping.lowering import Core, Lowering, leading_array

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture


@dataclass(frozen=True)
class ArrayResources:
    """What one core of ``cores`` offers to a closed form.

    ``capacities`` are the bytes of the memories of A (queries, weights), B (keys, values) and C
    (scores, results) of the ``arrays``; equal ``places`` share one of them. ``bytes_per_cycle`` (0:
    unlimited) and ``latency`` are main memory's, in array cycles. The vector unit has ``lanes``,
    ``slots`` cycles per function code and ``vector_latency``, in cycles of ``vector_cycle`` array
    cycles each.
    """

    cores: int
    array: Systolic
    arrays: int
    lanes: int
    slots: tuple[int, ...]
    vector_latency: int
    capacities: tuple[int, ...]
    places: tuple[int, int, int]
    bytes_per_cycle: float
    latency: float
    vector_cycle: float


def array_resources(low: Lowering) -> ArrayResources:
    """Those of the first core, as far as its memories are free."""
    core = low.cores[0]
    if not core.arrays:
        raise AccelsimError(f"core {core.index} has no systolic array")
    array, vector = core.arrays[0][1], vector_of(core)[1]
    bytes_per_second = 0.0 if low.ideal else low.core_bytes_per_second
    free = {name: core.arenas[name].free for name in array.memories()}
    return _resources(low.arch, array, vector, free, bytes_per_second, low.read_seconds)


def resources_of(arch: Architecture) -> ArrayResources | None:
    """Those of a core of a machine whose memories are free, beside one main memory; None if it has
    no arrays that can attend."""
    array = leading_array(arch.units_of(Systolic).values())
    vectors = () if array is None else _vectors_at(arch, array)
    if array is None or not vectors:
        return None
    main = arch.main_memory()[1]
    room = {name: arch.memories[name].capacity for name in array.memories()}
    return _resources(
        arch, array, vectors[0], room, main.peak_bandwidth / arch.cores, main.access_seconds
    )


def _resources(
    arch: Architecture,
    array: Systolic,
    vector: Vector,
    free: Mapping[str, int],
    bytes_per_second: float,
    read_seconds: float,
) -> ArrayResources:
    """What an array's instances offer beside a vector unit, with so much of main memory."""
    hz = arch.clocks[array.clock]
    names = list(free)
    return ArrayResources(
        cores=arch.cores,
        array=array,
        arrays=array.count,
        lanes=vector.lanes,
        slots=tuple(vector.slots_by_function().tolist()),
        vector_latency=vector.latency,
        capacities=tuple(free.values()),
        places=(names.index(array.inputs), names.index(array.weights), names.index(array.outputs)),
        bytes_per_cycle=bytes_per_second / hz,
        latency=read_seconds * hz,
        vector_cycle=hz / arch.clocks[vector.clock],
    )


def vector_of(core: Core) -> tuple[int, Vector]:
    """Slot and block of the vector unit that works on scores and on weights."""
    array = core.arrays[0][1]
    both = {array.inputs, array.outputs}
    return next((slot, unit) for slot, unit in core.of(Vector) if both <= set(unit.memory))


def lacks_vector(arch: Architecture) -> str:
    """What is missing where no vector unit works on both scores and weights; "" if one does."""
    array = leading_array(arch.units_of(Systolic).values())
    if array is None:
        return ""
    if _vectors_at(arch, array):
        return ""
    both = sorted({array.inputs, array.outputs})
    return f"a vector unit that works on {' and '.join(both)}"


def _vectors_at(arch: Architecture, array: Systolic) -> list[Vector]:
    """Vector units that work on scores and on weights of an array."""
    both = {array.inputs, array.outputs}
    return [unit for unit in arch.units_of(Vector).values() if both <= set(unit.memory)]
