"""Mappers are found here, built-in or not: one registry, one decorator, one door.

A mapper lowers one operator into the program under construction::

    @mapper("systolic-gemm", lowers=("gemm",), needs=(Systolic, Dma))
    def tiled_gemm(op: Gemm, low: Lowering) -> None:
        ...

Built-ins are the modules of the package ``accelsim.mappers``; a user's file is named on the
command line (``--mapper FILE.py``) or passed to ``load_file``; an installed package may offer
modules through the entry-point group ``accelsim.mappers``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.hw.block import Block
from accelsim.hw.pim.unit import Pim
from accelsim.mapping.bank_formats import require_formats
from accelsim.numerics.formats import FORMATS

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.mapping.bank_layouts import Placed
    from accelsim.mapping.lowering import Lowering
    from accelsim.workload.graph import Graph

Lower = Callable[[Any, "Lowering"], None]
Declines = Callable[[Any, "Architecture", bool], str]
Places = Callable[[Any, "Architecture"], "Mapping[str, Placed]"]


@dataclass(frozen=True)
class Mapper:
    """A strategy for some operator kinds on architectures that have certain blocks.

    ``preference`` decides between mappers that both fit when the architecture names none;
    ``lacks`` says what an architecture that has the blocks still lacks, "" if nothing;
    ``reads_coded`` whether weights may be stored in an encoding (accelsim.encoding);
    ``declines`` why an operator is not for it, "" if it is; ``places`` tensors of an operator that
    it needs in places of its own in main memory. What a ``strict`` one declines is refused where a
    user names it; else another mapper takes it.
    """

    name: str
    lowers: tuple[str, ...]
    needs: tuple[type[Block], ...]
    lower: Lower
    preference: int = 0
    summary: str = ""
    lacks: Callable[[Architecture], str] | None = None
    reads_coded: bool = False
    declines: Declines | None = None
    places: Places | None = None
    strict: bool = True

    def missing(self, arch: Architecture) -> list[str]:
        """What the architecture lacks for this mapper: kinds of blocks, or how they are joined."""
        # What serves banks is there for mappers of banks alone, unless there is nothing else.
        alone = {*arch.units} <= arch.beside_banks
        serving = frozenset() if alone or Pim in self.needs else arch.beside_banks
        units = (unit for name, unit in arch.units.items() if name not in serving)
        blocks = (*units, *arch.memories.values())
        kinds = [n.kind for n in self.needs if not any(isinstance(b, n) for b in blocks)]
        if kinds or self.lacks is None:
            return kinds
        return [lack] if (lack := self.lacks(arch)) else []

    def declined(
        self,
        operator: Any,
        arch: Architecture,
        forced: bool,
        placed: Mapping[str, Placed] | None = None,
    ) -> str:
        """Why an operator is not for this mapper; ``forced``: if it were, however slow.

        ``placed`` are the tensors that lie in places of their own, None as long as that is open.
        """
        if self.declines is not None and (reason := self.declines(operator, arch, forced)):
            return reason
        if placed is None or self.places is None or {*self.places(operator, arch)} <= {*placed}:
            return ""
        return (
            "weights and caches of the width of its banks that are not coded, not updated in place"
            " and not gathered row by row"
        )


MAPPERS: dict[str, Mapper] = {}


def mapper(
    name: str,
    lowers: Iterable[str],
    needs: Iterable[type[Block]],
    preference: int = 0,
    lacks: Callable[[Architecture], str] | None = None,
    reads_coded: bool = False,
    declines: Declines | None = None,
    places: Places | None = None,
    strict: bool = True,
) -> Callable[[Lower], Lower]:
    """Register a lowering function under a name (see Mapper)."""

    def register(function: Lower) -> Lower:
        known = MAPPERS.get(name)
        if known is not None and known.lower.__qualname__ != function.__qualname__:
            raise AccelsimError(f"mapper {name!r} is taken by {known.lower.__qualname__}")
        summary = (function.__doc__ or "").strip().split("\n")[0]
        kinds, blocks = tuple(lowers), tuple(needs)
        MAPPERS[name] = Mapper(
            name, kinds, blocks, function, preference, summary, lacks, reads_coded,
            declines, places, strict,
        )  # fmt: skip
        return function

    return register


@cache
def load_builtin_mappers() -> None:
    """Import every module of ``accelsim.mappers``; their decorators register them."""
    package = importlib.import_module("accelsim.mappers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


@cache
def load_installed_mappers() -> None:
    """Import what other installed packages offer (slow: reads all package metadata)."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="accelsim.mappers"):
        entry.load()


def load_file(path: str | Path) -> tuple[str, ...]:
    """Import a user's mapper file; returns the names it registered (at least one)."""
    load_builtin_mappers()
    before = dict(MAPPERS)
    load_plugin(path)
    found = tuple(name for name, m in MAPPERS.items() if before.get(name) is not m)
    if not found:
        raise AccelsimError(
            f"{path}: registers no mapper; use @mapper(name, lowers=..., needs=...)"
        )
    return found


