"""Functions of all 2^32 words of fp32, kept as digests of blocks of them.

A block's digest is the sum modulo 2^64 of one mix of every (word, result), so that threads may add
in any order and a wrong result anywhere changes it.
"""

from __future__ import annotations

import numpy as np

from accelsim.numerics.splitmix import key_of, mixed, splitmix64

from .cases import Case
from .inputs import LAYOUTS, Codes
from .operands import Ints

WORDS = 1 << 32
DRAWN = 3
"""Blocks that a replay computes again, beside those of a format's edges."""


def stride(case: Case) -> int:
    """From the first word of a block to that of the next."""
    return WORDS // case.m


def block_words(case: Case, block: int) -> Codes:
    """The words of a block."""
    return np.arange(case.k, dtype=np.uint32) + np.uint32(block * stride(case))


def digest_of(words: Codes, results: Codes) -> int:
    """The digest of some words and their results."""
    pairs = words.astype(np.uint64) << np.uint64(32) | results.astype(np.uint64)
    return int(mixed(pairs).sum(dtype=np.uint64))


def replayed_blocks(case: Case) -> Ints:
    """Blocks that are computed again: around the least and the largest number of a cast's format,
    and seeded ones."""
    drawn = splitmix64(key_of(f"{case.name}:blocks"), DRAWN) % np.uint64(case.m)
    layout = LAYOUTS[case.out]
    least = 1 - layout.bias - layout.mantissa_bits
    edges = [(exponent + 127) << 23 for exponent in (least - 1, 1 - layout.bias, layout.bias)]
    at = [max(edge, 0) // stride(case) for edge in edges]
    return np.unique(np.concatenate([drawn.astype(np.int64), np.array(at, dtype=np.int64)]))
