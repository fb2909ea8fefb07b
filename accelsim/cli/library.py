"""``accelsim list`` and ``accelsim show``: what there is to simulate, and on what."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from accelsim.cli import options
from accelsim.errors import AccelsimError

Entry = tuple[str, str]


def list_library(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[archs|workloads|mappers|formats|encodings|memories]",
            help="Default: everything.",
        ),
    ] = None,
) -> None:
    """List what ships: architectures, workloads, mappers, number formats, encodings, memories."""
    if what is not None and what not in _SECTIONS:
        from accelsim.arch.faults import unknown

        raise AccelsimError(unknown("list", what, _SECTIONS))
    if what is not None:
        typer.echo(_lines(_SECTIONS[what]()))
        return
    typer.echo(
        "\n\n".join(f"{name}\n{_lines(entries(), '  ')}" for name, entries in _SECTIONS.items())
    )


def show(arch: options.Arch, sets: options.Sets = None) -> None:
    """Show an architecture: block diagram, peaks, and every parameter with its source.

    Also a DRAM device or a PIM family: organisation, timings, constraints, energy, with sources. A
    family of an architecture's name is shown behind it.
    """
    from accelsim.arch.catalog import list_archs
    from accelsim.hw.dram.catalog import device, list_devices
    from accelsim.hw.pim.catalog import list_families

    if arch in list_families() and arch not in list_archs():
        if sets:
            raise AccelsimError(f"--set {sets[0]}: {arch} is a family; accepted: an architecture")
        _show_family(arch)
        return
    if arch in list_devices() or ".yaml:" in arch:
        from accelsim.hw.dram.describe import describe as describe_device

        if sets:
            raise AccelsimError(f"--set {sets[0]}: {arch} is a device; accepted: an architecture")
        typer.echo(describe_device(device(arch)), nl=False)
        return
    from accelsim.api import as_arch
    from accelsim.arch.describe import describe

    typer.echo(describe(as_arch(arch, options.overrides(sets))), nl=False)
    if arch in list_families():
        typer.echo()
        _show_family(arch)


def _show_family(name: str) -> None:
    from accelsim.hw.pim.catalog import family
    from accelsim.hw.pim.describe import describe

    typer.echo(describe(family(name)), nl=False)


def _lines(entries: Iterable[Entry], indent: str = "") -> str:
    listed = list(entries)
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"{indent}{name:{width}}  {text}".rstrip() for name, text in listed)


def _archs() -> list[Entry]:
    from accelsim.arch.catalog import arch, list_archs

    return [(name, arch(name).description) for name in list_archs()]


def _workloads() -> list[Entry]:
    from accelsim.workload import KINDS, list_workloads

    operators = [(f"{kind}:...", "operator") for kind in sorted(KINDS)]
    return [*list_workloads(), *operators]


def _mappers() -> list[Entry]:
    from accelsim.mapping.registry import MAPPERS, load_builtin_mappers, load_installed_mappers

    load_builtin_mappers()
    load_installed_mappers()
    return [
        (name, f"{', '.join(one.lowers)}: {one.summary}") for name, one in sorted(MAPPERS.items())
    ]


def _formats() -> list[Entry]:
    from accelsim.numerics.formats import FORMATS

    return [
        (name, f"{one.bits} bits, " + ("integer" if one.is_integer else _floating(one)))
        for name, one in FORMATS.items()
    ]


def _floating(one: object) -> str:
    bits = getattr(one, "significand_bits")  # noqa: B009
    return f"floating point, {bits} significand bits"


def _encodings() -> list[Entry]:
    from accelsim.encoding.encodings import FAMILIES

    return [(family.shown, family.summary) for family in FAMILIES]


def _memories() -> list[Entry]:
    from accelsim.hw.block import Memory
    from accelsim.hw.catalog import block_kinds
    from accelsim.hw.dram.catalog import shipped_devices
    from accelsim.hw.dram.describe import summary
    from accelsim.hw.pim.catalog import shipped_families
    from accelsim.hw.pim.describe import summary as family_summary

    kinds = [
        (f"kind: {kind}", (one.__doc__ or "").split("\n")[0])
        for kind, one in sorted(block_kinds().items())
        if issubclass(one, Memory)
    ]
    return [
        ("--memory ideal", "stall-free: transfers take no time, capacities do not limit"),
        ("--memory bandwidth", "latency and bandwidth that all requesters share"),
        *kinds,
        *((name, summary(device)) for name, device in shipped_devices().items()),
        *((name, family_summary(one)) for name, one in shipped_families().items()),
    ]


_SECTIONS: dict[str, Callable[[], list[Entry]]] = {
    "archs": _archs,
    "workloads": _workloads,
    "mappers": _mappers,
    "formats": _formats,
    "encodings": _encodings,
    "memories": _memories,
}
