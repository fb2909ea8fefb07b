"""Arithmetic on addresses that the compiled caches need: hashes, masks, a random number."""

from accelsim._jit import njit

PLAIN, XOR, SUM = range(3)  # hashes of banks, in the order of ``BankHash``


@njit
def cut_sectors(at: int, stop: int, start: int, sector_bits: int) -> int:
    """The sectors of a line from ``start`` that bytes ``at`` to ``stop`` cover only in part."""
    cut = 0
    if at & ((1 << sector_bits) - 1):
        cut |= 1 << ((at - start) >> sector_bits)
    if stop & ((1 << sector_bits) - 1):
        cut |= 1 << ((stop - start) >> sector_bits)
    return cut


@njit
def fold(high: int, banks: int, hashed: int) -> int:
    """The digits of a line number above its lowest, in base ``banks``, XORed or added."""
    fold = 0
    if hashed == XOR:
        while high > 0:
            fold ^= high % banks
            high //= banks
    elif hashed == SUM:
        while high > 0:
            fold += high % banks
            high //= banks
        fold %= banks
    return fold


@njit
def xorshift(x: int) -> int:
    """xorshift32 (Marsaglia, Xorshift RNGs, J. Stat. Softw. 8(14), 2003)."""
    x ^= (x << 13) & 0xFFFFFFFF
    x ^= x >> 17
    x ^= (x << 5) & 0xFFFFFFFF
    return x


@njit
def ones(mask: int) -> int:
    ones = 0
    while mask:
        mask &= mask - 1
        ones += 1
    return ones
