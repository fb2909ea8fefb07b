"""What a program does, byte by byte and with every path spelled out: slow, plain, independent.

The verifier works with clocks, cells and rectangles; the oracle with sets of predecessors and one
entry per byte. It also follows what every byte stands for, so that two programs can be told apart
that are both legal but compute different things.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from accelsim.numerics.formats import FORMAT_NAMES, FORMATS, number_format
from accelsim.program.opcodes import COPIES, ISSUED, REDUCTIONS, Flag, Function, Opcode
from accelsim.program.table import Program

ENDURING = ("input", "weight", "constant", "cache")


@dataclass
class Judgement:
    """``faults`` says what is illegal (nothing: legal); ``meaning`` digests what is computed."""

    faults: list[str] = field(default_factory=list)
    meaning: str = ""

    @property
    def legal(self) -> bool:
        return not self.faults


def judge(program: Program) -> Judgement:
    """Check every rule on every byte."""
    faults = _storages(program) or _windows(program) or _shapes(program) or _multicasts(program)
    if faults:
        return Judgement(faults)
    faults = _coverage(program) + _races(program)
    return Judgement(faults, _meaning(program))


def window(program: Program, d: int) -> npt.NDArray[np.int64]:
    """Byte addresses of descriptor d, row by row."""
    _, _, base, rows, row_bytes, stride, _ = program.operands[d].tolist()
    return (base + stride * np.arange(rows)[:, None] + np.arange(row_bytes)).ravel()


def _columns(program: Program, d: int) -> int:
    fmt = FORMATS[FORMAT_NAMES[program.operands[d, 6]]]
    return int(program.operands[d, 4]) * 8 // fmt.bits


def _held(program: Program, s: int) -> npt.NDArray[np.bool_]:
    """Which bytes of a storage hold data at the start."""
    info = program.storages[s]
    held = np.full(info.nbytes, info.role in ENDURING and info.producer < 0)
    if info.role == "cache" and info.producer >= 0 and info.written:
        held[:] = ~_due(program, s)
    return held


def _due(program: Program, s: int) -> npt.NDArray[np.bool_]:
    """Which bytes of a storage its producer must write."""
    info = program.storages[s]
    due = np.zeros(info.nbytes, dtype=bool)
    if info.role != "buffer" and info.producer >= 0:
        row = info.shape[-1] * number_format(info.format).bits // 8
        for first, last in info.written or ((0, info.nbytes // row - 1),):
            due[first * row : (last + 1) * row] = True
    return due


def _storages(program: Program) -> list[str]:
    faults = []
    for info in program.storages:
        if info.nbytes < 1 or info.base + info.nbytes > program.spaces[info.space].capacity:
            faults.append(f"{info.name} does not fit")
        if info.shape:
            bits = int(np.prod(info.shape)) * number_format(info.format).bits
            if bits > 8 * info.nbytes:
                faults.append(f"{info.name} is too small for its shape")
    return faults


def _windows(program: Program) -> list[str]:
    faults = []
    for i, row in enumerate(program.instructions.tolist()):
        if any(d >= i for d in row[8:11]):
            faults.append(f"{i} waits for a later instruction")
        for d in row[11:15]:
            if d < 0:
                continue
            info = program.storages[program.operands[d, 0]]
            at = window(program, d)
            if at.min() < info.base or at.max() >= info.base + info.nbytes:
                faults.append(f"{i} reaches beyond {info.name}")
            width = number_format(info.format).bits // 8 if info.format else 1
            if info.role != "buffer" and (at[0] - info.base) % width:
                faults.append(f"{i} splits an element of {info.name}")
    return faults


def _shapes(program: Program) -> list[str]:
    faults = []
    for i, row in enumerate(program.instructions.tolist()):
        opcode, function, flags, (m, n, k) = Opcode(row[1]), row[2], row[3], row[5:8]
        shapes = [(int(program.operands[d, 3]), _columns(program, d)) for d in row[11:15] if d >= 0]
        wanted: list[tuple[int, int]] = []
        if opcode in COPIES:
            wanted = [(m, n), (m, n)]
        elif opcode == Opcode.FILL:
            wanted = [(m, n)]
        elif opcode == Opcode.MATMUL:
            a = (k, m) if flags & Flag.TRANSPOSE_A else (m, k)
            b = (n, k) if flags & Flag.TRANSPOSE_B else (k, n)
            wanted = [(m, n), a, b]
            wanted += [(m, 1)] if flags & Flag.RESCALE else []
        elif opcode == Opcode.VECTOR:
            wanted = [(m, n), (m, k) if Function(function) in REDUCTIONS else (m, n)]
            wanted += shapes[2:]
        if shapes != wanted:
            faults.append(f"{i} {opcode.name} has shapes {shapes}, not {wanted}")
    return faults


def _multicasts(program: Program) -> list[str]:
    """A MULTICAST of k is followed by k - 1 DELIVERs of the same data, to different memories."""
    faults, owed, head, reached = [], 0, 0, set[int]()
    rows = program.instructions.tolist()
    for i, row in enumerate(rows):
        opcode = Opcode(row[1])
        if opcode != Opcode.DELIVER:
            if owed:
                faults.append(f"{i} stands where multicast {head} still delivers")
            owed = 0
        if opcode == Opcode.MULTICAST:
            head, owed, reached = i, row[7] - 1, {program.operands[row[11], 1]}
            if owed < 1:
                faults.append(f"{i} is a multicast to one")
        elif opcode == Opcode.DELIVER:
            if not owed:
                faults.append(f"{i} delivers what nobody sent")
                continue
            owed -= 1
            first, space = rows[head], program.operands[row[11], 1]
            same_bytes = (program.operands[row[12]] == program.operands[first[12]]).all()
            same_format = program.operands[row[11], 6] == program.operands[first[11], 6]
            if [row[c] for c in (0, 4, 5, 6)] != [first[c] for c in (0, 4, 5, 6)]:
                faults.append(f"{i} is another transfer than {head}")
            if not (same_bytes and same_format) or space in reached:
                faults.append(f"{i} delivers something else or to the same memory again")
            if max(row[8:11]) >= 0:
                faults.append(f"{i} waits for itself")
            reached.add(space)
    return faults + (["the last multicast does not deliver"] if owed else [])


def _coverage(program: Program) -> list[str]:
    faults = []
    times = [np.zeros(info.nbytes, dtype=int) for info in program.storages]
    for i, row in enumerate(program.instructions.tolist()):
        if row[11] < 0:
            continue
        s = int(program.operands[row[11], 0])
        info = program.storages[s]
        if info.role == "buffer":
            continue
        times[s][window(program, row[11]) - info.base] += 1
        if info.producer != row[4]:
            faults.append(f"{i} writes {info.name}, which is not its operator's")
    for s, info in enumerate(program.storages):
        if info.role != "buffer" and (times[s] != _due(program, s)).any():
            faults.append(f"{info.name} is not written exactly once")
    return faults


def _predecessors(program: Program) -> tuple[list[int], list[int], list[int]]:
    """Bit sets per instruction: all that come before it, all that have finished before it, and all
    that have been issued before it, so that they have read what they do not read late."""
    before: list[int] = []
    finished: list[int] = []
    issued: list[int] = []
    last: dict[int, int] = {}
    for i, row in enumerate(program.instructions.tolist()):
        early = done = begun = 0
        if row[0] in last:
            early = before[last[row[0]]] | 1 << last[row[0]]
            done = finished[last[row[0]]]
            begun = issued[last[row[0]]] | 1 << last[row[0]]
        for d, flag in zip(row[8:11], ISSUED, strict=True):
            if d >= 0:
                done |= finished[d] if row[3] & flag else before[d] | 1 << d
                begun |= issued[d] | 1 << d
        before.append(early | done)
        finished.append(done)
        issued.append(early | done | begun)
        last[row[0]] = i
    return before, finished, issued


def _races(program: Program) -> list[str]:
    before, finished, issued = _predecessors(program)
    faults = []
    spaces = [space.capacity for space in program.spaces]
    writer = [np.full(capacity, -1) for capacity in spaces]
    holder = [np.full(capacity, -1) for capacity in spaces]
    readers, late_readers = ([[0] * capacity for capacity in spaces] for _ in range(2))
    for s, info in enumerate(program.storages):
        at = np.flatnonzero(_held(program, s)) + info.base
        holder[info.space][at] = s
    for i, row in enumerate(program.instructions.tolist()):
        accumulates = row[1] == Opcode.MATMUL and bool(row[3] & Flag.ACCUMULATE)
        late = 13 if row[3] & Flag.FORWARD else -1
        reads = [(row[c], c == late) for c in range(12, 15) if row[c] >= 0]
        for d, own_sum in [*reads, *([(row[11], True)] if accumulates else [])]:
            s, x = program.operands[d, :2].tolist()
            at = window(program, d)
            if (holder[x][at] != s).any():
                faults.append(f"{i} reads what is not there")
            for w in {*writer[x][at].tolist()} - {-1}:
                other = program.instructions[w]
                in_order = own_sum and other[0] == row[0] and other[1] == row[1]
                if not in_order and not finished[i] >> w & 1:
                    faults.append(f"{i} reads before {w} has written")
            kept = late_readers if own_sum else readers
            for b in at.tolist():
                kept[x][b] |= 1 << i
        if row[11] >= 0:
            s, x = program.operands[row[11], :2].tolist()
            at = window(program, row[11])
            users = users_at_start = 0
            for b in at.tolist():
                users |= late_readers[x][b]
                users_at_start |= readers[x][b]
                readers[x][b] = late_readers[x][b] = 0
            for w in {*writer[x][at].tolist()} - {-1}:
                users |= 1 << w
            if users & ~(before[i] | 1 << i) or users_at_start & ~(issued[i] | 1 << i):
                faults.append(f"{i} overwrites what is still in use")
            writer[x][at] = i
            holder[x][at] = s
    return faults


def _meaning(program: Program) -> str:
    """Digest of the outputs when every byte is a symbol for how it came about."""
    images = [np.zeros(space.capacity, dtype=np.uint64) for space in program.spaces]
    for s, info in enumerate(program.storages):
        held = np.flatnonzero(_held(program, s))
        images[info.space][info.base + held] = (s + 1 << 32) + held.astype(np.uint64)
    for i, row in enumerate(program.instructions.tolist()):
        if row[11] < 0:
            continue
        read = [d for d in row[12:15] if d >= 0]
        if row[3] & Flag.ACCUMULATE:
            read.append(row[11])
        done = [row[1], row[2], row[3] & ~sum(ISSUED)]
        digest = hashlib.blake2b(repr((done, row[5:8], program.immediate[i])).encode())
        for d in read:
            digest.update(repr(program.operands[d, [3, 4, 6]].tolist()).encode())
            digest.update(images[program.operands[d, 1]][window(program, d)].tobytes())
        symbol = np.uint64(int.from_bytes(digest.digest()[:6], "little") << 12)
        at = window(program, row[11])
        images[program.operands[row[11], 1]][at] = symbol + np.arange(len(at), dtype=np.uint64)
    result = hashlib.blake2b()
    for info in program.storages:
        if info.role in ("output", "cache"):
            result.update(images[info.space][info.base : info.base + info.nbytes].tobytes())
    return result.hexdigest()
