"""What an attention saves by keeping its scores on chip: a closed form, told with its mapping."""

from __future__ import annotations

from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import readable
from accelsim.workload.operators import Attention

FP32_BYTES = 4


def score_bytes(op: Attention, operand_bits: int) -> int:
    """Bytes that an unfused attention moves between its kernels: every score of a key that some
    query of a sequence sees, hidden ones too, is written and read once in fp32, and so is every
    weight in the format of the operands."""
    pairs = op.heads * op.q_len * sum(op.keys_read_by)
    return 2 * pairs * FP32_BYTES + 2 * (pairs * operand_bits // 8)


def saved_traffic(op: Attention, low: Lowering) -> str:
    """The sentence about it for the operator's note."""
    saved = score_bytes(op, low.format(op.inputs[0]).bits)
    return f"scores stay on chip: unfused, they and the weights would move {readable(saved)} more"
