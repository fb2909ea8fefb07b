"""Accuracy studies: what formats and accumulators do to a matrix product or an attention.

import accelsim as xs

study = xs.numerics.compare(
    formats=["bf16", "fp8_e4m3"],
    accumulators=["hopper-wgmma", "hopper-wgmma;promote:128", "exact"],
    data=xs.numerics.sample("positive", m=64, n=64, k=4096),
)
print(study)
study.figure().show()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError, unknown
from accelsim.numerics import bounds
from accelsim.numerics.arithmetic import ProductTypes, arithmetic
from accelsim.numerics.attention import (
    TILE,
    AttentionOrder,
    attention,
    attention_bound,
    exact_attention,
)
from accelsim.numerics.blocks import BLOCK_FORMATS, Blocks
from accelsim.numerics.formats import FORMATS, Format, number_format
from accelsim.numerics.orders import CHAIN, Online, Order, order_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Floats = npt.NDArray[np.float64]

EXACT = "exact"
"""The accumulator that errs nowhere: only the formats are judged."""

_SAMPLES: dict[str, Callable[[Floats], Floats]] = {
    "normal": lambda x: x,
    "positive": np.abs,
    "outliers": lambda x: x * np.where(np.arange(x.shape[-1]) % 64 == 0, 32.0, 1.0),
}


def sample(kind: str = "normal", *, m: int, n: int, k: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Operands a [m, k] and b [k, n]: "normal", "positive" (their sizes) or "outliers" (one k in 64
    is 32 times as large, as activations of language models are)."""
    if kind not in _SAMPLES:
        raise AccelsimError(unknown("kind of data", kind, _SAMPLES))
    if min(m, n, k) < 1:
        raise AccelsimError(f"data need dimensions of at least 1, not m={m}, n={n}, k={k}")
    rng = np.random.Generator(np.random.PCG64(seed))
    a, b = rng.standard_normal((m, k)), rng.standard_normal((n, k))
    return _SAMPLES[kind](a), np.ascontiguousarray(_SAMPLES[kind](b).T)


@dataclass(frozen=True)
class Case:
    """One format with one accumulator.

    ``errors`` are (computed - exact) / S of every element, S = sum |a||b| (for an attention the
    weighted sum of |v|), against the operands before they were rounded; ``own`` the same against
    the rounded operands, which is what the accumulator did. ``bound`` is the largest
    |own error| / derived bound, NaN if none is known. ``arithmetic`` says what was computed.
    """

    format: str
    accumulator: str
    arithmetic: str
    errors: Floats
    own: Floats
    bound: float

    @property
    def bias(self) -> float:
        """Mean error: below zero, results come out low (where they are positive)."""
        return float(self.errors.mean())

    @property
    def rms(self) -> float:
        """Root of the mean squared error."""
        return float(np.sqrt((self.errors**2).mean()))

    @property
    def worst(self) -> float:
        """The largest error in size."""
        return float(np.abs(self.errors).max())


@dataclass(frozen=True)
class Study:
    """Cases of a comparison; ``refused`` says which combinations no unit has, and why."""

    what: str
    cases: tuple[Case, ...]
    refused: tuple[str, ...] = ()

    def case(self, format: str, accumulator: str) -> Case:
        """One case by name; raises AccelsimError naming those there are."""
        for one in self.cases:
            if (one.format, one.accumulator) == (format, accumulator):
                return one
        known = ", ".join(f"{one.format} with {one.accumulator}" for one in self.cases)
        raise AccelsimError(f"no case of {format} with {accumulator}; there are: {known}")

    def table(self) -> list[dict[str, Any]]:
        """A row of numbers per case, for a data frame."""
        return [
            {
                "format": one.format,
                "accumulator": one.accumulator,
                "bias": one.bias,
                "rms": one.rms,
                "worst": one.worst,
                "accumulator_bias": float(one.own.mean()),
                "accumulator_rms": float(np.sqrt((one.own**2).mean())),
                "max_error_over_bound": one.bound,
            }
            for one in self.cases
        ]

    def __str__(self) -> str:
        head = (
            f"{'format':14}{'accumulator':30}{'bias':>11}{'rms':>11}{'worst':>11}{'of bound':>10}"
        )
        lines = [f"{self.what}: error / sum |a||b|", head]
        for one in self.cases:
            near = "-" if np.isnan(one.bound) else f"{one.bound:.2g}"
            lines.append(
                f"{one.format:14}{one.accumulator:30}{one.bias:11.2e}{one.rms:11.2e}"
                f"{one.worst:11.2e}{near:>10}"
            )
        return "\n".join([*lines, *(f"refused: {reason}" for reason in self.refused)])

    def figure(self) -> Figure:
        """The distribution of |error| / S of every case, as plotly boxes on a logarithmic axis."""
        from plotly.graph_objects import Box
        from plotly.graph_objects import Figure as Drawing

        fig = Drawing()
        for one in self.cases:
            sizes = np.abs(one.errors).ravel()
            # Zero has no logarithm; errors that small are drawn at the foot.
            sizes = np.maximum(sizes, 2.0**-60)
            label = f"{one.format}<br>{one.accumulator.replace(';', '<br>')}"
            text = f"bias {one.bias:.2e}, {one.arithmetic}"
            fig.add_trace(Box(y=sizes, name=label, boxpoints=False, hovertext=text))
        fig.update_layout(
            title=f"Errors of {self.what}",
            template="plotly_white",
            showlegend=False,
            yaxis={"title": "|error| / sum |a||b|", "type": "log", "exponentformat": "power"},
        )
        return fig


