"""What is computed in memory: products of a matrix with one vector, attention, and element-wise.

gemv:m=1024,n=4096           y[m] = W[m, n] x[n]
logit:tokens=256,heads=8     scores of one query with all keys of its heads
attend:tokens=256,heads=8    the values of all tokens, weighted by the scores
attention:tokens=256,heads=8 both, with the softmax between them
add:n=4096, mul:n=4096       y[n] = a[n] + b[n], or times
relu:n=4096                  y[n] = max(a[n], 0)
mad:n=4096                   y[n] = a[n] s + t, with two scalars
ewmul:n=4096, ewadd:n=4096   as mul and add, by the names that AiM has for them
af:n=4096                    y[n] = f(a[n]), a function whose table lies in the banks
copy:n=4096                  from one bank to its neighbour
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import ClassVar

from accelsim.errors import AccelsimError, is_whole, shown, unknown

MOST = 1 << 24
LONGEST_NUMBER = 20
"""Digits of the text of a number, zeros before it included."""


class _OfWholeNumbers:
    """Fields are whole numbers from 1 to MOST, however an operator is made."""

    def __post_init__(self) -> None:
        for one in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, one.name)
            if not is_whole(value, 1, MOST):
                raise _out_of_range(type(self).__name__, one.name, value)
            object.__setattr__(self, one.name, int(value))  # numpy's, too


@dataclass(frozen=True)
class Gemv(_OfWholeNumbers):
    """y[m] = W[m, n] x[n]; W lies in memory."""

    m: int
    n: int

    @property
    def macs(self) -> int:
        return self.m * self.n


@dataclass(frozen=True)
class _OverTokens(_OfWholeNumbers):
    """A multiplication for every token and element of the heads."""

    tokens: int
    heads: int
    head_dim: int = 128

    @property
    def macs(self) -> int:
        return self.tokens * self.heads * self.head_dim


@dataclass(frozen=True)
class Logit(_OverTokens):
    """Scores of one query vector per head with the keys of ``tokens``."""


@dataclass(frozen=True)
class Attend(_OverTokens):
    """Sum of the values of ``tokens`` by their weights, for every head."""


@dataclass(frozen=True)
class Attention(_OverTokens):
    """Logit, softmax and attend of ``heads`` (heads times requests) in one stack."""

    bytes: int = 2

    @property
    def macs(self) -> int:
        return 2 * super().macs


@dataclass(frozen=True)
class Elementwise(_OfWholeNumbers):
    """Vectors of ``n`` elements, element by element.

    ``vectors`` of them lie in memory, the result last. ``multiplies``: each result takes a product.
    """

    n: int
    vectors: ClassVar[int] = 3
    multiplies: ClassVar[bool] = False

    @property
    def macs(self) -> int:
        return self.n if self.multiplies else 0


class Add(Elementwise):
    """Sums of two vectors."""


class Mul(Elementwise):
    """Products of two vectors."""

    multiplies = True


class Relu(Elementwise):
    """A vector with zeros for what is negative."""

    vectors = 2


class Mad(Elementwise):
    """A vector, scaled and shifted by scalars of the units."""

    vectors = 2
    multiplies = True


class Ewmul(Elementwise):
    """Products of two banks in a third one."""

    multiplies = True


class Ewadd(Elementwise):
    """Sums of two banks in a third one, formed beside the channel."""


class Af(Elementwise):
    """A function of the values in the accumulators."""

    vectors = 0


class Copy(Elementwise):
    """A bank's rows in its neighbour."""

    vectors = 2


Operator = Gemv | Logit | Attend | Attention | Elementwise

OPERATORS: dict[str, type[Operator]] = {
    "gemv": Gemv, "logit": Logit, "attend": Attend, "attention": Attention, "add": Add,
    "mul": Mul, "relu": Relu, "mad": Mad, "ewmul": Ewmul, "ewadd": Ewadd, "af": Af, "copy": Copy,
}  # fmt: skip


def refusal(family: str, operator: Operator, accepted: str) -> AccelsimError:
    """The fault of an operator that a family has no commands for."""
    return AccelsimError(
        f"{family} computes no {name_of(operator).partition(':')[0]}; accepted: {accepted}"
    )


def _out_of_range(operator: str, key: str, value: object) -> AccelsimError:
    return AccelsimError(
        f"{operator}: {key} = {shown(value)}; accepted: whole numbers from 1 to {MOST:,}"
    )


def parse(text: str) -> Operator:
    """An operator from ``NAME:key=value,...``.

    Raises:
        AccelsimError: an unknown name or key, or a value out of range.
    """
    name, _, rest = text.partition(":")
    if name not in OPERATORS:
        raise AccelsimError(unknown("PIM operator", name, OPERATORS))
    kind, values = OPERATORS[name], {}
    keys = [one.name for one in fields(kind)]
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        if key not in keys:
            raise AccelsimError(unknown(f"key of {name}", key, keys))
        if key in values:
            raise AccelsimError(f"{text}: {key} is given twice; accepted: once")
        written = value.isascii() and value.isdecimal() and len(value) < LONGEST_NUMBER
        if not written or not is_whole(int(value), 1, MOST):
            raise _out_of_range(name, key, value)
        values[key] = int(value)
    missing = [
        one.name for one in fields(kind) if one.default is MISSING and one.name not in values
    ]
    if missing:
        raise AccelsimError(
            f"{text}: a value is missing: {', '.join(missing)}; accepted: {name} with {_keys(kind)}"
        )
    return kind(**values)


def _keys(kind: type[Operator]) -> str:
    """The keys of an operator, and those that may be left out with what they are then."""
    needed = [one.name for one in fields(kind) if one.default is MISSING]
    others = [f"{one.name} ({one.default})" for one in fields(kind) if one.default is not MISSING]
    return ", ".join(needed) + (f", and if wanted {', '.join(others)}" if others else "")


def name_of(operator: Operator) -> str:
    """``NAME:key=value,...``."""
    values = ",".join(f"{key}={value}" for key, value in vars(operator).items())
    return f"{type(operator).__name__.lower()}:{values}"
