"""Batches of requests as serving systems hold them: how many tokens each has in its cache.

A data set is known by what is published about it: rows, mean lengths of prompts and of answers.
Lengths are taken to be log-normal, the family that fits long-tailed prompts with one more number,
the standard deviation of log(length):

    sharegpt  prompts   1.76   half of them have at most 17 tokens: sqrt(2 log(80.29 / 17))
              answers   0.63   batches seen while decoding hold 299.9 tokens per request on average
    alpaca    prompts   0.34   coefficient of variation 0.35
              answers   0.75   half of them have at most 40 tokens

A batch is looked at while it decodes. Every place of it holds a request all the time; when one ends
the next begins (continuous batching). So at a random moment a place holds a request with a
probability proportional to the answer's length, and the token being generated is any of them with
the same one. Longer answers are seen more often: a log-normal length seen like that is log-normal
with a median exp(spread^2) times as large.

Sources: Heo et al., NeuPIMs, ASPLOS 2024, section 7 (means 12/56 and 80/296 tokens), the lists of
lengths and the sampled batches published with it (rows, means, medians, mean context); Taori et
al., Alpaca, 2023; ShareGPT. The family is an assumption.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

from accelsim.errors import AccelsimError
from accelsim.workload._words import did_you_mean, listed, parse_whole, shown

SUFFIXES = (".csv", ".json")
MOST_REQUESTS = 65536


@dataclass(frozen=True)
class Lengths:
    """A log-normal number of tokens: its mean, and the standard deviation of its logarithm."""

    mean: float
    spread: float

    def tokens(self, u: float) -> int:
        """The length below which a share ``u`` of all is, at least 1."""
        middle = math.log(self.mean) - self.spread**2 / 2
        return max(1, round(math.exp(middle + self.spread * NormalDist().inv_cdf(u))))

    @property
    def by_length(self) -> Lengths:
        """The same seen with a probability proportional to the length."""
        return Lengths(self.mean * math.exp(self.spread**2), self.spread)


@dataclass(frozen=True)
class DataSet:
    """What is published about prompts and answers, with the assumed spreads."""

    name: str
    rows: int
    prompt: Lengths
    answer: Lengths

    @property
    def mean_context(self) -> float:
        """Tokens of a request seen at a random moment, on average, if no limit cuts it."""
        return self.prompt.mean + (self.answer.by_length.mean + 1) / 2


ALPACA = DataSet("Alpaca", 52_002, Lengths(12.13, 0.34), Lengths(55.76, 0.75))
SHAREGPT = DataSet("ShareGPT", 391_726, Lengths(80.29, 1.76), Lengths(294.99, 0.63))
DATA_SETS = {"alpaca": ALPACA, "sharegpt": SHAREGPT}


class Request(NamedTuple):
    """Tokens of a prompt and of the answer to it."""

    prompt: int
    answer: int


def requests(data: DataSet, count: int, seed: int = 0) -> list[Request]:
    """Rows of a data set, drawn with a seed."""
    prompt, answer = (_draws(data, what, count, seed) for what in ("prompt", "answer"))
    return [
        Request(data.prompt.tokens(p), data.answer.tokens(a))
        for p, a in zip(prompt, answer, strict=True)
    ]


def contexts(data: DataSet, count: int, seed: int, limit: int) -> tuple[int, ...]:
    """Tokens that each of ``count`` requests attends to at a random moment of decoding, the new one
    included: its prompt and a part of its answer, ``limit`` at most."""
    prompt, answer, moment = (
        _draws(data, what, count, seed) for what in ("prompt", "answer", "moment")
    )
    seen = data.answer.by_length
    return tuple(
        min(limit, data.prompt.tokens(p) + math.ceil(m * seen.tokens(a)))
        for p, a, m in zip(prompt, answer, moment, strict=True)
    )


def _draws(data: DataSet, what: str, count: int, seed: int) -> list[float]:
    """Random numbers between 0 and 1, the same on every machine."""
    from accelsim.numerics.splitmix import uniforms

    return [float(u) for u in uniforms(f"requests {data.name} {what} {seed}", count)]


def data_set(name: object, where: str) -> DataSet:
    """The data set of a name; raises AccelsimError naming the known ones."""
    if isinstance(name, str) and name in DATA_SETS:
        return DATA_SETS[name]
    hint = did_you_mean(str(name), DATA_SETS)
    raise AccelsimError(f"{where}: dataset is {shown(name)}{hint}; accepted: {listed(DATA_SETS)}")


def given_contexts(value: object, where: str) -> tuple[int, ...]:
    """Lengths as a user gives them: a list, "12+300+7", or a file.

    A file has one request per line, its length first (CSV, with or without a line of names), or is
    a JSON list.

    Raises:
        AccelsimError: no such file, no whole number, or none at all.
    """
    what = f"{where}: contexts"
    if isinstance(value, str) and value.endswith(SUFFIXES):
        entries = _read(Path(value), what)
        what = value
    elif isinstance(value, str):
        entries = value.split("+")
    else:
        entries = list(value) if isinstance(value, (list, tuple)) else [value]
    if not 0 < len(entries) <= MOST_REQUESTS:
        raise AccelsimError(f"{what}: {len(entries)} requests; accepted: 1 to {MOST_REQUESTS}")
    try:
        return tuple(parse_whole(entry, f"{what}, request {i}") for i, entry in enumerate(entries))
    except AccelsimError as fault:
        if what == value or not isinstance(value, str):
            raise
        raise AccelsimError(f"{fault}, of several requests joined by + (12+300+7)") from None


def _read(path: Path, what: str) -> Sequence[object]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise AccelsimError(
            f"{what}: cannot read {path} ({reason}); accepted: {listed(SUFFIXES)}"
        ) from None
    if path.suffix == ".csv":
        lines = [line.split(",")[0].strip() for line in text.splitlines() if line.strip()]
        return lines[1:] if lines and not lines[0].lstrip("-").isdigit() else lines
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, list):
        raise AccelsimError(f"{path}: no JSON list; accepted: [LENGTH, ...]")
    return content
