"""How weights are stored where that is not as they are computed with: pruned, coded, quantised.

Which elements of a weight are left out depends on values, which a clock does not have. N:M sparsity
has a fixed number of them, so nothing is asked. For any other pattern the *positions* are an input
of the workload, drawn from a density and a seed like the routing of experts: the lengths of coded
tiles are those of real bytes. All weights of one shape share one draw, so that layers stay
identical.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import number_format
from accelsim.workload._words import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from accelsim.encoding.encoding import Encoding
    from accelsim.workload.operators import Operator
    from accelsim.workload.tensors import Shape, TensorSpec

CODED_OPERANDS = {"gemm": 1, "grouped_gemm": 1, "conv2d": 1}
"""Kinds of operators that read a coded tensor, and as which of their inputs."""
DRAWN_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Sparsity:
    """Which elements stay: the n largest of every m along k, or (m = 0) a share ``density`` of all
    at drawn positions; ``seed`` is that of the draw."""

    n: int = 0
    m: int = 0
    density: float = 1.0
    seed: int = 0

    @property
    def share(self) -> float:
        """Share of the elements that is kept."""
        return self.n / self.m if self.m else self.density

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.m else f"{self.density:g}"

    def mask(self, lines: int, k: int) -> NDArray[np.bool_]:
        """Drawn positions [lines, k] of what is kept; do not write to it."""
        return _mask(self, lines, k)


@lru_cache(maxsize=8)
def _mask(sparsity: Sparsity, lines: int, k: int) -> NDArray[np.bool_]:
    import numpy as np

    from accelsim.numerics.pruning import keep_largest
    from accelsim.numerics.splitmix import key_of, splitmix64

    key = key_of(f"sparsity:{sparsity.seed}:{lines}x{k}")
    kept = np.empty(lines * k, dtype=bool)
    below = np.uint64(min(2**64 - 1, math.ceil(sparsity.share * 2**64)))
    step = DRAWN_AT_ONCE // (sparsity.m or 1) * (sparsity.m or 1)
    for first in range(0, lines * k, step):
        words = splitmix64(key, min(step, lines * k - first), first)
        part = kept[first : first + len(words)]
        if sparsity.m:
            part[...] = keep_largest(
                (words >> np.uint64(11)).astype(np.int64), sparsity.n, sparsity.m
            )
        else:
            part[...] = words < below
    kept.flags.writeable = False
    return kept.reshape(lines, k)


@dataclass(frozen=True)
class Coding:
    """The storage of a weight: an encoding by name, what it leaves out, and the axis (-1 or -2) of
    the weight along which a product reduces."""

    encoding: str
    sparsity: Sparsity | None
    axis: int

    @property
    def code(self) -> Encoding:
        from accelsim.encoding.encodings import encoding

        return encoding(self.encoding)

    def form(self, shape: Shape) -> tuple[int, int, int]:
        """(matrices, lines of each, depth k) of a weight."""
        sizes = self.rows(shape), shape[-1]
        return math.prod(shape[:-1]) // sizes[0], sizes[-1 - self.axis], sizes[self.axis]

    def rows(self, shape: Shape) -> int:
        """Rows of one matrix of a weight; all taps and channels of a convolution's filters."""
        return math.prod(shape[:-1]) if len(shape) == 4 else shape[-2]

    def kept(self, shape: Shape) -> NDArray[np.bool_] | None:
        """Positions [matrices * lines, k] that lengths follow from; None if the shape decides."""
        if self.code.fixed or self.sparsity is None:
            return None
        count, lines, k = self.form(shape)
        return self.sparsity.mask(count * lines, k)

    def check(self, shape: Shape, dtype: str) -> None:
        """Raise AccelsimError if weights of this shape and format cannot be stored so."""
        depth = self.form(shape)[2]
        self.code.check(depth, number_format(dtype))
        if self.sparsity and self.sparsity.m and depth % self.sparsity.m:
            m = self.sparsity.m
            raise AccelsimError(
                f"k {depth} is not a whole number of groups of {m} (sparsity {self.sparsity});"
                f" accepted: k padded with zeros to {-(-depth // m) * m}"
            )

    def nbytes(self, shape: Shape, dtype: str) -> int:
        """Bytes of a weight whose matrices are one tile each."""
        count, lines, k = self.form(shape)
        return self.code.nbytes(count * lines, k, number_format(dtype), self.kept(shape))

    def room(self, shape: Shape, dtype: str) -> int:
        """Bytes that suffice however tiles are cut."""
        count, lines, k = self.form(shape)
        fmt, kept = number_format(dtype), self.kept(shape)
        # Matrices of one weight differ in what they keep.
        parts = [None] * count if kept is None else kept.reshape(count, lines, k)
        return sum(self.code.room(lines, k, fmt, part) for part in parts)

    @property
    def share(self) -> float:
        """Share of the elements that is stored."""
        return self.sparsity.share if self.sparsity else 1.0

    def __str__(self) -> str:
        pruned = f", {self.sparsity} kept" if self.sparsity and not self.code.fixed else ""
        return f"{self.encoding}{pruned}"


