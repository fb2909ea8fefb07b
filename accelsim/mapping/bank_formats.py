"""Formats that the units beside banks multiply, before anything is lowered for them.

What lies in banks is multiplied there as it is stored, by vectors of the same format. An operator
that goes to the banks in a format that their arithmetic has not is refused: to hand it to other
units instead would be another machine's result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.hw.pim.unit import Pim
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMATS, Format

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.workload.graph import Graph
    from accelsim.workload.operators import Operator


def require_formats(
    operator: Operator, graph: Graph, arch: Architecture, there: Iterable[str]
) -> None:
    """Raise AccelsimError if banks do not multiply a tensor of an operator that lies ``there``."""
    units = arch.units_of(Pim).values()
    for unit in units:
        for fmt in (FORMATS[graph.tensors[name].dtype] for name in there):
            if _multiplies(unit, fmt):
                continue
            same_width = [one for one in FORMATS.values() if one.bits == fmt.bits]
            known = [one.name for one in same_width if _multiplies(unit, one)]
            # A cache may be kept in a format of its own.
            key = "kv_dtype" if getattr(operator, "kv_dtype", "") == fmt.name else "dtype"
            remedy = " or ".join(f"{key}={one}" for one in known)
            raise AccelsimError(
                f"{operator.name}: the banks of {unit.family} multiply"
                f" {' and '.join(known) or f'nothing of {fmt.bits} bits'}, not {fmt.name};"
                f" accepted: {remedy or 'another arithmetic'}"
            )


def _multiplies(unit: Pim, fmt: Format) -> bool:
    """Whether all products of a unit take operands of a format and give sums in fp32."""
    try:
        for name in filter(None, (unit.sums, unit.column_sums)):
            _ = arithmetic(name).rule(types_of(fmt.name, fmt.name, "fp32"))
    except AccelsimError:
        return False
    return True
