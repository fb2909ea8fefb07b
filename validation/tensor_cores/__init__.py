"""The tensor-core model gives the bits that real GPUs gave, and wrong models do not.

Captured are single instructions (SOURCE.md). Models that are wrong in one parameter are run on the
same operands; a row for one of them is good if it is found out. A capture that is as long as one
step cannot tell it from a longer step, so doubled steps are judged where there are two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.numerics.arithmetic import ProductTypes, arithmetic
from accelsim.numerics.formats import number_format
from accelsim.numerics.rules import EmulatedFp8, TensorCoreRule
from accelsim.numerics.tensor_core import DotStep, Parts, parts_of_codes
from accelsim.results.claims import Claim, Row

CLAIM = Claim(
    name="tensor-cores",
    statement="outputs that differ from captured ones (48 rows 'right'); wrong models found out"
    " (183 rows 'wrong': one parameter changed, wherever a capture can tell)",
    source="captures of eight GPUs, Khattak and Mikaitis, MATLAB-tensor-core (BSD-2)",
    tolerance=0.0,
)

Bits = npt.NDArray[np.uint32]
Rounding = Literal["RZ", "RNE"]

FORMATS = {"fp16": "fp16", "bf16": "bf16", "tf32": "tf32", "e4m3": "fp8_e4m3", "e5m2": "fp8_e5m2"}
ARITHMETIC = {
    "V100": "volta-mma", "A100": "ampere-mma", "A2": "ampere-mma", "Ada": "ada-mma",
    "L40S": "ada-mma", "H100": "hopper-mma", "H200": "hopper-mma", "B200": "blackwell-mma",
}  # fmt: skip


@dataclass(frozen=True)
class Capture:
    """The operands and results of one instruction on one GPU; ``c`` and ``d`` are fp32 bits."""

    gpu: str
    format: str
    result: str
    a: Parts
    b: Parts
    c: Bits
    d: Bits

    def __str__(self) -> str:
        return f"{self.gpu} {self.format} -> {self.result}"

    @property
    def rule(self) -> TensorCoreRule | EmulatedFp8:
        """The rule by which this GPU computes it."""
        name = ARITHMETIC[self.gpu]
        if self.is_wgmma:
            name = "hopper-wgmma"
        fmt = number_format(FORMATS[self.format])
        found = arithmetic(name).rule(ProductTypes(fmt, fmt, number_format(self.result)))
        assert isinstance(found, TensorCoreRule | EmulatedFp8)
        return found

    @property
    def is_wgmma(self) -> bool:
        """Hopper's own fp8 path: with an fp32 result it was captured, from c = 0."""
        return (
            self.gpu in ("H100", "H200") and self.format.startswith("e") and self.result == "fp32"
        )

    def mismatches(self, rule: TensorCoreRule | EmulatedFp8) -> int:
        """Results that the rule gets wrong."""
        got = self.emulated(rule) if isinstance(rule, EmulatedFp8) else self.stepped(rule.step)
        return int((got != self.d).sum())

    def stepped(self, step: DotStep) -> Bits:
        """Results, as fp32 bits, of a chain of steps."""
        c = self.c
        if step.result == "fp16":
            half = c.view(np.float32).astype(np.float16)
            c = half.view(np.uint16).astype(np.uint32)
        return widened(step.dots(self.a, self.b, c), step.result)

    def emulated(self, rule: EmulatedFp8) -> Bits:
        """Results, as fp32 bits, of the emulated instruction."""
        values = rule.dots(self.a, self.b, self.c.view(np.float32))
        return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)


def widened(bits: Bits, result: str) -> Bits:
    """fp32 or fp16 bits as fp32 bits."""
    if result == "fp32":
        return bits
    return bits.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)


@cache
def captures() -> tuple[Capture, ...]:
    """All captured instructions."""
    with as_file(files(__name__) / "captures.npz") as path, np.load(path) as archive:
        held: dict[str, Any] = {name: archive[name] for name in archive.files}
    found = []
    for name in held:
        gpu, fmt, what = name.split("/")
        if not what.startswith("d_"):
            continue
        here = f"{gpu}/{fmt}"
        a, b = (parts_of_codes(number_format(FORMATS[fmt]), held[f"{here}/{x}_bits"]) for x in "ab")
        one = Capture(gpu, fmt, what[2:6], a, b, held[f"{here}/c_fp32_bits"], held[name])
        found.append(replace(one, c=np.zeros_like(one.c)) if one.is_wgmma else one)
    return tuple(found)