def load_plugin(path: str | Path) -> None:
    """Import a user's Python file, for what it registers: blocks, mappers, number formats."""
    path = Path(path)
    if not path.is_file():
        raise AccelsimError(f"{path}: no such Python file")
    spec = importlib.util.spec_from_file_location(f"accelsim_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise AccelsimError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as fault:
        raise AccelsimError(f"{path}: {type(fault).__name__}: {fault}") from fault


def mappers_for(kind: str) -> list[Mapper]:
    """Mappers that lower an operator kind, the preferred one first."""
    load_builtin_mappers()
    return sorted(
        (m for m in MAPPERS.values() if kind in m.lowers), key=lambda m: (-m.preference, m.name)
    )


def by_name(name: str) -> Mapper:
    """The mapper called ``name``; raises AccelsimError naming the known ones."""
    load_builtin_mappers()
    if name not in MAPPERS:
        load_installed_mappers()
    try:
        return MAPPERS[name]
    except KeyError:
        raise AccelsimError(
            f"unknown mapper {name!r}; known mappers: {', '.join(sorted(MAPPERS))}"
        ) from None


def choose(
    operator: Any,
    arch: Architecture,
    wanted: tuple[str, ...] = (),
    placed: Mapping[str, Placed] | None = None,
) -> Mapper:
    """The mapper for an operator: the user's choice, else the architecture's, else the best fit.

    ``placed`` are the tensors that lie in places of their own, None as long as that is open.
    """
    kind = operator.kind
    named = [by_name(n) for n in wanted]
    preferred = [m for m in named if kind in m.lowers]
    if not preferred and kind in arch.mappers:
        preferred = [by_name(arch.mappers[kind])]
        if kind not in preferred[0].lowers:
            raise AccelsimError(
                f"{arch.name}: mapper {preferred[0].name!r} does not lower {kind};"
                f" it lowers {', '.join(preferred[0].lowers)}"
            )
    candidates = preferred or mappers_for(kind)
    for found in preferred:
        if found.missing(arch):
            continue
        if not (reason := found.declined(operator, arch, True, placed)):
            return found
        if found.strict:
            raise AccelsimError(
                f"operator {operator.name!r} ({kind}): {found.name} accepts {reason}"
            )
        candidates = mappers_for(kind)
    for found in candidates:
        if not found.missing(arch) and not found.declined(operator, arch, False, placed):
            return found
    if not candidates:
        known = sorted({k for m in MAPPERS.values() for k in m.lowers})
        raise AccelsimError(
            f"operator {operator.name!r}: no mapper lowers {kind}; known kinds: {', '.join(known)}"
        )
    lacks = "; ".join(_why_not(m, operator, arch, placed) for m in candidates)
    raise AccelsimError(
        f"operator {operator.name!r} ({kind}): no unit of {arch.name} can run it ({lacks})"
    )


def passed_over(
    operator: Any,
    arch: Architecture,
    chosen: Mapper,
    wanted: tuple[str, ...],
    placed: Mapping[str, Placed],
) -> tuple[Mapper, str] | None:
    """A mapper that was named, or is preferred to the chosen one, and what it accepts instead.

    Of those that nobody named only the strict ones: that others leave some operators is usual.
    """
    able = mappers_for(operator.kind)
    named = [one for one in able if one.name in wanted]
    better = [one for one in takewhile(lambda one: one is not chosen, able) if one.strict]
    for found in () if chosen in named else named or better:
        if found.missing(arch):
            continue
        if reason := found.declined(operator, arch, bool(named), placed):
            return found, reason
    return None


def _why_not(
    found: Mapper, operator: Any, arch: Architecture, placed: Mapping[str, Placed] | None
) -> str:
    """What keeps a mapper from an operator on a machine."""
    if missing := found.missing(arch):
        return f"{found.name} needs {' and '.join(missing)}"
    return f"{found.name} accepts {found.declined(operator, arch, False, placed)}"


def own_places(graph: Graph, arch: Architecture, wanted: tuple[str, ...] = ()) -> dict[str, Placed]:
    """Tensors that lie where the mapper of an operator needs them, not where there is room.

    Raises AccelsimError for a format that banks do not multiply.
    """
    load_builtin_mappers()
    kinds = {kind for m in MAPPERS.values() if m.places is not None for kind in m.lowers}
    movable = _movable(graph)
    gathered = {op.inputs[0] for op in graph.operators if op.kind == "embedding"}
    found: dict[str, Placed] = {}
    for operator in graph.operators:
        if operator.kind in kinds:
            chosen = choose(operator, arch, wanted)
            there = {} if chosen.places is None else chosen.places(operator, arch)
            if all(
                movable.get(name) == one.bits and (name not in gathered or one.in_columns)
                for name, one in there.items()
            ):
                require_formats(operator, graph, arch, there)
                found |= there
    return found


def _movable(graph: Graph) -> dict[str, int]:
    """Bits per element of the tensors that stay where they are for good, uncoded, and are not
    written over as a whole."""
    tensors = graph.tensors.values()
    updated = {spec.place_of for spec in tensors}
    return {
        spec.name: FORMATS[spec.dtype].bits
        for spec in tensors
        if spec.role != "activation" and not (spec.coding or spec.place_of or spec.name in updated)
    }
