"""Products whose weights are pruned alike for all outputs: layer-wise N:M sparsity.

Of every M steps of the reduction the first N are kept, the same ones for every column of the
weight, so that what is left is a dense product of fewer rows:

    k' = floor(k / M) N + min(N, k mod M)

The weight holds only these rows, and the same columns of the activations are multiplied. This is
what SCALE-Sim v3 simulates for the N:M column of a topology (SparsitySupport, not row-wise). Where
every column keeps values of its own, see the encodings of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from accelsim.errors import AccelsimError
from accelsim.workload._words import shown
from accelsim.workload.matrix_operators import Conv2d, Gemm
from accelsim.workload.operator_base import Operator
from accelsim.workload.tensors import Shape

LAYER_WISE = ":layer"
_PATTERN = re.compile(r"(\d{1,9})\s*:\s*(\d{1,9})")


@dataclass(frozen=True)
class KeptSteps:
    """The first ``kept`` of every ``group`` steps of a reduction of length ``whole``."""

    kept: int
    group: int
    whole: int

    @property
    def length(self) -> int:
        """How many steps are kept."""
        full, rest = divmod(self.whole, self.group)
        return full * self.kept + min(self.kept, rest)

    def runs(self, steps: slice) -> Iterator[tuple[slice, slice]]:
        """(kept steps, where they are in the whole reduction) run by run, for some kept steps."""
        first = steps.start
        while first < steps.stop:
            block, offset = divmod(first, self.kept)
            last = min(steps.stop, (block + 1) * self.kept)
            begin = block * self.group + offset
            yield slice(first, last), slice(begin, begin + last - first)
            first = last


class LayerSparse(Operator):
    """What products with layer-wise sparsity have in common: ``kept`` of every ``group``."""

    kept: int
    group: int

    @property
    def pattern(self) -> str:
        """The pattern as text, N:M."""
        return f"{self.kept}:{self.group}"

    def check_pattern(self) -> None:
        """Raise AccelsimError where more would be kept than there is."""
        if self.kept > self.group:
            raise self.error(f"sparsity {self.pattern}; accepted: N:M with 1 <= N <= M")


@dataclass(frozen=True)
class LayerSparseGemm(Gemm, LayerSparse):
    """A matrix product whose b has only k' of k rows; a has all its columns.

    Shapes as of a Gemm, but b is [k', n] or, with `transpose_b`, [n, k'].
    """

    kept: int = 1
    group: int = 1

    kind: ClassVar[str] = "layer_sparse_gemm"
    dimensions: ClassVar[tuple[str, ...]] = (*Gemm.dimensions, "kept", "group")

    def check_fields(self) -> None:
        super().check_fields()
        self.check_pattern()
        if self.transpose_a:
            raise self.error(f"sparsity {self.pattern} for all outputs with transpose_a")

    @property
    def steps(self) -> KeptSteps:
        """The steps of the reduction that are multiplied."""
        return KeptSteps(self.kept, self.group, self.k)

    @property
    def b_k(self) -> int:
        return self.steps.length


@dataclass(frozen=True)
class LayerSparseConv2d(Conv2d, LayerSparse):
    """A convolution whose weight has only k' of the fh fw cin / groups taps.

    Taps are counted filter row by filter row, column by column, the channels of each in order; the
    weight is [k', cout].
    """

    kept: int = 1
    group: int = 1

    kind: ClassVar[str] = "layer_sparse_conv2d"
    dimensions: ClassVar[tuple[str, ...]] = (*Conv2d.dimensions, "kept", "group")

    def check_fields(self) -> None:
        super().check_fields()
        self.check_pattern()

    @property
    def steps(self) -> KeptSteps:
        """The steps of the reduction that are multiplied."""
        return KeptSteps(self.kept, self.group, self.gemm_k)

    def input_shapes(self) -> tuple[Shape, ...]:
        image, _, *added = super().input_shapes()
        return (image, (self.steps.length, self.cout), *added)

    @property
    def macs(self) -> int:
        return self.groups * self.gemm_m * self.gemm_n * self.steps.length


def kept_steps(operator: Operator) -> KeptSteps | None:
    """The steps that a product with layer-wise sparsity multiplies; None for all others."""
    if isinstance(operator, LayerSparse):
        return cast("LayerSparseGemm | LayerSparseConv2d", operator).steps
    return None


def layer_pattern(text: str, what: str) -> tuple[int, int]:
    """(N, M) of a pattern as text.

    Raises:
        AccelsimError: naming `what`, unless it is N:M with 1 <= N <= M.
    """
    match = _PATTERN.fullmatch(text.strip())
    kept, group = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= kept <= group:
        given = text if match else shown(text)
        raise AccelsimError(f"{what} {given}; accepted: N:M with 1 <= N <= M")
    return kept, group


def layer_sparse(
    form: tuple[type[Operator], Mapping[str, Any]], pattern: tuple[int, int]
) -> tuple[type[Operator], Mapping[str, Any]]:
    """The form of a product with layer-wise sparsity; N:N leaves it as it is."""
    cls, fields = form
    kept, group = pattern
    if kept == group:
        return form
    sparse = {Gemm: LayerSparseGemm, Conv2d: LayerSparseConv2d}[cls]
    return sparse, {**fields, "kept": kept, "group": group}


def layer_wise(words: dict[str, Any], where: str) -> tuple[int, int]:
    """(N, M) of a `sparsity` written N:M:layer, which is taken out of the words; else (1, 1)."""
    text = str(words.get("sparsity") or "").strip()
    if not text.endswith(LAYER_WISE):
        return 1, 1
    words["sparsity"] = ""
    return layer_pattern(text.removesuffix(LAYER_WISE), f"{where}: sparsity")