def wrong_steps(step: DotStep, length: int) -> dict[str, DotStep]:
    """Steps that differ from ``step`` in one thing that a capture of ``length`` products shows.

    F shows through a result that has about as many fraction bits; an fp16 result hides 23 to 25.
    """
    f = step.fraction_bits
    other: Rounding = "RZ" if step.rounding == "RNE" else "RNE"
    wrong = {f"{other} for {step.rounding}": replace(step, rounding=other)}
    if f <= step.format.mantissa_bits + 3:
        wrong[f"F = {f - 1}"] = replace(step, fraction_bits=f - 1)
        wrong[f"F = {f + 1} (a guard bit)"] = replace(step, fraction_bits=f + 1)
        if length > step.products:
            wrong[f"K = {step.products * 2}"] = replace(step, products=step.products * 2)
    if length > step.products // 2:
        wrong[f"K = {step.products // 2}"] = replace(step, products=step.products // 2)
    if step.kept_bits < step.format.mantissa_bits:
        wrong["one more bit kept"] = replace(step, kept_bits=step.kept_bits + 1)
    return wrong


class CFirst(EmulatedFp8):
    """Emulated fp8 that would begin with C: wrong."""

    def dots(self, a: Parts, b: Parts, c: Any) -> Any:
        bits = self.accumulator.codes(self.accumulator.encode(c)).astype(np.uint32)
        for chosen in self.halves(np.arange(self.INSTRUCTION)):
            bits = self.step.dots(a.columns(chosen), b.columns(chosen), bits)
        return self.values(bits)


class InOrder(EmulatedFp8):
    """Emulated fp8 that would take k in ascending order: wrong."""

    @staticmethod
    def halves(ks: Any) -> Any:
        return ks[ks % 32 < 16], ks[ks % 32 >= 16]


class OtherRounding(EmulatedFp8):
    """Emulated fp8 with fp16 steps that truncate: wrong."""

    @property
    def step(self) -> DotStep:
        return replace(super().step, rounding="RZ")


class OtherResult(EmulatedFp8):
    """Emulated fp8 whose steps would have results of the other width: wrong."""

    @property
    def step(self) -> DotStep:
        narrow = {"result": "fp16", "kept_bits": 10, "rounding": "RNE"}
        settings: Any = narrow if super().step.result == "fp32" else {"kept_bits": 9}
        return replace(super().step, **settings)

    def values(self, bits: Bits) -> Any:
        fmt = self.step.format
        return fmt.decode(fmt.stored(bits))


def wrong_emulations(rule: EmulatedFp8) -> dict[str, EmulatedFp8]:
    """Emulations that differ in one thing; in fp32 neither the order nor the rounding shows."""
    wrong: dict[str, type[EmulatedFp8]] = {"c first": CFirst}
    if rule.step.result == "fp32":
        wrong["steps in fp16"] = OtherResult
    else:
        wrong |= {"k in order": InOrder, "RZ for RNE": OtherRounding, "a bit less": OtherResult}
    return {name: kind(rule.accumulator, rule.a, rule.b) for name, kind in wrong.items()}


def wrong_rules(capture: Capture) -> dict[str, TensorCoreRule | EmulatedFp8]:
    """Rules that differ in one thing from that of a capture, by what differs."""
    rule = capture.rule
    if isinstance(rule, EmulatedFp8):
        return {**wrong_emulations(rule)}
    length = capture.a.significand.shape[1]
    steps = wrong_steps(rule.step, length)
    return {name: replace(rule, step=step) for name, step in steps.items()}


def rows() -> Iterator[Row]:
    """Every capture by its rule, then every wrong rule by the number of outputs it gets wrong."""
    for capture in captures():
        wrong = capture.mismatches(capture.rule)
        case = f"{capture}: {capture.rule.tag}, {len(capture.d)} outputs"
        yield Row(case, 0, wrong, wrong == 0, "right")
    for capture in captures():
        for what, rule in wrong_rules(capture).items():
            wrong = capture.mismatches(rule)
            case = f"{capture}: {what}: {wrong} of {len(capture.d)} outputs differ"
            yield Row(case, 1, float(wrong > 0), wrong > 0, "wrong")
