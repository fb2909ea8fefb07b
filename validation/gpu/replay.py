"""Recorded bits beside the simulator's: every case computed again from its seed, bit by bit.

The arithmetic is that of accelsim.numerics, the one that ``accelsim check`` executes programs with:
the unit's by the GPU's compute capability, the order by the case's tag. Where a library decides
about the order, or an instruction is not documented, the plans that there are get tried
(validation.gpu.plans), and the one that gives the recorded bits is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.attention import AttentionOrder, attention
from accelsim.numerics.formats import Format, number_format
from accelsim.numerics.orders import order_of
from accelsim.numerics.rules import EmulatedFp8, Rule, TensorCoreRule
from accelsim.numerics.tensor_core import parts_of_codes

from . import sweeps
from .cases import UNARY, Case, arithmetic_of, capture_sets
from .golden import RECORDED, SPANS, Folder, Golden, positions
from .inputs import Codes
from .operands import Operands, operands, output_dtype, output_shape
from .recording import TABLE, recorded_inputs

Array = npt.NDArray[Any]

GOLDEN = Path(__file__).resolve().parent / "golden"
SCALE = 0.125
"""Of the scores of an attention 64 wide."""


@dataclass(frozen=True)
class Compared:
    """One case: how many stored outputs and how many of its sixteen spans differ, and by what rule.

    ``required`` says that the order was declared, so that a difference contradicts the model;
    ``reason`` is why it was not, or what explains the bits.
    """

    set_name: str
    case: str
    outputs: int
    stored: int
    spans: int
    rule: str
    required: bool = True
    reason: str = ""
    first: str = ""

    @property
    def same(self) -> bool:
        """Whether all bits are the same, also of what was not stored."""
        return self.stored == 0 and self.spans == 0

    def __str__(self) -> str:
        text = f"{self.case}: {self.outputs:,} outputs by {self.rule}"
        if not self.same:
            text += f", {self.stored} stored ones and {self.spans} of {SPANS} spans differ"
        return "; ".join(part for part in (text, self.first, self.reason) if part)


def folders(root: Path = GOLDEN) -> list[Folder]:
    """All recorded GPUs; AccelsimError for a folder that cannot be believed."""
    if not root.is_dir():
        return []
    return [Folder.read(one) for one in sorted(root.iterdir()) if one.is_dir()]


def recorded_sets(folder: Folder) -> Iterator[tuple[str, list[Golden]]]:
    """Sets that were recorded, with their cases."""
    for name, entry in sorted(folder.sets.items()):
        if entry["status"] == RECORDED:
            yield name, folder.goldens(name)


def replay(folder: Folder, cases: Mapping[str, Case] | None = None) -> Iterator[Compared]:
    """Every recorded case of a GPU beside the simulator."""
    known = all_cases() if cases is None else cases
    for _, goldens in recorded_sets(folder):
        for golden in goldens:
            yield compared(golden, case_of(golden, known), folder.sets[golden.set_name])


def all_cases() -> dict[str, Case]:
    """Cases by name."""
    return {case.name: case for one in capture_sets() for case in one.cases}


def case_of(golden: Golden, known: Mapping[str, Case]) -> Case:
    """The case that a golden was recorded from; AccelsimError if it is not that any more."""
    case = known.get(golden.case)
    if case is None:
        raise AccelsimError(f"{golden.set_name}: no case is called {golden.case} any more")
    if golden.entry["order"] != case.order:
        raise AccelsimError(
            f"{golden.case} was recorded in order {golden.entry['order']!r}, not {case.order!r}"
        )
    return case


def given_of(golden: Golden, case: Case) -> Operands:
    """A case's operands; AccelsimError if they are not the ones it was recorded with."""
    given = operands(case)
    if recorded_inputs(given) != golden.entry["inputs"]:
        raise AccelsimError(
            f"{golden.case}: the generator gives other operands than it was recorded with"
        )
    return given


