"""What several commands take: the types of their arguments and options, and what these mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.engine.bind import Fidelity

Arch = Annotated[
    str, typer.Argument(metavar="ARCH", help="A name from `accelsim list archs`, or a YAML file.")
]
Workload = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD",
        help="NAME[:key=value,...]: a name from `accelsim list workloads`, an operator "
        "(gemm:m=128,n=768,k=768), or a file: config.json, topology CSV, YAML.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a parameter: array.rows=64."),
]
Mappers = Annotated[
    list[str] | None,
    typer.Option("--mapper", metavar="NAME|FILE.py[:NAME]", help="Prefer this mapper."),
]
Memory = Annotated[
    str, typer.Option("--memory", metavar="FIDELITY", help="ideal (stall-free), bandwidth or dram.")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Write the result as JSON; - is stdout, alone."),
]
MaxInstructions = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Refuse programs longer than this."),
]

_MAPPER_FILE = re.compile(r"(?P<file>.*\.py)(?::(?P<name>.+))?")


def overrides(sets: Sequence[str] | None) -> dict[str, object]:
    """The parameters that ``--set`` replaces; raises AccelsimError for a bad or repeated one."""
    from accelsim.arch.overrides import parse_override

    found: dict[str, object] = {}
    for text in sets or ():
        path, value = parse_override(text)
        if path in found:
            raise AccelsimError(f"--set {path} is given twice; accepted: once")
        found[path] = value
    return found


def mapper_names(given: Sequence[str] | None) -> tuple[str, ...]:
    """Registered names of the mappers that ``--mapper`` wants, files of the user loaded."""
    return tuple(name for text in given or () for name in _mapper(text))


def _mapper(text: str) -> tuple[str, ...]:
    from accelsim.arch.faults import unknown
    from accelsim.mapping.registry import MAPPERS, by_name, load_builtin_mappers, load_file

    match = _MAPPER_FILE.fullmatch(text)
    if match is None:
        load_builtin_mappers()
        try:
            return (by_name(text).name,)
        except AccelsimError:
            raise AccelsimError(f"{unknown('mapper', text, MAPPERS)}, or a .py file") from None
    registered = load_file(match["file"])
    if match["name"] is None:
        return registered
    if match["name"] not in registered:
        raise AccelsimError(f"{match['file']}: {unknown('mapper', match['name'], registered)}")
    return (match["name"],)


def fidelity(text: str) -> Fidelity:
    """The memory fidelity of that name."""
    from accelsim.arch.faults import unknown
    from accelsim.engine.bind import FIDELITIES

    if text not in FIDELITIES:
        raise AccelsimError(unknown("memory fidelity", text, FIDELITIES))
    return text
