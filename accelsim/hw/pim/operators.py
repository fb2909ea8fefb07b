"""What is computed in memory: products of a matrix that lies in it with one vector, and attention.

gemv:m=1024,n=4096           y[m] = W[m, n] x[n]
logit:tokens=256,heads=8     scores of one query with all keys of its heads
attend:tokens=256,heads=8    the values of all tokens, weighted by the scores
attention:tokens=256,heads=8 both, with the softmax between them
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from accelsim.errors import AccelsimError, unknown

MOST = 1 << 24


@dataclass(frozen=True)
class Gemv:
    """y[m] = W[m, n] x[n]; W lies in memory."""

    m: int
    n: int

    @property
    def macs(self) -> int:
        return self.m * self.n


@dataclass(frozen=True)
class Logit:
    """Scores of one query vector per head with the keys of ``tokens``."""

    tokens: int
    heads: int
    head_dim: int = 128

    @property
    def macs(self) -> int:
        return self.tokens * self.heads * self.head_dim


@dataclass(frozen=True)
class Attend:
    """Sum of the values of ``tokens`` by their weights, for every head."""

    tokens: int
    heads: int
    head_dim: int = 128

    @property
    def macs(self) -> int:
        return self.tokens * self.heads * self.head_dim


@dataclass(frozen=True)
class Attention:
    """Logit, softmax and attend of ``heads`` (heads times requests) in one stack."""

    tokens: int
    heads: int
    head_dim: int = 128
    bytes: int = 2

    @property
    def macs(self) -> int:
        return 2 * self.tokens * self.heads * self.head_dim


Operator = Gemv | Logit | Attend | Attention

OPERATORS: dict[str, type[Operator]] = {
    "gemv": Gemv, "logit": Logit, "attend": Attend, "attention": Attention,
}  # fmt: skip


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
        if not value.isdecimal() or not 1 <= int(value) <= MOST:
            raise AccelsimError(
                f"{name}: {key} = {value!r}; accepted: whole numbers from 1 to {MOST:,}"
            )
        values[key] = int(value)
    try:
        return kind(**values)
    except TypeError:
        needed = ", ".join(keys)
        raise AccelsimError(f"{text}: a value is missing; accepted: {name} with {needed}") from None


def name_of(operator: Operator) -> str:
    """``NAME:key=value,...``."""
    values = ",".join(f"{key}={value}" for key, value in vars(operator).items())
    return f"{type(operator).__name__.lower()}:{values}"
