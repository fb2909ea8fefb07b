"""A core as attention uses it: arrays, and a vector unit that works on their memories."""

from __future__ import annotations

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
    """Those of the first core."""
    core = low.cores[0]
    if not core.arrays:
        raise AccelsimError(f"core {core.index} has no systolic array")
    array, vector = core.arrays[0][1], vector_of(core)[1]
    names = list(dict.fromkeys(array.memories()))
    hz = low.arch.clocks[array.clock]
    return ArrayResources(
        cores=len(low.cores),
        array=array,
        arrays=len(core.arrays),
        lanes=vector.lanes,
        slots=tuple(vector.slots_by_function().tolist()),
        vector_latency=vector.latency,
        capacities=tuple(core.arenas[name].free for name in names),
        places=(names.index(array.inputs), names.index(array.weights), names.index(array.outputs)),
        bytes_per_cycle=0.0 if low.ideal else low.core_bytes_per_second / hz,
        latency=low.read_seconds * hz,
        vector_cycle=hz / low.arch.clocks[vector.clock],
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
    both = {array.inputs, array.outputs}
    if any(both <= set(vector.memory) for vector in arch.units_of(Vector).values()):
        return ""
    return f"a vector unit that works on {' and '.join(sorted(both))}"
