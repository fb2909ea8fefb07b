"""By what rules a recorded case may have been computed; first the declared one.

    own kernels     their order's tag: required
    sparse          one step on the selected pairs, or two steps of half of them: found out
    cublaslt        the configuration that was recorded: nvjet (66) is a plain chain, or split-K
                    merged by its reduction scheme, and then required; of others the chain is tried
    scaled_mm       promotion after 128, and a single chain: found out
    cusparselt      the sparse step down a chain: found out
    tables          special functions have no model of their bits: listed
    sdpa            not bits but a bound, see ``bound_ratio``

Wrong models, for the evidence that these comparisons can fail, are in ``wrong``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accelsim.numerics.attention import AttentionOrder, attention_bound, exact_attention
from accelsim.numerics.orders import order_of
from accelsim.numerics.rules import EmulatedFp8, Rule, TensorCoreRule
from accelsim.numerics.tensor_core import parts_of_codes

from . import replay
from .cases import ATTENTION_ORDER, CASTS, Case, arithmetic_of
from .golden import Golden
from .inputs import Codes
from .operands import Operands, chosen, output_dtype, output_shape, spread

Outputs = Callable[[Operands], Codes]


@dataclass(frozen=True)
class Plan:
    """One way to compute a case; ``outputs`` None: there is none, for a ``reason``.

    ``corner`` names a setting of the step that is not the model's: where it alone gives the
    recorded bits, the model is wrong, and this is what would mend it.
    """

    rule: str
    outputs: Outputs | None
    required: bool = True
    reason: str = ""
    corner: str = ""


def of(case: Case, capability: str, notes: Mapping[str, Any]) -> list[Plan]:
    """The plans of a case, the likeliest first; never empty."""
    if case.kernel in ("unary", "sweep_unary"):
        why = "special functions have no model of their bits"
        return [Plan(case.values, None, False, why)]
    if case.kernel == "sdpa":
        return [Plan("bound", None, False, "judged by its bound")]
    if case.kernel == "cast":
        return [Plan(f"RNE to {case.out}", lambda given: replay.cast(case, given))]
    if not arithmetic_of(capability, case):
        why = f"the {case.arithmetic} unit of capability {capability} has no model here"
        return [Plan("none", None, False, why)]
    match case.kernel:
        case "mma" | "wgmma":
            return instruction_plans(case, capability)
        case "sparse":
            return sparse_plans(case, capability)
        case "attention":
            tag = f"{arithmetic_of(capability, case)}; {case.order}"
            return [Plan(tag, lambda given: replay.fused_attention(case, capability, given))]
        case "cusparselt":
            return _chained_sparse_plans(case, capability)
        case "cublaslt":
            return _recorded_plans(case, capability, notes)
        case "scaled_mm" | "scaled_mm_fast":
            first = "chain" if case.kernel.endswith("fast") else "promote:128"
            tags = sorted(("chain", "promote:128"), key=lambda tag: tag != first)
            return [_product_plan(case, capability, tag, False) for tag in tags]
        case "int_mm":
            return [_product_plan(case, capability, "chain", True)]
    return [_product_plan(case, capability, case.order, True)]


CORNERS: dict[str, Any] = {
    "zero_products": True, "signed_underflow": False, "normalizes_c": True,
    "zero_c_exponent": None, "least_exponent": -126,
}  # fmt: skip
"""Settings of a step on which published models differ, where they are not the model's."""
LEAST_OF_FP16 = -21


def instruction_plans(case: Case, capability: str) -> list[Plan]:
    """The model, then the model with one corner set otherwise."""
    rule = replay.rule_of(case, capability)
    plans = [Plan(rule.tag, _instructions_by(case, rule))]
    if not isinstance(rule, TensorCoreRule):
        return plans
    others = (("least_exponent", -133), ("least_exponent", LEAST_OF_FP16))
    for name, value in (*CORNERS.items(), *others):
        changes: dict[str, Any] = {name: value}
        other = replace(rule, step=replace(rule.step, **changes))
        text = f"{name} = {value}"
        plans.append(Plan(f"{rule.tag}, {text}", _instructions_by(case, other), corner=text))
    return plans


def arithmetic_known(case: Case, capability: str) -> bool:
    """Whether the unit that a case ran on has a model here."""
    return bool(case.kernel == "cast" or arithmetic_of(capability, case))


def _product_plan(case: Case, capability: str, tag: str, required: bool, why: str = "") -> Plan:
    rule = replay.rule_of(case, capability, tag)
    text = "found out, not declared" if not required and not why else why
    return Plan(
        f"{rule.tag}, {tag}", lambda given: replay.matrix_product(case, rule, given), required, text
    )


# --- cuBLASLt

NVJET, INPLACE, COMPUTE_TYPE, OUTPUT_TYPE = 66, 1, 2, 4
GRAIN = 64
"""Slices of nvjet's split-K on 16-bit operands are whole multiples of it."""


