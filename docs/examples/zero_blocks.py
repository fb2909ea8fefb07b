"""An encoding that leaves out blocks of zeros: a bit for every 8 elements along k, then the blocks
that are kept. ``accelsim --plugin FILE.py run coded-npu gemm:...,encoding=blocks,sparsity=0.1``
"""

import numpy as np

from accelsim.encoding.encoding import Content, Encoding, bytes_of, pack_elements, unpack_elements
from accelsim.encoding.encodings import Family, register_encoding

BLOCK = 8


class ZeroBlocks(Encoding):
    """One bit per block of 8, and the blocks that hold anything."""

    fixed = False
    summary = "a bit per block of 8 along k, then the blocks that are not zero"

    def __init__(self):
        super().__init__("blocks")

    @property
    def k_granule(self):
        return BLOCK

    def check(self, k, fmt):
        if k % BLOCK:
            raise self.fault(f"k {k} is not whole blocks of {BLOCK}")

    def content(self, elements, fmt, kept):
        return Content(np.where(kept, elements, np.zeros(1, elements.dtype)), kept)

    def nbytes(self, lines, k, fmt, kept=None):
        count = lines * k // BLOCK if kept is None else int(blocks(kept).any(axis=1).sum())
        return bytes_of(lines * k // BLOCK) + count * fmt.bits

    def encode(self, content, fmt):
        there = blocks(content.kept).any(axis=1)
        values = pack_elements(fmt, blocks(content.elements)[there])
        return np.concatenate([np.packbits(there, bitorder="little"), values])

    def decode(self, coded, lines, k, fmt):
        head = bytes_of(lines * k // BLOCK)
        there = np.unpackbits(coded[:head], bitorder="little")[: lines * k // BLOCK].astype(bool)
        self.expect(coded, head + int(there.sum()) * fmt.bits, f"{there.sum()} blocks")
        found = np.zeros((len(there), BLOCK), dtype=fmt.storage_dtype)
        found[there] = unpack_elements(fmt, coded[head:], there.sum() * BLOCK).reshape(-1, BLOCK)
        return found.reshape(lines, k)

    def mean_bits(self, fmt, density):
        return 1 / BLOCK + fmt.bits * (1 - (1 - density) ** BLOCK)


def blocks(matrix):
    return np.ascontiguousarray(matrix).reshape(-1, BLOCK)


register_encoding(Family("blocks", "blocks", ZeroBlocks, ZeroBlocks.summary))