def compared(golden: Golden, case: Case, about: Mapping[str, Any]) -> Compared:
    """One recorded case beside the simulator, by the plan that explains it best."""
    from . import plans

    if case.kernel == "sweep_cast":
        return swept(golden, case)
    given = given_of(golden, case)
    best: Compared | None = None
    corners: list[str] = []
    for plan in plans.of(case, str(about["capability"]), golden.notes):
        if plan.outputs is None:
            return _listed(golden, plan.rule, plan.reason)
        output = plan.outputs(given)
        stored, spans = golden.differing(output)
        found = Compared(
            golden.set_name, golden.case, output.size, stored, spans, plan.rule, plan.required,
            plan.reason, first_difference(golden, output),
        )  # fmt: skip
        if found.same and not plan.corner:
            return found
        if plan.corner:
            corners += [plan.corner] if found.same else []
            continue
        if best is None or (found.stored, found.spans) < (best.stored, best.spans):
            best = found
    assert best is not None
    return replace(best, reason=f"explained by {' or '.join(corners)}") if corners else best


def swept(golden: Golden, case: Case, rounding: Any = "RNE") -> Compared:
    """Casts of some blocks of all words beside their recorded digests."""
    given_of(golden, case)
    chosen = sweeps.replayed_blocks(case)
    wrong = []
    for block in chosen:
        words = sweeps.block_words(case, int(block))
        results = cast(case, {"words": words}, rounding)
        if sweeps.digest_of(words, results) != int(golden.kept[block]):
            wrong.append(int(block))
    first = ""
    if wrong:
        words = sweeps.block_words(case, wrong[0])
        first = f"first in the words from 0x{int(words[0]):08X} to 0x{int(words[-1]):08X}"
    return Compared(
        golden.set_name, golden.case, len(chosen) * case.k, len(wrong), 0,
        f"{rounding} to {case.out}, {len(chosen)} of {case.m} blocks of words", first=first,
    )  # fmt: skip


def _listed(golden: Golden, rule: str, reason: str) -> Compared:
    """A case that nothing here can compute."""
    count = int(golden.entry["count"])
    return Compared(golden.set_name, golden.case, count, 0, SPANS, rule, False, reason)


def first_difference(golden: Golden, output: Codes) -> str:
    """Where stored bits differ first, with both patterns; "" if they are all the same."""
    flat = np.ascontiguousarray(output).reshape(-1)
    at = positions(golden.case, flat.size)
    wrong = np.flatnonzero(flat[at] != golden.kept)
    if not wrong.size:
        return ""
    mine, theirs = int(flat[at[wrong[0]]]), int(golden.kept[wrong[0]])
    digits = 2 * flat.dtype.itemsize
    mask = (1 << (4 * digits)) - 1
    return (
        f"first at {int(at[wrong[0]])}: simulated 0x{mine & mask:0{digits}X},"
        f" recorded 0x{theirs & mask:0{digits}X}, order {golden.entry['order'] or 'undeclared'}"
    )


def table(folder: Folder, golden: Golden, case: Case) -> tuple[Codes, Codes]:
    """(arguments, results) of a special function as words: all of ex2, of others what is stored.

    AccelsimError if the table is not the whole output that was recorded.
    """
    start, count = UNARY[case.values]
    if case.values != "ex2":
        at = positions(case.name, count)
        return (np.uint32(start) + at.astype(np.uint32)), golden.kept
    steps = folder.table(golden.set_name, f"{TABLE}-steps").astype(np.int64)
    first = int(folder.table(golden.set_name, f"{TABLE}-first")[0])
    found = np.concatenate([[first], first + np.cumsum(steps)]).astype(np.uint32)
    if golden.differing(found) != (0, 0):
        raise AccelsimError(f"{golden.case}: the table is not the output that was recorded")
    return np.uint32(start) + np.arange(count, dtype=np.uint32), found


# --- what the simulator computes


def rule_of(case: Case, capability: str, order: str = "") -> Rule:
    """The rule of a case's unit in its order."""
    name = arithmetic_of(capability, case)
    if not name:
        raise AccelsimError(f"no model of the {case.arithmetic} unit of capability {capability}")
    tag = order or case.order
    if case.arithmetic == "lanes":
        return arithmetic(tag.replace("lanes:", "lanes") + "-fp32").rule(_types(case))
    return arithmetic(name).reduction(_types(case), order_of(tag), case.k)


