"""Pruning by magnitude: which elements of a matrix stay when the others become zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError

Mask = npt.NDArray[np.bool_]


def keep_largest(values: npt.NDArray[Any], n: int, m: int) -> Mask:
    """The n largest magnitudes of every m neighbours along the last axis, the earlier of equals.

    Raises AccelsimError if the axis is no whole number of groups.
    """
    k = values.shape[-1]
    if k % m:
        raise AccelsimError(f"{k} values are not whole groups of {m}")
    # The magnitude of the most negative integer needs a wider type.
    wide = values.astype(np.int64 if values.dtype.kind in "iu" else np.float64)
    groups = np.abs(wide).reshape(*values.shape[:-1], k // m, m)
    order = np.argsort(-groups, axis=-1, kind="stable")
    kept = np.zeros(groups.shape, dtype=bool)
    np.put_along_axis(kept, order[..., :n], True, axis=-1)
    return kept.reshape(values.shape)