def _recorded_plans(case: Case, capability: str, notes: Mapping[str, Any]) -> list[Plan]:
    """What the recorded algorithm says about the order."""
    found = notes.get("configuration", {})
    slices, number = int(found.get("split_k", 1)), found.get("algorithm")
    known = number == NVJET
    why = f"cuBLASLt's algorithm {number}, split_k {slices}"
    if slices <= 1:
        return [_product_plan(case, capability, "chain", known, why)]
    merges = {
        COMPUTE_TYPE: f"split:{slices}:{GRAIN}:forward:fp32",
        OUTPUT_TYPE: f"split:{slices}:{GRAIN}:forward:{case.out}",
        INPLACE: f"split:{slices}:{GRAIN}:serial:{case.out}",
    }
    scheme = int(found.get("reduction", 0))
    if case.k % GRAIN:
        return [Plan("split-K", None, False, f"{why}: a tail of k may be dropped")]
    tags = sorted(merges.values(), key=lambda tag: tag != merges.get(scheme))
    return [
        _product_plan(case, capability, tag, known and tag == merges.get(scheme), why)
        for tag in tags
    ]


# --- 2:4 sparsity


def sparse_plans(case: Case, capability: str) -> list[Plan]:
    """One step on the selected products, or two on half of them each."""
    rule = replay.rule_of(replace(case, order="chain", kernel="mma"), capability)
    if not isinstance(rule, TensorCoreRule):
        dense = replace(case, kernel="mma")
        return [Plan(rule.tag, lambda given: replay.instruction(dense, rule, _dense(given)))]
    products = case.k // 2

    def stepped(count: int) -> Outputs:
        step = replace(rule.step, products=count)
        return lambda given: _selected(case, replace(rule, step=step), given)

    words = {1: "1 step", 2: "2 steps"}
    return [
        Plan(f"{words[n]} of {products // n} selected products, {rule.tag}", stepped(products // n))
        for n in words
    ]


def _dense(given: Operands) -> Operands:
    return {**given, "a": spread(given["a"], given["pairs"])}


def _selected(case: Case, rule: TensorCoreRule, given: Operands) -> Codes:
    """Instructions whose b is gathered by the metadata of each row."""
    at = chosen(given["pairs"])[:, :, None, :]
    b = np.take_along_axis(np.repeat(given["b"][:, None], case.m, axis=1), at, axis=-1)
    a = np.repeat(given["a"][:, :, None], case.n, axis=2)
    half = case.k // 2
    found = replay.dots(case, rule, a.reshape(-1, half), b.reshape(-1, half),
                        given["c"].reshape(-1))  # fmt: skip
    return found.reshape(output_shape(case)).astype(output_dtype(case))


def _chained_sparse_plans(case: Case, capability: str) -> list[Plan]:
    """Whole sparse products: steps of selected products in ascending k."""
    if case.out == "int32":
        rule = replay.rule_of(case, capability, "chain")
        return [Plan(rule.tag, lambda given: replay.matrix_product(case, rule, _dense(given)))]
    base = replay.rule_of(case, capability, "chain")
    assert isinstance(base, TensorCoreRule)

    def chained(count: int) -> Outputs:
        rule = replace(base, step=replace(base.step, products=count))
        return lambda given: _sparse_product(case, rule, given)

    whole = base.step.products
    return [
        Plan(f"steps of {count} selected products, {base.tag}", chained(count), False,
             "found out, not declared")
        for count in (whole, whole // 2)
    ]  # fmt: skip


def _sparse_product(case: Case, rule: TensorCoreRule, given: Operands) -> Codes:
    """Row by row of a, whose kept k are its own."""
    fmt_a, fmt_b = rule.a, rule.b
    left = parts_of_codes(fmt_a, given["a"])
    right = parts_of_codes(fmt_b, given["b"])
    kept = chosen(given["pairs"])
    bits = np.zeros((case.m, case.n), dtype=np.uint32)
    for row in range(case.m):
        one = replace(
            left, significand=left.significand[row : row + 1], exponent=left.exponent[row : row + 1]
        )
        bits[row] = rule.step.multiply(one, right.columns(kept[row]), bits[row : row + 1])[0]
    sums = bits.view(np.float32)
    from accelsim.numerics.formats import number_format

    return replay.words(number_format(case.out), sums).astype(output_dtype(case))


# --- attention of a library, by its bound


def bound_ratio(case: Case, capability: str, golden: Golden) -> float:
    """The largest |recorded - exact| / bound of the stored outputs of an attention."""
    from .golden import positions

    given = replay.given_of(golden, case)
    q, k, v = (replay.values(case.a, given[name]) for name in ("q", "k", "v"))
    order = AttentionOrder(arithmetic_of(capability, case), case.a, order_of(ATTENTION_ORDER))
    at = positions(case.name, case.count)
    exact = exact_attention(q, k, v, replay.SCALE).reshape(-1)[at]
    bound = attention_bound(q, k, v, replay.SCALE, order).reshape(-1)[at]
    # The result is stored in 16 bits: half of its last place, or of a subnormal's.
    bound = bound + np.maximum((np.abs(exact) + bound) * 2.0**-11, 2.0**-25)
    got = replay.values(case.out, golden.kept).astype(np.float64)
    return float((np.abs(got - exact) / bound).max())


# --- special functions

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "ex2": np.exp2, "rcp": lambda x: 1 / x, "rsqrt": lambda x: 1 / np.sqrt(x), "lg2": np.log2,
    "tanh": np.tanh,
}  # fmt: skip


def ulps_off(name: str, words: Codes, found: Codes) -> float:
    """The largest error of a special function, in units of the exact result's last place.

    Results below the last place of one half count in that: a logarithm near zero is absolute.
    """
    exact = FUNCTIONS[name](words.view(np.float32).astype(np.float64))
    got = found.view(np.float32).astype(np.float64)
    ulp = np.exp2(np.floor(np.log2(np.maximum(np.abs(exact), 0.25))) - 23)
    return float((np.abs(got - exact) / ulp).max())


# --- wrong models


def wrong(case: Case, capability: str) -> Iterator[tuple[str, Outputs]]:
    """Models that differ from a case's in one thing, wherever its operands can tell."""
    if case.values == "integers" or case.out == "int32":
        return  # order-free: every order gives these bits
    match case.kernel:
        case "mma" | "wgmma":
            rule = replay.rule_of(case, capability)
            for what, other in wrong_rules(rule, case.k):
                yield what, _instructions_by(case, other)
        case "attention":
            for what, tag in wrong_attention(case.order):
                yield what, _attention_by(case, capability, tag)
        case "gemv":
            for lanes in (16, 64):
                yield f"{lanes} lanes", _product_by(case, capability, f"lanes:{lanes}")
        case "gemm":
            yield from _wrong_products(case, capability)
        case "cast" if case.out in CASTS:
            yield "RZ for RNE", lambda given: replay.cast(case, given, "RZ")


def _instructions_by(case: Case, rule: Rule) -> Outputs:
    return lambda given: replay.instruction(case, rule, given)


def _product_by(case: Case, capability: str, tag: str) -> Outputs:
    rule = replay.rule_of(case, capability, tag)
    return lambda given: replay.matrix_product(case, rule, given)


def _matrices_by(case: Case, rule: Rule) -> Outputs:
    return lambda given: replay.matrix_product(case, rule, given)


def _attention_by(case: Case, capability: str, tag: str) -> Outputs:
    return lambda given: replay.fused_attention(case, capability, given, tag)


def wrong_rules(rule: Rule, k: int) -> Iterator[tuple[str, Rule]]:
    """F one off, half of K, the other rounding; an emulation that begins with C."""
    from ..tensor_cores import wrong_emulations, wrong_steps

    if isinstance(rule, EmulatedFp8):
        yield from wrong_emulations(rule).items()
    elif isinstance(rule, TensorCoreRule):
        for what, step in wrong_steps(rule.step, k).items():
            yield what, replace(rule, step=step)


def wrong_attention(tag: str) -> Iterator[tuple[str, str]]:
    """Orders of attention that differ in one word."""
    for what, old, new in (
        ("blocks of 32 keys", "online:64", "online:32"),
        ("sums by 8 lanes", "fp32:4", "fp32:8"),
        ("sums of fp16", "sums:fp32", "sums:fp16"),
        ("a reciprocal", "divide", "reciprocal"),
    ):
        yield what, tag.replace(old, new)


def _wrong_products(case: Case, capability: str) -> Iterator[tuple[str, Outputs]]:
    rule = replay.rule_of(replace(case, order="chain"), capability)
    if case.order != "chain":
        yield "one chain", _product_by(case, capability, "chain")
    if case.order.startswith("split"):
        yield "merged backwards", lambda given: merged_backwards(case, rule, given)
    if case.order == "chain":
        for what, other in wrong_rules(rule, case.k):
            yield what, _matrices_by(case, other)


def merged_backwards(case: Case, rule: Rule, given: Operands) -> Codes:
    """Split-K whose partial sums are added from the last slice to the first."""
    from accelsim.numerics.formats import number_format

    a, b = (replay.values(fmt, given[name]) for fmt, name in ((case.a, "a"), (case.b, "b")))
    held = number_format(case.order.split(":")[-1])
    total = None
    for some in reversed(case.cuts):
        ks = slice(some.start, some.stop)
        part = rule.multiply(a[:, ks], np.ascontiguousarray(b[:, ks].T), None)
        with np.errstate(all="ignore"):
            part = held.decode(held.encode(part)).astype(np.float32)
            total = part if total is None else total + part
    assert total is not None
    return replay.words(number_format(case.out), total)