def _types(case: Case) -> Any:
    """The formats of a product; a narrower result is rounded when it is stored, where the product
    is of a whole matrix and not of one instruction."""
    inside = case.kernel in ("mma", "wgmma", "sparse")
    held = case.out if inside or case.out == "int32" else "fp32"
    return types_of(case.a, case.b, held)


def instruction(case: Case, rule: Rule, given: Operands) -> Codes:
    """Single instructions: every output by itself, from bit patterns."""
    a, b, c = given["a"], given["b"], given["c"]
    if isinstance(rule, TensorCoreRule | EmulatedFp8):
        rows = np.repeat(a[:, :, None], b.shape[1], axis=2).reshape(-1, case.k)
        columns = np.repeat(b[:, None], a.shape[1], axis=1).reshape(-1, case.k)
        found = dots(case, rule, rows, columns, c.reshape(-1))
    else:
        found = np.stack([
            rule.multiply(x.astype(np.int32), y.T.astype(np.int32), z)
            for x, y, z in zip(a, b, c, strict=True)
        ])  # fmt: skip
    return found.reshape(output_shape(case)).astype(output_dtype(case))


def dots(
    case: Case, rule: TensorCoreRule | EmulatedFp8, rows: Codes, columns: Codes, c: Codes
) -> Codes:
    """Bits of c[n] + rows[n, k] times columns[n, k]."""
    a, b = (
        parts_of_codes(number_format(fmt), codes)
        for fmt, codes in ((case.a, rows), (case.b, columns))
    )
    if isinstance(rule, TensorCoreRule):
        return rule.step.dots(a, b, c.astype(np.uint32))
    fmt = number_format(case.out)
    return words(fmt, rule.dots(a, b, fmt.decode(fmt.stored(c))))


def words(fmt: Format, values: Array) -> Codes:
    """Bit patterns of values, with the one NaN that a GPU's adders give."""
    with np.errstate(all="ignore"):
        found = np.asarray(fmt.codes(fmt.encode(values)))
    nan = found.dtype.type((1 << (fmt.bits - 1)) - 1)
    return np.where(np.isnan(values.astype(np.float64)), nan, found)


def matrix_product(case: Case, rule: Rule, given: Operands) -> Codes:
    """Products of whole matrices, rounded once to the format that they are stored in."""
    if case.out == "int32":
        a, b = (given[name].astype(np.int32) for name in ("a", "b"))
        return np.asarray(rule.multiply(a, np.ascontiguousarray(b.T), None))
    a, b = (values(fmt, given[name]) for fmt, name in ((case.a, "a"), (case.b, "b")))
    sums = rule.multiply(a, np.ascontiguousarray(b.T), None)
    found = words(number_format(case.out), sums)
    return found.astype(output_dtype(case)).reshape(output_shape(case))


def values(fmt: str, codes: Codes) -> Array:
    """What bit patterns mean, in the format's carrier."""
    found = number_format(fmt)
    return np.asarray(found.decode(found.stored(codes)))


def fused_attention(case: Case, capability: str, given: Operands, order: str = "") -> Codes:
    """Attention in the declared order, as fp32 words."""
    unit = arithmetic_of(capability, case)
    declared = AttentionOrder(unit, case.a, order_of(order or case.order))
    q, k, v = (values(case.a, given[name]) for name in ("q", "k", "v"))
    return words(number_format(case.out), attention(q, k, v, SCALE, declared))


def cast(case: Case, given: Operands, rounding: Any = "RNE") -> Codes:
    """fp32 words in another format; fp8 saturates, as its instruction is told to."""
    fmt = number_format(case.out)
    x = given["words"].view(np.float32)
    overflow: Any = "saturate" if case.out.startswith("fp8") else fmt.overflow
    with np.errstate(all="ignore"):
        found = fmt.codes(fmt.encode(x, rounding, overflow))
    nan = (1 << (fmt.bits - 1)) - 1
    return np.where(np.isnan(x), nan, found).astype(output_dtype(case))