def compare(
    formats: str | Sequence[str],
    accumulators: str | Sequence[str],
    data: Sequence[npt.ArrayLike],
) -> Study:
    """Error distributions of one computation under every format and accumulator.

    ``formats`` are number formats or block formats (mxfp8_e4m3, nvfp4, ...), one or several;
    ``accumulators`` are written UNIT[/FORMAT][;ORDER]: a unit by the name of its arithmetic, the
    format of its sums if that is not fp32 ("ampere-mma/fp16"), and an order if it is not one chain
    ("hopper-wgmma;promote:128"); or "exact". ``data`` is (a [m, k], b [k, n]) for a matrix product
    or (q, k, v), [rows, d] each, for an attention with scale 1 / sqrt(d). Results are as they leave
    the accumulator.

    Floating-point formats hold the data as they are, saturated. Integers hold round(x / s) with one
    scale s = max |x| / largest integer for a whole tensor, symmetric; sums of products are
    multiplied by both scales in float64.

    Raises AccelsimError for unknown names, for data of other shapes, or if no unit has any of the
    combinations.
    """
    formats = _names("formats", formats, "bf16")
    accumulators = _names("accumulators", accumulators, "hopper-wgmma")
    arrays = [_numbers(x) for x in data]
    _check(arrays)
    run = _product if len(arrays) == 2 else _attention
    for name in formats:
        if name not in FORMATS and name not in BLOCK_FORMATS:
            raise AccelsimError(unknown("format", name, [*FORMATS, *BLOCK_FORMATS]))
        if name in FORMATS and FORMATS[name].is_scale:
            raise AccelsimError(f"{name} is a format of scales, not of operands")
    for name in accumulators:
        if name != EXACT:
            Accumulator.read(name)
    cases, refused = [], []
    for fmt in formats:
        for accumulator in accumulators:
            try:
                cases.append(run(fmt, accumulator, arrays))
            except AccelsimError as reason:
                refused.append(str(reason))
    if not cases:
        raise AccelsimError(refused[0] if refused else "nothing to compare: name formats and units")
    shapes = " x ".join(str(list(x.shape)) for x in arrays)
    kind = "a matrix product" if len(arrays) == 2 else "an attention"
    return Study(f"{kind}, {shapes}", tuple(cases), tuple(dict.fromkeys(refused)))


@dataclass(frozen=True)
class Accumulator:
    """What UNIT[/FORMAT][;ORDER] names; ``sums`` "" is the usual format of sums."""

    unit: str
    sums: str
    tag: str

    @classmethod
    def read(cls, text: str) -> Accumulator:
        """Raises AccelsimError for a unit, a format or an order that there is not."""
        head, _, tag = text.partition(";")
        unit, slash, sums = head.partition("/")
        arithmetic(unit)
        if slash:
            number_format(sums)
        return cls(unit, sums, tag)

    @property
    def order(self) -> Order:
        return order_of(self.tag)

    def types(self, fmt: Format) -> ProductTypes:
        """The formats of a product of operands in ``fmt``."""
        usual = "int32" if fmt.is_integer else ("fp64" if fmt.name == "fp64" else "fp32")
        return ProductTypes(fmt, fmt, number_format(self.sums or usual))

    def only_fp32(self, what: str) -> None:
        """Refuse another format of sums."""
        if self.sums not in ("", "fp32"):
            raise AccelsimError(f"{what} is summed in fp32 by {self.unit}, not in {self.sums}")


