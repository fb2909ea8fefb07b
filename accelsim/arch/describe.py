"""What an architecture is, for a terminal: block diagram, peak numbers, parameters and sources."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from accelsim.arch.checks import blocks_of
from accelsim.arch.diagram import WIDTH, diagram
from accelsim.arch.floorplan import networks_text
from accelsim.arch.model import Architecture
from accelsim.arch.parameters import parameters_of
from accelsim.hw.block import Block
from accelsim.hw.noc import Placement
from accelsim.quantities import BYTES_PER_SECOND, HERTZ

_NAME_COLUMN, _VALUE_COLUMN = 22, 18


def describe(arch: Architecture) -> str:
    """The architecture as text of at most 88 columns.

    Peaks are those of all cores together: one multiply-accumulate counts as two operations. The
    ridge point is the arithmetic intensity (FLOP per byte of a shared memory) from which on the
    units and no longer that memory limit the speed.
    """
    parts = [
        _title(arch),
        diagram(arch),
        _links(arch),
        networks_text(arch, WIDTH),
        _peaks(arch),
        _parameters(arch),
        _assumptions(arch),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(arch: Architecture) -> str:
    clocks = ", ".join(f"{name} {HERTZ.format(hz)}" for name, hz in arch.clocks.items())
    text = f"{arch.name} - {arch.description}" if arch.description else arch.name
    title = textwrap.fill(text, WIDTH, break_on_hyphens=False)
    return f"{title}\nclocks: {clocks}; from {arch.origin or 'Python'}"


def _links(arch: Architecture) -> str:
    return "\n".join(
        f"   {link.source} ↔ {link.target}   {value_text(link, 'bandwidth')}"
        f"  {value_text(link, 'latency')}"
        for link in arch.links
    )


# -- peaks ---------------------------------------------------------------------------------------


def peak_macs_per_second(arch: Architecture) -> int:
    """Multiply-accumulates per second of all units of all cores together."""
    return sum(
        arch.instances(name) * unit.peak_macs_per_cycle() * arch.hz_of(unit)
        for name, unit in arch.units.items()
    )


def peak_bytes_per_second(arch: Architecture, memory: str) -> int:
    """Bytes per second of one instance of a memory; 0 if it is not limited."""
    block = arch.memories[memory]
    return block.peak_bytes_per_second(arch.hz_of(block))


def _peaks(arch: Architecture) -> str:
    return "\n".join(["Peak", *(f"  {name:<30}{value}" for name, value in _peak_lines(arch))])


def _peak_lines(arch: Architecture) -> Iterator[tuple[str, str]]:
    macs = peak_macs_per_second(arch)
    for name, unit in arch.units.items():
        if unit.peak_macs_per_cycle():
            each = arch.instances(name)
            yield f"{name} (x {each})", f"{unit.peak_macs_per_cycle() * each} MAC/cycle"
    yield "compute", f"{_scaled(macs)}MAC/s = {_scaled(2 * macs)}FLOP/s"
    for name in arch.memories:
        rate = peak_bytes_per_second(arch, name)
        where = " per core" if arch.cores > 1 and arch.is_per_core(name) else ""
        yield f"{name}{where}", BYTES_PER_SECOND.format(rate) if rate else "not limiting"
    for name, cache in arch.caches.items():
        rate = cache.bytes_per_cycle * arch.clocks[cache.clock]
        where = "" if cache.shared or arch.cores == 1 else " per core"
        yield f"{name}{where}", BYTES_PER_SECOND.format(rate) if rate else "not limiting"
    for name, placement in arch.placements.items():
        cut = placement.topology.bisection_links * placement.network.bandwidth
        yield f"{name} bisection, one way", BYTES_PER_SECOND.format(cut)
        for memory in placement.memories if placement.cores else ():
            yield f"{memory} to every core at once", _per_core(placement, memory)
    for name in arch.memories:
        rate = peak_bytes_per_second(arch, name)
        if macs and rate and not arch.is_per_core(name):
            yield f"ridge point over {name}", f"{float(Fraction(2 * macs, rate)):.4g} FLOP/B"


def _per_core(placement: Placement, memory: str) -> str:
    rate = round(placement.core_bytes_per_second(memory))
    return f"{BYTES_PER_SECOND.format(rate)} each through the network"


def _scaled(value: int) -> str:
    for factor, prefix in ((10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M")):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}"
    return f"{value} "


# -- parameters ----------------------------------------------------------------------------------


def _parameters(arch: Architecture) -> str:
    lines = [f"{'Parameter':<{_NAME_COLUMN + 2}}{'Value':<{_VALUE_COLUMN}}Source"]
    lines.append("─" * WIDTH)
    lines += _row(arch, "clock", HERTZ.format(arch.clocks["core"]), "clock", "clocks.core")
    for name, hertz in arch.clocks.items():
        if name != "core":
            lines += _row(arch, f"clocks.{name}", HERTZ.format(hertz), f"clocks.{name}")
    lines += _row(arch, "cores", str(arch.cores), "cores")
    for name, block in blocks_of(arch).items():
        lines += _block(arch, name, block)
    for index, link in enumerate(arch.links):
        lines += _block(arch, f"links.{index}", link)
    return "\n".join(lines)


def _block(arch: Architecture, name: str, block: Block) -> list[str]:
    lines = ["", *_row(arch, name, block.kind, name)]
    for parameter in parameters_of(type(block)):
        text = value_text(block, parameter) or block.left_open(parameter)
        lines += _row(arch, f"  {parameter}", text, f"{name}.{parameter}")
    return lines


def value_text(block: Block, parameter: str) -> str:
    """A parameter's value as an architecture file would say it, with its unit."""
    value = getattr(block, parameter)
    quantity = parameters_of(type(block))[parameter].quantity
    return quantity.format(value) if quantity else _plain_text(value)


def parameter_text(arch: Architecture, path: str) -> str:
    """The value at a parameter path ("mxu.rows"), as an architecture file would say it."""
    name, _, parameter = path.partition(".")
    return value_text(blocks_of(arch)[name], parameter)


def _plain_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_plain_text, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain_text(one)}" for key, one in value.items()) + "}"
    return str(value)


def _row(arch: Architecture, label: str, value: str, *paths: str) -> list[str]:
    """A parameter, its value and the source of the first of ``paths`` that has one."""
    told = next((path for path in paths if path in arch.sources), "")
    source = arch.sources.get(told, "")
    if told in arch.calibrated:
        source = f"calibrated: {source}"
    indent = _NAME_COLUMN + 2 + _VALUE_COLUMN
    head = f"{label:<{_NAME_COLUMN + 1}} {value:<{_VALUE_COLUMN - 1}} "
    if len(head) > indent and (source or len(head.rstrip()) > WIDTH):
        values = _wrapped(value, " " * (_NAME_COLUMN + 2))
        values[0] = f"{label:<{_NAME_COLUMN + 1}} {values[0].lstrip()}"
        return [*values, *_wrapped(source, " " * indent)]
    first, *others = _wrapped(source, " " * indent) or [""]
    return [(head + first.strip()).rstrip(), *others]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _assumptions(arch: Architecture) -> str:
    if not arch.assumptions:
        return ""
    lines = (
        textwrap.fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
        for text in arch.assumptions
    )
    return "\n".join(["Assumptions", *lines])
