"""Sizes that tiles are tried in: even shares and powers of two of what suits an array."""

from __future__ import annotations

from collections.abc import Iterator


def even_share(size: int, parts: int, granule: int) -> int:
    """The largest of ``parts`` even shares of ``size``, in whole granules."""
    share = -(-size // parts)
    return -(-share // granule) * granule


def even_shares(size: int, parts: int, granule: int = 1) -> Iterator[range]:
    """Neighbouring ranges of an even share each, one for every part as far as there are some."""
    share = even_share(size, parts, granule)
    return (range(first, min(first + share, size)) for first in range(0, size, share))


def extents(dimension: int, granule: int) -> list[int]:
    """Candidate tile sizes: powers of two of the array's granule, and even shares."""
    whole = -(-dimension // granule) * granule
    sizes = {dimension}
    size = granule
    while size < dimension:
        sizes.add(size)
        size *= 2
    for parts in (2, 3, 4, 6, 8):
        share = even_share(dimension, parts, granule)
        if share < whole:
            sizes.add(share)
    return sorted(sizes)
