"""What the constant tensors of a workload hold: index patterns, rotary tables, ALiBi.

A constant is described, not stored, so that a graph stays small and comparable. numpy is
imported only when an array is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelsim.workload.routing import RoutedIds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from accelsim.workload.tensors import Shape


@dataclass(frozen=True)
class IndexPattern:
    """Integer ids that count through a table: entry t is start + step * (t % period).

    Position numbers, the last token of each sequence and all-zero segment ids have this form.
    """

    start: int
    step: int = 1
    period: int = 1

    def array(self, shape: Shape) -> NDArray[np.int32]:
        """The ids, int32, in the given shape."""
        import numpy as np

        index = np.arange(math.prod(shape), dtype=np.int64) % self.period
        return (self.start + self.step * index).astype(np.int32).reshape(shape)


@dataclass(frozen=True)
class IndexList:
    """Integer ids, one by one: the positions of sequences of different lengths."""

    ids: tuple[int, ...]

    def array(self, shape: Shape) -> NDArray[np.int32]:
        """The ids, int32, in the given shape."""
        import numpy as np

        return np.array(self.ids, dtype=np.int32).reshape(shape)


@dataclass(frozen=True)
class RopeScaling:
    """Stretching of the rotary frequencies for contexts beyond the trained length.

    kind "linear" divides every frequency by `factor`; kind "llama3" divides only wavelengths
    longer than original_positions / low_factor, keeps those shorter than
    original_positions / high_factor, and blends between (the Llama 3.1 rule); kind "yarn" does the
    same between two dimensions, low_factor and high_factor being the beta_slow and beta_fast of
    YaRN (Peng et al., arXiv 2309.00071, §3.2), whose `mscale` belongs to the scale of the scores.
    """

    kind: str
    factor: float
    low_factor: float = 1.0
    high_factor: float = 4.0
    original_positions: int = 8192
    mscale: float = 0.0

    def apply(self, frequencies: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scaled frequencies in radians per position, fp32."""
        import numpy as np

        if self.kind == "linear":
            return frequencies / np.float32(self.factor)
        if self.kind == "yarn":
            return self._yarn(frequencies)
        turns = self.original_positions * frequencies.astype(np.float64) / (2.0 * math.pi)
        blend = (turns - self.low_factor) / (self.high_factor - self.low_factor)
        kept = np.clip(blend, 0.0, 1.0)
        return (frequencies * ((1.0 - kept) / self.factor + kept)).astype(np.float32)

    def _yarn(self, frequencies: NDArray[np.float32]) -> NDArray[np.float32]:
        """Divided from the dimension on that turns low_factor times within the trained length, as
        they are up to the one that turns high_factor times, and blended linearly between."""
        import numpy as np

        step = -math.log(float(frequencies[1]) / float(frequencies[0]))
        turns = self.original_positions / (2.0 * math.pi)
        first = max(math.floor(math.log(turns / self.high_factor) / step), 0)
        last = min(math.ceil(math.log(turns / self.low_factor) / step), 2 * len(frequencies) - 1)
        slope = np.arange(len(frequencies)) - first
        divided = np.clip(slope / max(last - first, 0.001), 0.0, 1.0)
        return (frequencies * (divided / self.factor + 1.0 - divided)).astype(np.float32)


@dataclass(frozen=True)
class RotaryTable:
    """Cosine or sine of the rotary angles, [positions, head_dim] fp32, both halves equal.

    Row p, column i (modulo head_dim/2) is function(p * theta^(-2i/head_dim)). Frequencies and
    angles are rounded to fp32, as the published implementations do; the function is not. With
    `positions` there is a row for each of these, gathered as a kernel does that looks them up.
    """

    function: str
    theta: float
    scaling: RopeScaling | None = None
    positions: tuple[int, ...] = ()

    def array(self, shape: Shape) -> NDArray[np.float32]:
        """The table for shape (positions, head_dim)."""
        import numpy as np

        count, head_dim = shape
        positions = np.array(self.positions or range(count), dtype=np.float32)
        exponents = np.arange(0, head_dim, 2).astype(np.float32) / np.float32(head_dim)
        powers = (float(self.theta) ** exponents.astype(np.float64)).astype(np.float32)
        frequencies = np.float32(1.0) / powers
        if self.scaling is not None:
            frequencies = self.scaling.apply(frequencies)
        angles = np.outer(positions, frequencies)
        function: Any = {"cos": np.cos, "sin": np.sin}[self.function]
        half: NDArray[np.float32] = function(angles.astype(np.float64)).astype(np.float32)
        return np.concatenate([half, half], axis=1)


@dataclass(frozen=True)
class AlibiTable:
    """What ALiBi adds to a score, fp32 [heads, keys]: slope of the head times (key - last key).

    That differs from slope times (key - query) by a number per query, which softmax does not see.
    The slopes of 2^n heads are the powers 1..2^n of 2^(-8 / 2^n); further heads take every second
    of those of twice as many.

    Source: Press, Smith and Lewis, Train short, test long, ICLR 2022, section 3.
    """

    def array(self, shape: Shape) -> NDArray[np.float32]:
        """The table for shape (heads, keys)."""
        import numpy as np

        heads, keys = shape
        known = 1 << (heads.bit_length() - 1)
        powers = [2.0 ** (-8.0 * (h + 1) / known) for h in range(known)]
        powers += [2.0 ** (-8.0 * (h + 0.5) / known) for h in range(heads - known)]
        slopes = np.array(powers).astype(np.float32)
        return (slopes[:, None] * np.arange(1 - keys, 1, dtype=np.float32)).astype(np.float32)


ConstantValues = IndexPattern | IndexList | RotaryTable | RoutedIds | AlibiTable
