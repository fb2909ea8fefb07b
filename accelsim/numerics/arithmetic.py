"""The arithmetic of matrix units by name, as architecture files give it (``arithmetic:``).

    sequential-fp32      product, then sum, each rounded; also -fp16, -bf16
    tree16-fp32          adder trees of 16 products, then a chain; any power of two, also -fp16
    fma-fp32, fma-fp64   chain of fused multiply-adds
    lanes32-fp32         32 SIMT lanes of fused multiply-adds and a butterfly; any power of two
    tree16-bf16-fp32     bank trees: products and tree in bf16, accumulator in fp32; with three
                         formats products, tree and accumulator (numerics.bank_macs)
    banks4-tree16-fp32   any of these trees in so many banks, which take turns
    macs16-fp16          bank lanes that round products and sums, added in fp32; also -bf16, -fp32
    macs16x2-fp16        the same, each lane with two products at a time
    volta-mma, turing-mma, ampere-mma, ada-mma, hopper-mma, hopper-wgmma, blackwell-mma,
    blackwell-tcgen05    tensor cores (numerics.tensor_core)
    ...-satfinite        any of them that has integers, whose sums saturate after each instruction
                         (PTX ISA, mma with .satfinite) instead of wrapping modulo 2**32

Which formats a tensor core multiplies, and in what it accumulates, is a table; another combination
is refused by naming the ones there are. Other units multiply what their adders hold exactly.

Sources of the table: captures of the real GPUs (validation/tensor_cores); for Turing, fp8 with fp16
results on Hopper, and tcgen05: Xie et al., MMA-Sim, 2025, arXiv 2511.10909, whose authors tested
them on the hardware; no capture of these is at hand, nor of block formats (numerics.scaled). Shapes
of instructions: NVIDIA PTX ISA, mma, wgmma and tcgen05.mma.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy.typing as npt

from accelsim.errors import AccelsimError, unknown
from accelsim.numerics.bank_macs import BankGroup, BankLanes, BankTree
from accelsim.numerics.blocks import block_format
from accelsim.numerics.cuts import Folded, Promoted, Sliced
from accelsim.numerics.formats import FORMATS, Format, number_format
from accelsim.numerics.orders import CHAIN, Order
from accelsim.numerics.rules import (
    EmulatedFp8,
    Exact,
    Fused,
    Rule,
    Sequential,
    TensorCoreRule,
    Tree,
)
from accelsim.numerics.scaled import ScaledRule
from accelsim.numerics.tensor_core import DotStep

Kind = Literal["fp16", "bf16", "tf32", "fp64", "fp8", "fp8/6/4", "int8", "int8/4"]
Entry = DotStep | Literal["exact", "emulated", "fma"]

BESIDE_BANKS = (BankTree, BankGroup, BankLanes)
FP8 = ("fp8_e4m3", "fp8_e5m2")
MEMBERS: dict[str, tuple[str, ...]] = {
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "tf32": ("tf32", "fp32"),  # of an fp32 word the low 13 bits are ignored
    "fp64": ("fp64",),
    "fp8": FP8,
    "fp8/6/4": (*FP8, "fp6_e2m3", "fp6_e3m2", "fp4_e2m1"),
    "int8": ("int8", "uint8"),
    "int8/4": ("int8", "uint8", "int4", "uint4"),
}
"""Formats that one kind of instruction takes, A and B in any mixture."""


@dataclass(frozen=True)
class ProductTypes:
    """The formats of A, B and the accumulator of a matrix product.

    ``encoding`` is how B is stored where a unit reads it so ("": as it is multiplied).
    """

    a: Format
    b: Format
    accumulator: Format
    encoding: str = ""

    def __str__(self) -> str:
        return f"{self.a.name} x {self.b.name} -> {self.accumulator.name}"


def types_of(a: str, b: str, accumulator: str) -> ProductTypes:
    """The formats by name."""
    return ProductTypes(number_format(a), number_format(b), number_format(accumulator))


FP32 = FORMATS["fp32"]
FP32_TYPES = ProductTypes(FP32, FP32, FP32)
INT32_TYPES = types_of("int32", "int32", "int32")


def carrier_types(a: npt.NDArray[Any]) -> ProductTypes:
    """The formats of operands that are no narrower than their carriers."""
    return INT32_TYPES if a.dtype.kind == "i" else FP32_TYPES


SCALED: dict[str, tuple[DotStep, int]] = {
    "mxf8f6f4": (DotStep(products=32, fraction_bits=25), 1),
    "mxf4nvf4": (DotStep(products=4, fraction_bits=35), 16),
}
"""Steps on block formats by kind (numerics.scaled), with the products that make a term."""
SCALED_MEMBERS: dict[str, tuple[str, ...]] = {
    "mxf8f6f4": ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2"),
    "mxf4nvf4": ("mxfp4_e2m1", "nvfp4"),
}
"""Block formats of a kind; fp4 could be multiplied by mxf8f6f4, too, at half the rate."""


@dataclass(frozen=True)
class Arithmetic:
    """What a matrix unit computes: a rule for every combination of formats that it has.

    ``table`` maps (kind of operands, accumulator) to a tensor core's entry; without one, ``simple``
    serves all formats whose values its adders hold, and lanes beside a bank those that their
    registers do: what they multiply is in them. ``saturates``: integers do, see Exact.
    ``scaled`` are the kinds of its steps on block formats.
    """

    name: str
    simple: Rule | None = None
    table: tuple[tuple[Kind, str, Entry], ...] = ()
    saturates: bool = False
    scaled: tuple[str, ...] = ()

    @property
    def is_tensor_core(self) -> bool:
        return bool(self.table)

    def rule(self, types: ProductTypes, order: Order = CHAIN) -> Rule:
        """The rule for some formats, and for what of an order happens within one product.

        Raises AccelsimError, naming what there is, for formats that the unit does not multiply, an
        accumulator that it does not have, or an order that is not its own.
        """
        if order != order.of_one_product:
            raise AccelsimError(f"{order} takes several products, of which {self.name} forms one")
        found = self._simple(types) if self.simple else self._listed(types)
        if found is None:
            known = ", ".join(self.supported())
            raise AccelsimError(f"{self.name} has no {types}; supported: {known}")
        if order.adders not in ("", found.adders):
            raise AccelsimError(f"{self.name} sums {types} by {found.adders}, not {order.adders}")
        if isinstance(found, Exact):
            return found
        if order.sparse:
            found = self._sparse(found, types, order)
        if order.promote:
            if found.adder is not FP32 or types.accumulator is not FP32:
                raise AccelsimError(f"promotion adds in fp32, which {self.name} {types} does not")
            return Promoted(found, order.promote)
        if order.fold and isinstance(found, BESIDE_BANKS):
            raise AccelsimError(f"{self.name} stands beside a bank, which adds no folds")
        return Folded(found, order.fold, found.adder) if order.fold else found

    def _sparse(self, found: Rule, types: ProductTypes, order: Order) -> Rule:
        """The rule for products with pruned weights, by steps on what is kept."""
        if not isinstance(found, TensorCoreRule) or found.step.zero_products:
            raise AccelsimError(f"{self.name} has no sparse steps of {types} ({order})")
        return replace(found, sparse=order.sparse)

    def reduction(self, types: ProductTypes, order: Order, k: int) -> Rule:
        """The rule for whole products of length ``k`` in some order, its slices included.

        Raises AccelsimError as ``rule``, and for slices of sums that are not added in fp32.
        """
        if order.online:
            raise AccelsimError(f"{order.online} is the order of an attention, not of a product")
        rule = self.rule(types, order.of_one_product)
        if order.slices == 1 or isinstance(rule, Exact):
            return rule
        # What banks leave is added up by whoever reads it, in fp32.
        beside = isinstance(rule, BESIDE_BANKS)
        if types.accumulator is not FP32 or not (beside or rule.adder is FP32):
            raise AccelsimError(f"slices are added in fp32, which {self.name} {types} does not")
        partials = number_format(order.partials)
        if partials.is_integer or partials.is_scale:
            raise AccelsimError(f"partial sums in {partials.name}: they are floating point here")
        # No addition rounds more than those within a slice.
        return Sliced(rule, order.cuts(k)[0].stop, order, rule.adder)

    def scaled_rule(self, name: str) -> ScaledRule:
        """The rule for operands of a block format; AccelsimError names those that there are."""
        for kind in self.scaled:
            if name in SCALED_MEMBERS[kind]:
                return ScaledRule(*SCALED[kind], block_format(name))
        units = [u for u, one in TENSOR_CORES.items() if one.scaled and self.name != u]
        known = [member for kind in self.scaled for member in SCALED_MEMBERS[kind]]
        hint = f"of block formats it has {', '.join(known)}" if known else f"{units[0]} does"
        raise AccelsimError(f"{self.name} takes no scales of {name}; {hint}")

    def supported(self) -> list[str]:
        """Every combination in words."""
        if self.table:
            return [f"{kind} -> {accumulator}" for kind, accumulator, _ in self.table]
        assert self.simple is not None
        adder = self.simple.adder
        if isinstance(self.simple, BankLanes):
            return [f"{adder.name}, or narrower formats that it holds -> {adder.name}, fp32"]
        operands = _widest_operand(adder)
        return [f"floating point of at most {operands} -> {adder.name}", "integers -> int32"]

    def _simple(self, types: ProductTypes) -> Rule | None:
        assert self.simple is not None
        a, b, accumulator = types.a, types.b, types.accumulator
        adder = self.simple.adder
        if isinstance(self.simple, BankLanes):
            return self.simple if all(_holds(adder, fmt) for fmt in (a, b)) else None
        if a.is_integer and b.is_integer and accumulator.is_integer:
            return Exact(saturates=self.saturates)
        widest = FORMATS[_widest_operand(adder)].significand_bits
        for fmt in (a, b, accumulator):
            if fmt.is_integer or fmt.is_scale or fmt.carrier != adder.carrier:
                return None
        # An accumulator in memory may be coarser than the adders: it is rounded when it is stored.
        return self.simple if max(a.significand_bits, b.significand_bits) <= widest else None

    def _listed(self, types: ProductTypes) -> Rule | None:
        for kind, accumulator, entry in self.table:
            members = MEMBERS[kind]
            if (
                types.a.name in members
                and types.b.name in members
                and types.accumulator.name == accumulator
            ):
                return Exact(saturates=self.saturates) if entry == "exact" else _rule(entry, types)
        return None


def _holds(register: Format, fmt: Format) -> bool:
    """Whether a register keeps every value of a format, subnormal numbers left aside."""
    return (
        fmt.is_float
        and not fmt.is_scale
        and fmt.significand_bits <= register.significand_bits
        and fmt.exponent_bits <= register.exponent_bits
    )


def _widest_operand(adder: Format) -> str:
    """The widest operands whose products are rounded once: those of 16 bits are exact in fp32."""
    return adder.name if adder.significand_bits >= FP32.significand_bits else "fp16"


def _rule(entry: Entry, types: ProductTypes) -> Rule:
    tf32 = FORMATS["tf32"]
    a, b = (tf32 if f is FP32 else f for f in (types.a, types.b))
    if isinstance(entry, DotStep):
        return TensorCoreRule(entry, a, b, tf32 if FP32 in (types.a, types.b) else FP32)
    if entry == "emulated":
        return EmulatedFp8(types.accumulator, a, b)
    return Fused(adder=FORMATS["fp64"])


def _step(products: int, fraction_bits: int, kept_bits: int = 23) -> DotStep:
    return DotStep(products=products, fraction_bits=fraction_bits, kept_bits=kept_bits)


def _half(step: DotStep) -> DotStep:
    """The same step with an fp16 accumulator."""
    return replace(step, result="fp16", kept_bits=10, rounding="RNE")


def _both(kind: Kind, step: DotStep) -> tuple[tuple[Kind, str, Entry], ...]:
    return (kind, "fp32", step), (kind, "fp16", _half(step))


def _floats(step: DotStep, tf32: DotStep) -> tuple[tuple[Kind, str, Entry], ...]:
    """fp16, bf16 and tf32."""
    return (*_both("fp16", step), ("bf16", "fp32", step), ("tf32", "fp32", tf32))


def _nvidia(
    name: str,
    *entries: tuple[Kind, str, Entry],
    integers: Kind | None = "int8",
    fp64: bool = False,
    scaled: tuple[str, ...] = (),
) -> Arithmetic:
    rest: tuple[tuple[Kind, str, Entry], ...] = ((integers, "int32", "exact"),) if integers else ()
    rest += (("fp64", "fp64", "fma"),) if fp64 else ()
    return Arithmetic(name, table=(*entries, *rest), scaled=scaled)


_VOLTA, _AMPERE, _HOPPER = _step(4, 23), _step(8, 24), _step(16, 25)
_ADA_FP8, _HOPPER_FP8, _BLACKWELL_FP8 = _step(16, 13, 13), _step(32, 13, 13), _step(32, 25)
_AMPERE_FLOATS = _floats(_AMPERE, _step(4, 24))
_HOPPER_FLOATS = _floats(_HOPPER, _step(8, 25))
_EMULATED_FP8: tuple[tuple[Kind, str, Entry], ...] = (
    ("fp8", "fp32", "emulated"),
    ("fp8", "fp16", "emulated"),
)

TENSOR_CORES: dict[str, Arithmetic] = {
    one.name: one
    for one in (
        _nvidia("volta-mma", *_both("fp16", _VOLTA), integers=None),
        _nvidia("turing-mma", *_both("fp16", _AMPERE), integers="int8/4"),
        _nvidia(
            "ampere-mma",
            *_AMPERE_FLOATS,
            integers="int8/4",
            fp64=True,
        ),
        _nvidia(
            "ada-mma",
            *_AMPERE_FLOATS,
            *_both("fp8", _ADA_FP8),
            integers="int8/4",
            fp64=True,
        ),
        _nvidia(
            "hopper-mma",
            *_HOPPER_FLOATS,
            *_EMULATED_FP8,
            fp64=True,
        ),
        _nvidia(
            "hopper-wgmma",
            *_HOPPER_FLOATS,
            *_both("fp8", _HOPPER_FP8),
        ),
        _nvidia(
            "blackwell-mma",
            *_HOPPER_FLOATS,
            *_EMULATED_FP8,
            fp64=True,
        ),
        _nvidia(
            "blackwell-tcgen05",
            *_HOPPER_FLOATS,
            *_both("fp8/6/4", _BLACKWELL_FP8),
            scaled=("mxf8f6f4", "mxf4nvf4"),
        ),
    )
}

SATURATING = "-satfinite"
_FORMS = (
    "sequential-FORMAT, treeWIDTH-FORMAT, treeWIDTH-TREE-ACCUMULATOR, macsLANES-FORMAT, fma-fp32,"
    " fma-fp64, lanesCOUNT-fp32, banksCOUNT-treeWIDTH-FORMAT, each with -satfinite"
)
_SIMPLE = re.compile(r"(sequential|tree|fma|lanes|macs)(\d{0,5})-(fp32|fp16|bf16|fp64)", re.ASCII)
_GROUP = re.compile(r"banks(\d{1,2})-(tree.*)", re.ASCII)
_TURNS = re.compile(r"macs(\d{1,5})x(\d{1,3})-(fp32|fp16|bf16)", re.ASCII)
_BANK = re.compile(r"tree(\d{1,5})((?:-(?:fp32|fp16|bf16)){2,3})", re.ASCII)


@cache
def arithmetic(name: str) -> Arithmetic:
    """The arithmetic called ``name``; raises AccelsimError saying which there are."""
    if name.endswith(SATURATING):
        wraps = arithmetic(name.removesuffix(SATURATING))
        if "-> int32" not in " ".join(wraps.supported()):
            raise AccelsimError(f"{wraps.name} has no integers that could saturate")
        return replace(wraps, name=name, saturates=True)
    if name in TENSOR_CORES:
        return TENSOR_CORES[name]
    match, bank = _SIMPLE.fullmatch(name), _BANK.fullmatch(name)
    group, turns = _GROUP.fullmatch(name), _TURNS.fullmatch(name)
    simple = match and _from_words(match[1], int(match[2] or 0), FORMATS[match[3]])
    if bank:
        simple = _bank_tree(int(bank[1]), bank[2].strip("-").split("-"))
    if group:
        simple = _bank_group(int(group[1]), arithmetic(group[2]).simple)
    if turns:
        lanes = _from_words("macs", int(turns[1]), FORMATS[turns[3]])
        if isinstance(lanes, BankLanes) and int(turns[2]) > 1:
            simple = replace(lanes, together=int(turns[2]))
    if not simple:
        names = [*TENSOR_CORES, "sequential-fp32", "tree16-fp32", "lanes32-fp32", "fma-fp32"]
        raise AccelsimError(f"{unknown('arithmetic', name, names)}, or {_FORMS}")
    return Arithmetic(name, simple)


def _from_words(word: str, count: int, adder: Format) -> Rule | None:
    """The rule that a name spells, None if there is no such thing."""
    power = 2 <= count <= 1024 and count & (count - 1) == 0
    if word == "fma" and not count and adder.name in ("fp32", "fp64"):
        return Fused(adder=adder)
    if adder.name == "fp64":
        return None
    if word == "sequential" and not count:
        return Sequential(adder)
    if word == "tree" and power:
        return Tree(adder, width=count)
    if word == "lanes" and power and adder is FP32:
        return Fused(lanes=count)
    if word == "macs" and power:
        return BankLanes(count, adder)
    return None


def _bank_group(banks: int, tree: Rule | None) -> Rule | None:
    """The trees of a group of banks."""
    return BankGroup(banks, tree) if banks > 1 and isinstance(tree, (Tree, BankTree)) else None


def _bank_tree(width: int, names: list[str]) -> Rule | None:
    """The tree of a bank: formats of products, tree and accumulator; of two, the first is both."""
    if not 2 <= width <= 1024 or width & (width - 1):
        return None
    three = names if names[2:] else [names[0], *names]
    products, sums, accumulator = (FORMATS[name] for name in three)
    return BankTree(width, products, sums, accumulator)
