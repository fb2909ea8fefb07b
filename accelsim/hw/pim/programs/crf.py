"""Microprograms of HBM-PIM: up to 32 instructions, of which every column command takes the next.

Operands are the even and the odd bank of a unit, its two files of eight registers (GRF_A, GRF_B)
and its scalars (SRF_M, SRF_A). Registers follow the address of the command: that of a file takes
the lowest three bits of the column; where a product accumulates, its sums take the next three. A
JUMP costs no command: it goes back by some instructions, a number of times, and then on. EXIT ends
what is done until the mode is entered again.

    FILL  register <- bank            MOV   bank <- register; with relu: register <- bank
    ADD   register <- a + b           MUL   register <- a b
    MAC   sums += bank x GRF_A        MAD   register <- bank SRF_M + SRF_A

Source: Kwon et al., HBM-PIM, ISCA 2021 (units, instructions, address-aligned registers).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from accelsim.errors import AccelsimError
from accelsim.hw.pim.operators import Add, Elementwise, Mad, Mul, Relu

INSTRUCTIONS = 32
REGISTERS = 8


class Op(Enum):
    """Operations of a unit."""

    ADD = "ADD"
    MUL = "MUL"
    MAC = "MAC"
    MAD = "MAD"
    MOV = "MOV"
    FILL = "FILL"
    JUMP = "JUMP"
    EXIT = "EXIT"


class Place(Enum):
    """Where operands come from and results go."""

    EVEN = "EVEN_BANK"
    ODD = "ODD_BANK"
    GRF_A = "GRF_A"
    GRF_B = "GRF_B"
    SRF_M = "SRF_M"
    SRF_A = "SRF_A"


BANKS = (Place.EVEN, Place.ODD)
FILES = (Place.GRF_A, Place.GRF_B)


@dataclass(frozen=True)
class Instruction:
    """One of a microprogram; a JUMP goes ``back`` by so many, so many ``times``."""

    op: Op
    result: Place | None = None
    first: Place | None = None
    second: Place | None = None
    relu: bool = False
    back: int = 0
    times: int = 0

    def __str__(self) -> str:
        if self.op is Op.JUMP:
            return f"JUMP -{self.back} x{self.times}"
        places = (self.result, self.first, self.second)
        words = ", ".join(one.value for one in places if one is not None)
        return f"{self.op.value}{' (ReLU)' if self.relu else ''} {words}".rstrip()


def jump(back: int, times: int) -> list[Instruction]:
    """Again, so many times; nothing for none."""
    return [Instruction(Op.JUMP, back=back, times=times)] if times else []


def each_register(one: Instruction) -> list[Instruction]:
    """An instruction for all registers of a file, one command each."""
    return [one, *jump(1, REGISTERS - 1)]


def elementwise_program(operator: Elementwise, tiles: int) -> tuple[Instruction, ...]:
    """Per tile: eight columns of the even banks by GRF_A, then eight of the odd ones by GRF_B."""
    body: list[Instruction] = []
    for bank, file in zip(BANKS, FILES, strict=True):
        for one in (*_arithmetic(operator, bank, file), Instruction(Op.MOV, bank, file)):
            body += each_register(one)
    return checked([*body, *jump(len(body), tiles - 1), Instruction(Op.EXIT)])


def _arithmetic(operator: Elementwise, bank: Place, file: Place) -> tuple[Instruction, ...]:
    if isinstance(operator, Relu):
        return (Instruction(Op.MOV, file, bank, relu=True),)
    if isinstance(operator, Mad):
        return (Instruction(Op.MAD, file, bank, Place.SRF_M),)
    if isinstance(operator, Add | Mul):
        op = Op.ADD if isinstance(operator, Add) else Op.MUL
        return Instruction(Op.FILL, file, bank), Instruction(op, file, file, bank)
    raise AccelsimError(f"no microprogram of {operator}; accepted: add, mul, relu, mad")


def product_program(pairs: int) -> tuple[Instruction, ...]:
    """A tile of GEMV: for each pair of input tiles 64 columns of the even and of the odd banks,
    then eight sums into the odd ones."""
    body: list[Instruction] = []
    for bank in BANKS:
        one = Instruction(Op.MAC, Place.GRF_B, bank, Place.GRF_A)
        body += [one, *jump(1, REGISTERS * REGISTERS - 1)]
    store = each_register(Instruction(Op.MOV, Place.ODD, Place.GRF_B))
    return checked([*body, *jump(len(body), pairs - 1), *store, Instruction(Op.EXIT)])


def checked(program: list[Instruction]) -> tuple[Instruction, ...]:
    """A program that a unit can hold."""
    if len(program) > INSTRUCTIONS:
        raise AccelsimError(f"{len(program)} instructions; accepted: up to {INSTRUCTIONS}")
    return tuple(program)
