"""A text generated token by token, on a machine of any kind: time, energy, and what they are per
token.

    generate("gpt3-xl")                                   on PIM-GPT
    generate("gpt3-xl", EagerGeneration(arch("t4"), ...)) on a GPU under a framework
    accelsim generate gpt3-xl --asic-clock 100MHz         the same as text
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from accelsim.errors import AccelsimError, is_whole, shown
from accelsim.system.bank_decoder import BankDecoder
from accelsim.system.eager import EagerGeneration
from accelsim.system.spending import NOTHING, Spent
from accelsim.workload import workload
from accelsim.workload.inline import check_transformer

PIM_GPT = BankDecoder()
MOST = 1 << 16
DECODERS = ("gpt2", "opt")
"""Families of transformers whose operators banks and an ASIC have."""


@dataclass(frozen=True)
class Generation:
    """``tokens`` tokens of a ``model``, of a batch of one; ``spent`` has parts where a machine of
    banks and an ASIC did it."""

    machine: str
    model: str
    tokens: int
    seconds: float
    joules: float
    spent: Spent = NOTHING

    def to_dict(self) -> dict[str, Any]:
        """The run as plain JSON values."""
        shares = {
            "row_hits": self.spent.row_hits,
            "beside_products": self.spent.beside_products,
            "seconds_per_token": self.seconds_per_token,
            "watts": self.watts,
        }
        return {**asdict(self), **shares}

    @property
    def seconds_per_token(self) -> float:
        return self.seconds / self.tokens

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


def generate(
    model: str, machine: BankDecoder | EagerGeneration = PIM_GPT, tokens: int = 1024
) -> Generation:
    """A text of so many tokens, each step counted by itself.

    Raises:
        AccelsimError: tokens out of range, or a model that the machine does not compute.
    """
    if not is_whole(tokens, 1, MOST):
        raise AccelsimError(f"tokens = {shown(tokens)}; accepted: 1 to {MOST:,}, a whole number")
    if not isinstance(model, str):
        raise AccelsimError(f"model is {shown(model)}; accepted: a name such as 'gpt2', or a path")
    if not isinstance(machine, BankDecoder | EagerGeneration):
        raise AccelsimError(
            f"machine is {shown(machine)}; accepted: BankDecoder('pim-gpt'), which it is if none"
            " is given, or an EagerGeneration"
        )
    if isinstance(machine, BankDecoder):
        check_transformer(model, DECODERS)
        graph = workload(model, phase="decode", context=tokens)
        spent = sum(machine.decode(graph, tokens), NOTHING)
        joules = machine.joules(spent)
        return Generation(machine.pim.name, model, tokens, spent.seconds, joules, spent)
    seconds = float(machine.step_seconds(model, tokens).sum())
    return Generation(machine.arch.name, model, tokens, seconds, seconds * machine.watts)