def coding_of(words: dict[str, object], where: str) -> Coding | None:
    """The storage that `encoding`, `sparsity` and `sparsity_seed` describe, axis -2; None if none.

    Raises:
        AccelsimError: beginning with `where`, for words that mean nothing or do not go together.
    """
    name, asked = str(words.get("encoding") or ""), words.get("sparsity") or ""
    seed = int(str(words.get("sparsity_seed") or 0))
    if not name and not asked:
        if words.get("sparsity_seed"):
            raise AccelsimError(f"{where}: sparsity_seed without sparsity; accepted: both")
        return None
    from accelsim.encoding.encodings import encoding  # numpy: only who asks for one pays for it

    try:
        sparsity = parse_sparsity(asked, seed) if asked else None
        if not name and sparsity:
            name = f"nm:{sparsity}" if sparsity.m else "bitmap"
        code = encoding(name)
        return Coding(name, _agreed(code, sparsity), -2)
    except AccelsimError as fault:
        raise AccelsimError(f"{where}: {fault}") from None


def _agreed(code: Encoding, sparsity: Sparsity | None) -> Sparsity | None:
    """The sparsity of weights in an encoding."""
    from accelsim.encoding.nm import NofM

    if isinstance(code, NofM):
        if sparsity and (sparsity.n, sparsity.m) != (code.n, code.m):
            raise AccelsimError(
                f"sparsity {sparsity} with encoding {code.name}; accepted: {code.n}:{code.m}, or"
                " encoding bitmap"
            )
        return Sparsity(code.n, code.m)
    if code.sparse and sparsity is None:
        raise AccelsimError(
            f"encoding {code.name} without sparsity; accepted: with sparsity=, a density (0.3) or"
            " N:M (2:4)"
        )
    if sparsity and not code.sparse:
        raise AccelsimError(
            f"sparsity {sparsity} with encoding {code.name}, which leaves nothing out; accepted:"
            " without sparsity"
        )
    return sparsity


def parse_sparsity(value: object, seed: int = 0) -> Sparsity:
    """N:M or a density above 0 and at most 1, as text or number."""
    from accelsim.encoding.nm import NofM

    text = str(value).strip()
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        pattern = NofM(int(found[1]), int(found[2]))
        return Sparsity(pattern.n, pattern.m, seed=seed)
    try:
        density = float(text)
    except ValueError:
        density = math.nan
    if not 0 < density <= 1:
        raise AccelsimError(
            f"sparsity is {shown(value)}; accepted: N:M (2:4), or the density that is kept, above 0"
            " and at most 1 (0.3)"
        )
    return Sparsity(density=density, seed=seed)


def check_coded(operator: Operator, position: int, spec: TensorSpec) -> None:
    """Raise AccelsimError unless an operator can read a coded tensor as one of its inputs."""
    coding = spec.coding
    if coding is None:
        return
    if CODED_OPERANDS.get(operator.kind) != position:
        raise operator.error(
            f"reads '{spec.name}', stored as {coding}; accepted: as the weight of a product"
        )
    axis = -1 if getattr(operator, "transpose_b", False) else -2
    if coding.axis != axis:
        raise operator.error(f"reduces '{spec.name}' along another axis than it is coded along")
    try:
        coding.check(spec.shape, spec.dtype)
    except AccelsimError as fault:
        raise operator.error(f"weight '{spec.name}': {fault}") from None


def coding_assumptions(specs: list[TensorSpec]) -> tuple[str, ...]:
    """What a workload takes for granted about its coded weights, in plain words."""
    found: dict[str, None] = {}
    for spec in specs:
        coding = spec.coding
        if coding is None:
            continue
        text = f"weights stored as {coding.encoding} are coded before the run"
        if coding.sparsity and coding.code.fixed:
            text += f", pruned by magnitude to {coding.sparsity} along k"
        elif coding.sparsity:
            text += (
                f", {coding.sparsity} of their elements kept at drawn positions (seed"
                f" {coding.sparsity.seed}), one draw for each shape"
            )
        found[text] = None
    return tuple(found)
