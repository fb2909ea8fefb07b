"""Which blocks there are: the built-in rooms and what plugins registered."""

from __future__ import annotations

from collections.abc import Mapping

# Importing a room registers its blocks.
from accelsim.hw import (  # noqa: F401
    adder_array,
    cache,
    decoder,
    dma,
    link,
    memory,
    pruner,
    sequencer,
    simt,
    sparse_systolic,
    sram,
    stream,
    systolic,
    tensor_core,
    vector,
)
from accelsim.hw.block import BLOCKS, Block
from accelsim.hw.dram import block as dram_block  # noqa: F401
from accelsim.hw.noc import kinds  # noqa: F401
from accelsim.hw.pim import memory as pim_memory  # noqa: F401
from accelsim.hw.pim import unit as pim_unit  # noqa: F401


def block_kinds() -> Mapping[str, type[Block]]:
    """Every registered block class, by the kind that architecture files name it by."""
    return BLOCKS
