"""A text read, and then written token by token, in banks that compute in their cells.

read_and_write("roberta-32k", TokenSharding(), prompt=4096)            an encoder
read_and_write("gpt2-medium", TokenSharding(dataflow="layer"), 32, 96) a prompt, then 96 tokens
accelsim generate gpt2-medium --on transpim --prompt 32 --tokens 96    the same as text
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.system.cell_work import CellTime
from accelsim.system.generation import DECODERS
from accelsim.system.token_sharding import TokenSharding, Walk
from accelsim.workload import operators as ops
from accelsim.workload import workload
from accelsim.workload.inline import check_transformer

MOST = 1 << 16


@dataclass(frozen=True)
class CellText:
    """``prompt`` tokens read at once, ``tokens`` written one after the other, of ``batch`` texts;
    ``utilisation`` is that of reading."""

    machine: str
    model: str
    prompt: int
    tokens: int
    batch: int
    read: CellTime
    written: CellTime
    utilisation: float = 0.0

    @property
    def total(self) -> CellTime:
        return self.read + self.written

    def to_dict(self) -> dict[str, Any]:
        """The run as plain JSON values."""
        shares = {"seconds": self.total.seconds, "joules": self.total.joules}
        return {**asdict(self), **shares, "moving": self.total.moving}


def read_and_write(
    model: str, machine: TokenSharding, prompt: int, tokens: int = 0, batch: int = 1
) -> CellText:
    """A text of a model of the library, or several at once.

    Raises:
        AccelsimError: numbers out of range, or a model that is not computed there.
    """
    for name, value, least in (("prompt", prompt, 0), ("tokens", tokens, 0), ("batch", batch, 1)):
        if not least <= value <= MOST:
            raise AccelsimError(f"{name} = {value}; accepted: {least} to {MOST:,}")
    if prompt + tokens == 0:
        raise AccelsimError("no prompt and no tokens; accepted: one of them from 1")
    # An encoder reads, and writes nothing.
    check_transformer(model, DECODERS if tokens else (*DECODERS, "bert"))
    read, busy = CellTime(), 0.0
    if prompt:
        graph = workload(model, tokens=prompt, batch=batch)
        read, busy = machine.run(graph), machine.utilisation(graph)
    written = decode(model, machine, prompt, tokens, batch) if tokens else CellTime()
    name = f"{machine.pim.name} by {machine.dataflow}"
    return CellText(name, model, prompt, tokens, batch, read, written, busy)


def decode(model: str, machine: TokenSharding, cached: int, tokens: int, batch: int) -> CellTime:
    """So many steps behind a cache of ``cached`` tokens, each counted by itself."""
    graph = workload(model, phase="decode", context=cached + tokens, batch=batch)
    walk = Walk(machine, graph)
    layers = [op for op in graph.operators if isinstance(op, ops.Attention)]
    rest = sum((walk.take(op) for op in graph.operators if op not in layers), CellTime())
    total = CellTime()
    for context in range(cached + 1, cached + tokens + 1):
        attention = walk.take(replace(layers[0], kv_len=context)) if layers else CellTime()
        total += rest + attention.times(len(layers))
    return total
