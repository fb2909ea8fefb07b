"""What worked in a run and has no energy parameter, so that the run's energy leaves it out.

A unit works where it computes; what only moves bytes or starts kernels is counted with the memories
at its ends. A memory or cache works where it is read or written (a run without time in memory asks
no cache and has no traffic of it), a network where bytes hop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from accelsim.hw.block import Block
from accelsim.program.opcodes import TRANSFERS, Opcode
from accelsim.results.result import SegmentRun

_NO_WORK = (*TRANSFERS, Opcode.JOIN, Opcode.LAUNCH)


def uncounted(runs: Sequence[SegmentRun], traffic_bytes: Mapping[str, Mapping[str, int]]) -> str:
    """One line that names them ("" if there are none), from a run's segments and its traffic."""
    if not runs:
        return ""
    arch = runs[0].bound.arch
    found = [name for name in _computing(runs) if _free(arch.units[name])]
    stores: dict[str, Block] = {**arch.memories, **arch.caches}
    moved = {name: sum(traffic_bytes[name].values()) for name in stores if name in traffic_bytes}
    found += [name for name, nbytes in moved.items() if nbytes and _free(stores[name])]
    found += [name for name in _crossed(runs) if not arch.networks[name].hop_pj_per_byte]
    verbs = ("has", "is") if len(found) == 1 else ("have", "are")
    names = f"energy: {', '.join(found)} {verbs[0]} no parameters and {verbs[1]} not counted"
    return names if found else ""


def _free(block: Block) -> bool:
    """Whether nothing that it does costs energy."""
    return not any(block.energy_pj_per_action().values())


def _computing(runs: Sequence[SegmentRun]) -> Iterator[str]:
    """Units that execute more than transfers and waits, in the order of the architecture."""
    for kind, name in enumerate(runs[0].bound.arch.units):
        for run in runs:
            opcode = run.bound.program.column("opcode")[run.bound.unit_index == kind]
            if not np.isin(opcode, _NO_WORK).all():
                yield name
                break


def _crossed(runs: Sequence[SegmentRun]) -> dict[str, None]:
    """Networks over which bytes hop, in the order of the architecture."""
    return dict.fromkeys(
        flow.network for run in runs for flow in run.bound.flows if flow.byte_hops.any()
    )