def _names(what: str, given: str | Sequence[str], example: str) -> tuple[str, ...]:
    """One name or several."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise AccelsimError(f"{what} are names, e.g. {example!r} or [{example!r}], not {given!r}")
    return tuple(names)


def _numbers(values: npt.ArrayLike) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as fault:
        raise AccelsimError(f"data hold no numbers: {fault}") from None


def _check(arrays: list[Floats]) -> None:
    ok = len(arrays) in (2, 3) and all(x.ndim == 2 and x.size for x in arrays)
    if ok and len(arrays) == 2:
        ok = arrays[0].shape[1] == arrays[1].shape[0]
    elif ok:
        ok = arrays[0].shape[1] == arrays[1].shape[1] and len(arrays[1]) == len(arrays[2])
    if not ok:
        shapes = ", ".join(str(list(x.shape)) for x in arrays)
        raise AccelsimError(
            f"data of shapes {shapes}; accepted: a [m, k] and b [k, n], or q, k and v [rows, d]"
        )
    if not all(np.isfinite(x).all() for x in arrays):
        raise AccelsimError("data hold NaN or infinities; accepted: finite numbers")


def _product(fmt: str, accumulator: str, arrays: list[Floats]) -> Case:
    a, b = arrays
    exact, size = a @ b, np.abs(a) @ np.abs(b)
    size = np.where(size > 0, size, 1.0)
    if fmt in BLOCK_FORMATS:
        blocks = [BLOCK_FORMATS[fmt].quantize(x) for x in (a, b.T)]
        own = blocks[0].dequantize() @ blocks[1].dequantize().T
        got, near, told = own, float("nan"), EXACT
        if accumulator != EXACT:
            got, told = _scaled_product(fmt, accumulator, blocks)
    else:
        got, own, near, told = _plain_product(number_format(fmt), accumulator, a, b)
    return Case(fmt, accumulator, told, (got - exact) / size, (got - own) / size, near)


def _plain_product(
    fmt: Format, accumulator: str, a: Floats, b: Floats
) -> tuple[Floats, Floats, float, str]:
    """(computed, exact product of the rounded operands, error / bound, arithmetic in words)."""
    scales = [_scale(fmt, x) for x in (a, b)]
    scale = scales[0] * scales[1]
    held = [
        fmt.decode(fmt.encode(x / s, overflow="saturate"))
        for x, s in zip((a, b), scales, strict=True)
    ]
    wide = [x.astype(np.float64) for x in held]
    own = wide[0] @ wide[1] * scale
    if accumulator == EXACT:
        return own, own, float("nan"), EXACT
    how = Accumulator.read(accumulator)
    unit, types = arithmetic(how.unit), how.types(fmt)
    rule = unit.reduction(types, how.order, a.shape[1])
    got = rule.multiply(held[0], held[1], None).astype(np.float64) * scale
    told = f"{unit.rule(types).tag}; {how.tag or CHAIN}"
    if fmt.is_integer:
        return got, own, float("nan"), f"{told}; one scale for each tensor"
    ratio = np.abs(got - own) / bounds.product(wide[0], wide[1], rule)
    return got, own, float(ratio.max()), told


def _scale(fmt: Format, x: Floats) -> float:
    """What an integer of 1 stands for in a tensor; floating point is not scaled."""
    if fmt.is_float:
        return 1.0
    if fmt.low == 0 and x.min() < 0:
        raise AccelsimError(f"{fmt.name} holds no negative numbers, which the data have")
    return float(np.abs(x).max() / fmt.high) or 1.0


def _scaled_product(fmt: str, accumulator: str, blocks: list[Blocks]) -> tuple[Floats, str]:
    """A product of operands in blocks by a unit that takes their scales."""
    how = Accumulator.read(accumulator)
    rule = arithmetic(how.unit).scaled_rule(fmt)
    how.only_fp32(fmt)
    if how.order != CHAIN:
        raise AccelsimError(f"{fmt} is modelled in one chain only, not in {how.tag}")
    return rule.multiply(*blocks).astype(np.float64), f"{rule.tag}, no capture at hand"


def _attention(fmt: str, accumulator: str, arrays: list[Floats]) -> Case:
    scale = arrays[0].shape[1] ** -0.5
    if fmt in BLOCK_FORMATS or number_format(fmt).is_integer:
        raise AccelsimError(f"attention is not compared in {fmt}: take a floating-point format")
    one = number_format(fmt)
    held = [one.decode(one.encode(x, overflow="saturate")) for x in arrays]
    q, k, v = held
    exact = exact_attention(arrays[0], arrays[1], arrays[2], scale)
    own = exact_attention(q, k, v, scale)
    size = exact_attention(arrays[0], arrays[1], np.abs(arrays[2]), scale)
    near, told = float("nan"), "exact"
    if accumulator == EXACT:
        got = own
    else:
        how = Accumulator.read(accumulator)
        how.only_fp32("an attention")
        online = how.order.online or Online(TILE)
        order = AttentionOrder(how.unit, fmt, replace(how.order, online=online))
        got, told = attention(q, k, v, scale, order).astype(np.float64), str(order)
        near = float((np.abs(got - own) / attention_bound(q, k, v, scale, order)).max())
    return Case(fmt, accumulator, told, (got - exact) / size, (got - own) / size, near)
