"""Random bits that are the same on every machine and with every version of numpy."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]


def splitmix64(key: int, count: int, first: int = 0) -> Words:
    """``count`` words of 64 random bits from a key, beginning with word ``first``.

    Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    counter = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    return mixed(counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key))


def mixed(words: Words) -> Words:
    """Each word of 64 bits as another: the last step of splitmix64."""
    z = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def key_of(text: str) -> int:
    """A key of 64 bits from a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniforms(text: str, count: int) -> npt.NDArray[np.float64]:
    """``count`` numbers strictly between 0 and 1, 53 random bits each, from the key of a text."""
    words = splitmix64(key_of(text), count) >> np.uint64(11)
    return (words.astype(np.float64) + 0.5) * 2.0**-53
