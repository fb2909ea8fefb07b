"""Builds a tile program: mappers say what moves and what computes, dependencies follow.

The builder knows, for every storage, which instructions wrote and read its current contents. An
instruction waits for the writers of what it reads, and for everything that still uses what it
overwrites. Waits that are already implied by an earlier instruction on the same unit are left out.

Contents are tracked per storage, not per byte. A write marked ``part`` fills one window while
others fill or already read the rest: it waits for whoever wrote all of the storage and for the
users of earlier contents, but not for other parts, nor (on chip) for readers of the current ones.
That they touch other bytes is the caller's word; the verifier checks it.
"""

from __future__ import annotations

from dataclasses import replace
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.numerics.orders import Order, orders_of
from accelsim.program.opcodes import REDUCTIONS, Flag, Function, Opcode, matmul_flags, pim_flags
from accelsim.program.storage import CodedView, Piece, Storage, Use, View, same_shape, whole, wrote
from accelsim.program.table import (
    DEPENDENCIES,
    OPERAND_WIDTH,
    SOURCES,
    WIDTH,
    AddressSpace,
    Floats,
    Ints,
    OperatorInfo,
    Program,
    StorageInfo,
    UnitSlot,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from accelsim.encoding.encodings import CodedForm, Tile


_NONE = (-1,) * SOURCES
_ROW, _OPERAND = Struct(f"{WIDTH}q"), Struct(f"{OPERAND_WIDTH}q")
# 4 M instructions take about 0.5 GB as tables and a second of engine and verifier time.
DEFAULT_INSTRUCTION_LIMIT = 4_000_000


class Builder:
    """Collects storages, operators and instructions; ``finish()`` freezes them into a Program."""

    def __init__(
        self,
        units: Iterable[UnitSlot],
        spaces: Iterable[AddressSpace],
        instruction_limit: int = DEFAULT_INSTRUCTION_LIMIT,
    ) -> None:
        self.units = tuple(units)
        self.spaces = tuple(spaces)
        self.instruction_limit = instruction_limit
        # Where windows of off-chip tensors lie that are not stored row by row; set by their owner.
        self.pieces: Callable[[View], list[Piece]] = whole
        self._storages: list[StorageInfo] = []
        self._operators: list[OperatorInfo] = []
        self._rows = bytearray()
        self._operands = bytearray()
        self._immediate: dict[int, float] = {}
        self._immediates: list[tuple[int, Floats]] = []  # of rows that came at once: first, values
        self._approximations: list[str] = []
        self._forms: dict[CodedForm, int] = {}
        # _seen[u][v]: latest instruction of unit v that unit u is already known to have waited for.
        self._seen: list[dict[int, int]] = [{} for _ in self.units]
        # The latest LAUNCH, and per unit the latest one that it waited for; what stands before it
        # is over for everybody who did.
        self._kernel = -1
        self._waited = [-1] * len(self.units)
        self._latest: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._rows) // _ROW.size

    # -- what the program is about ---------------------------------------------------------------

    def storage(self, info: StorageInfo, after: Iterable[Storage] = ()) -> Storage:
        """Register an extent of memory; ``after`` are earlier storages at the same place."""
        storage = Storage(len(self._storages), info.name, info.space, info.base, info.nbytes)
        storage.after = tuple(after)
        self._storages.append(info)
        return storage

    def lay_out(self, storage: Storage, panels: tuple[int, ...]) -> None:
        """Declare that a tensor is stored in panels of columns (see StorageInfo)."""
        self._storages[storage.index] = replace(self._storages[storage.index], panels=panels)

    def lay_out_tiles(self, storage: Storage, encoding: str, tiles: tuple[Tile, ...]) -> None:
        """Declare that a tensor is stored in coded tiles (see StorageInfo)."""
        info = self._storages[storage.index]
        self._storages[storage.index] = replace(info, encoding=encoding, tiles=tiles)

    def coded(self, storage: Storage, offset: int, nbytes: int, form: CodedForm) -> CodedView:
        """A run of coded bytes of a storage, which stand for a dense window."""
        number = self._forms.setdefault(form, len(self._forms))
        return CodedView(storage, storage.base + offset, nbytes, form, number)

    def begin_operator(self, info: OperatorInfo) -> int:
        """Instructions emitted from now on belong to this operator; returns its index."""
        self._operators.append(info)
        return self.current_operator

    def note(self, text: str) -> None:
        """Say how the current operator is mapped; shown in its result row and in the listing."""
        info = self._operators[-1]
        if text not in info.note.split("; "):
            told = f"{info.note}; {text}" if info.note else text
            self._operators[-1] = replace(info, note=told)

    def reduce(self, order: Order) -> None:
        """Declare the order in which a kernel of the current operator reduces (OperatorInfo)."""
        info = self._operators[-1]
        told = orders_of(info.order)
        if order in told:
            return
        if any((one.promote, one.sparse) != (order.promote, order.sparse) for one in told):
            raise AccelsimError(
                f"{info.name}: kernels of one operator promote and skip alike, not {order}"
            )
        text = f"{info.order} | {order}" if info.order else str(order)
        self._operators[-1] = replace(info, order=text)

    @property
    def current_operator(self) -> int:
        """Index of the operator begun last, -1 before the first."""
        return len(self._operators) - 1

    def approximate(self, statement: str) -> None:
        """Declare something that the program leaves out or composes."""
        if statement not in self._approximations:
            self._approximations.append(statement)

    def reserve(self, instructions: int, what: str) -> None:
        """Refuse early a mapping that would pass the instruction limit."""
        if len(self) + instructions > self.instruction_limit:
            raise AccelsimError(
                f"{what} needs about {len(self) + instructions:.3g} tile instructions, more than"
                f" the limit of {self.instruction_limit:,}: use larger on-chip memories or arrays,"
                " a smaller problem, or raise the limit (--max-instructions)"
            )

    # -- instructions ----------------------------------------------------------------------------

    def launch(self, unit: int) -> int:
        """Start a kernel: after everything emitted so far, before everything emitted later."""
        self._kernel = self._row(unit, Opcode.LAUNCH, list(self._latest.values()))
        return self._kernel

    def load(
        self, queue: int, dst: View, src: View, *, part: bool = False, scalar: bool = False
    ) -> int:
        """Copy off-chip ``src`` to on-chip ``dst``; ``part``: other loads fill the rest of dst.

        ``scalar``: threads of a SIMT unit take it element by element, not in packets.
        """
        same_shape(dst, src)
        flags, i = int(Flag.SCALAR) if scalar else 0, -1
        pairs = self._pairs(dst, self._pieces(src))
        part = part or len(pairs) > 1
        for near, far in pairs:
            i = self._emit(
                queue, Opcode.LOAD, near, (far,), far.rows, far.cols, flags=flags, part=part
            )
        return i

    def multicast(
        self, queue: int, dsts: Sequence[View], src: View, *, part: bool = False
    ) -> list[int]:
        """Copy off-chip ``src`` to on-chip windows of several cores in one transfer.

        It starts when all of ``dsts`` may be overwritten. Returns one instruction per destination.
        """
        if len(dsts) == 1:
            return [self.load(queue, dsts[0], src, part=part)]
        for dst in dsts:
            same_shape(dst, src)
        pieces, made = self._pieces(src), []
        for rows, cols, view in pieces:
            parts = [dst[rows, cols] for dst in dsts]
            made += self._multicast(queue, parts, view, part or len(pieces) > 1)
        return made

    def _multicast(self, queue: int, dsts: Sequence[View], src: View, part: bool) -> list[int]:
        """One transfer to several cores."""
        waits: list[int] = []
        for dst in dsts:
            waits += self._waits(queue, dst.storage, (src,), part, False)
        head = self._emit(
            queue, Opcode.MULTICAST, dsts[0], (src,), src.rows, src.cols, len(dsts),
            part=part, after=waits,
        )  # fmt: skip
        return [head] + [
            self._emit(queue, Opcode.DELIVER, dst, (src,), src.rows, src.cols, part=part)
            for dst in dsts[1:]
        ]

    def store(
        self,
        queue: int,
        dst: View,
        src: View,
        *,
        scalar: bool = False,
        apart: bool = False,
        in_place: bool = False,
    ) -> int:
        """Copy on-chip ``src`` to off-chip ``dst``, rounding if the formats differ.

        ``apart``: nobody has read these bytes of dst's storage since it was begun. ``in_place``:
        dst says itself where they lie.
        """
        same_shape(dst, src)
        flags, i = int(Flag.SCALAR) if scalar else 0, -1
        for near, far in self._pairs(src, whole(dst) if in_place else self._pieces(dst)):
            i = self._emit(
                queue, Opcode.STORE, far, (near,), far.rows, far.cols,
                flags=flags, part=True, users=not apart,
            )  # fmt: skip
        return i

    def gather(self, queue: int, dst: View, table: View, ids: View) -> int:
        """Copy the rows of ``table`` that the index column ``ids`` names to ``dst``."""
        pieces, i = self._pieces(table), -1
        for rows, cols, view in pieces:
            if (rows.start, rows.stop) != (0, table.rows):
                raise AccelsimError(
                    f"rows of {table.storage.name} are gathered, and not all of them lie equally"
                    " far apart; accepted: a table that lies row by row, or columns of it"
                )
            part = dst[:, cols]
            i = self._emit(
                queue, Opcode.GATHER, part, (view, ids), part.rows, part.cols, part=len(pieces) > 1
            )
        return i

    def fill(self, queue: int, dst: View, value: float, *, part: bool = False) -> int:
        """Set every element of ``dst`` to ``value``."""
        i = self._emit(queue, Opcode.FILL, dst, (), dst.rows, dst.cols, part=part)
        return self._with_immediate(i, value)

    def decode(self, unit: int, dst: View, src: View) -> int:
        """``dst`` = what the coded bytes of ``src`` stand for, in their own number format."""
        same_shape(dst, src)
        return self._emit(unit, Opcode.DECODE, dst, (src,), dst.rows, dst.cols)

    def encode(self, unit: int, dst: CodedView, src: View, *, transpose: bool = False) -> int:
        """``dst`` = coded bytes for ``src``, pruned as the encoding says; ``transpose``: src is
        stored as [cols, rows]."""
        if (src.cols, src.rows)[:: 1 if transpose else -1] != (dst.rows, dst.cols):
            raise AccelsimError(
                f"[{src.rows}, {src.cols}] does not agree with [{dst.rows}, {dst.cols}]"
            )
        flags = int(Flag.TRANSPOSE_A) if transpose else 0
        return self._emit(unit, Opcode.ENCODE, dst, (src,), dst.rows, dst.cols, flags=flags)

    def matmul(
        self,
        unit: int,
        dst: View,
        a: View,
        b: View,
        *,
        accumulate: bool,
        transpose_a: bool = False,
        transpose_b: bool = False,
        stationary_a: bool = False,
        part: bool = False,
    ) -> int:
        """``dst[m, n] (+)= a[m, k] @ b[k, n]``; transposed operands are stored as [k, m], [n, k].

        ``part``: other units compute the rest of dst's buffer at the same time; ``stationary_a``:
        a weight-stationary array holds a and streams b.
        """
        m, k = (a.cols, a.rows) if transpose_a else (a.rows, a.cols)
        kb, n = (b.cols, b.rows) if transpose_b else (b.rows, b.cols)
        if k != kb or (dst.rows, dst.cols) != (m, n):
            shapes = f"[{m}, {k}] @ [{kb}, {n}] into [{dst.rows}, {dst.cols}]"
            raise AccelsimError(f"matmul shapes do not agree: {shapes}")
        flags = matmul_flags(accumulate, stationary_a, transpose_a, transpose_b)
        return self._emit(unit, Opcode.MATMUL, dst, (a, b), m, n, k, flags=flags, part=part)

    def pim(
        self,
        unit: int,
        dst: View,
        vectors: View,
        matrix: View,
        *,
        abreast: bool = False,
        goes_on: bool = False,
        held: bool = False,
        columns: bool = False,
        kept: bool = False,
        part: bool = False,
    ) -> int:
        """``dst[m, n]``: m vectors times n rows of a matrix each, in the banks (Opcode.PIM).

        ``goes_on`` with the sums of the channel's product before, which was ``held`` there, or with
        its vectors (``kept``). ``columns``: times the columns of one matrix. ``part``: other
        channels give the rest of dst's buffer at the same time.
        """
        m, n, k = dst.rows, dst.cols, vectors.cols // (dst.rows if abreast else 1)
        pieces = 1 if abreast or columns else max(1, k // max(1, matrix.cols))
        rows_of = (1, m * k, n, m * k) if abreast else (m, k, m * n * pieces, k // pieces)
        wanted = (1, k, k, n) if columns else rows_of
        if wanted != (vectors.rows, vectors.cols, matrix.rows, matrix.cols) or k % pieces:
            shapes = [(one.rows, one.cols) for one in (vectors, matrix)]
            raise AccelsimError(f"vectors and matrix {shapes} do not give [{m}, {n}]")
        flags = pim_flags(abreast, columns, kept, goes_on, held)
        return self._emit(unit, Opcode.PIM, dst, (vectors, matrix), m, n, k, flags=flags, part=part)

    def vector(
        self,
        unit: int,
        function: Function,
        dst: View,
        a: View,
        b: View | None = None,
        imm: float = 0.0,
    ) -> int:
        """``dst = function(a, b)`` on a vector unit (see Function for broadcasts, reductions)."""
        reduction = function in REDUCTIONS
        expected = (a.rows, 1) if reduction else (a.rows, a.cols)
        if (dst.rows, dst.cols) != expected:
            raise AccelsimError(
                f"{function.name} of [{a.rows}, {a.cols}] gives {list(expected)},"
                f" not [{dst.rows}, {dst.cols}]"
            )
        if b is not None and (b.rows not in (1, a.rows) or b.cols not in (1, a.cols)):
            raise AccelsimError(
                f"{function.name} cannot broadcast [{b.rows}, {b.cols}] to [{a.rows}, {a.cols}]"
            )
        sources = (a,) if b is None else (a, b)
        k = a.cols if reduction else 0
        i = self._emit(
            unit, Opcode.VECTOR, dst, sources, dst.rows, dst.cols, k, function=int(function)
        )
        return self._with_immediate(i, imm)

    # -- many instructions at once ---------------------------------------------------------------

    def windows(self, rows: Ints) -> int:
        """Add operand descriptors (table.OPERAND_COLUMNS); returns the index of the first."""
        first = len(self._operands) // _OPERAND.size
        self._operands += rows.tobytes()
        return first

    def barrier(self, unit: int) -> None:
        """What this unit does from now on comes after everything emitted so far."""
        others = [i for other, i in self._latest.items() if other != unit]
        if others:
            self._row(unit, Opcode.JOIN, others)

    def bulk(self, rows: Ints, immediate: Floats, uses: Iterable[Use]) -> None:
        """Append rows whose dependencies are in place; ``uses`` is what later rows wait for.

        Their units must have passed a barrier since the last row of anybody else.
        """
        start = len(self)
        self.reserve(len(rows), self._operators[-1].name)
        self._rows += rows.tobytes()
        self._immediates.append((start, immediate))
        for use in uses:
            hazards = use.storage.writers if use.writes else use.storage.readers
            hazards[use.unit] = use.last
            use.storage.newest = max(use.storage.newest, use.last)
            self._latest[use.unit] = max(self._latest.get(use.unit, -1), use.last)

    def finish(self) -> Program:
        """Freeze everything into a Program."""
        instructions = np.frombuffer(self._rows, dtype=np.int64).reshape(-1, WIDTH)
        immediate = np.zeros(len(instructions))
        if self._immediate:
            immediate[list(self._immediate)] = list(self._immediate.values())
        for first, values in self._immediates:
            immediate[first : first + len(values)] = values
        return Program(
            units=self.units,
            spaces=self.spaces,
            storages=tuple(self._storages),
            operators=tuple(self._operators),
            instructions=instructions,
            immediate=immediate,
            operands=np.frombuffer(self._operands, dtype=np.int64).reshape(-1, OPERAND_WIDTH),
            approximations=tuple(self._approximations),
            forms=tuple(self._forms),
        )

    # -- inside ----------------------------------------------------------------------------------

    def _pieces(self, view: View) -> list[Piece]:
        return whole(view) if isinstance(view, CodedView) else self.pieces(view)

    @staticmethod
    def _pairs(near: View, pieces: list[Piece]) -> list[tuple[View, View]]:
        """Windows of what is on chip, each with the piece in main memory that it stands for."""
        if len(pieces) == 1:
            far = pieces[0][2]
            return [(near.like(far), far)]
        return [(near[rows, cols].like(far), far) for rows, cols, far in pieces]

    def _emit(
        self,
        unit: int,
        opcode: Opcode,
        dst: View,
        sources: tuple[View, ...],
        m: int,
        n: int,
        k: int = 0,
        *,
        function: int = 0,
        flags: int = 0,
        part: bool = False,
        users: bool = False,
        after: Iterable[int] = (),
    ) -> int:
        """Append an instruction; ``users``: a part, too, waits for the readers of the contents."""
        deps = self._waits(unit, dst.storage, sources, part, users)
        read = [self.operand(source) for source in sources]
        operands = (self.operand(dst), *read, *_NONE[len(read) :])
        i = self._row(unit, opcode, [*after, *deps], (function, flags), (m, n, k), operands)
        for source in sources:
            source.storage.readers[unit] = i
            source.storage.newest = i
        wrote(dst.storage, unit, i, part)
        return i

    def _row(
        self,
        unit: int,
        opcode: Opcode,
        deps: list[int],
        does: tuple[int, int] = (0, 0),
        shape: tuple[int, int, int] = (0, 0, 0),
        operands: tuple[int, ...] = (-1, *_NONE),
    ) -> int:
        """Append a row; joins ahead of it wait for those beyond its columns."""
        while len(deps) > DEPENDENCIES:
            self._row(unit, Opcode.JOIN, deps[:DEPENDENCIES])
            deps = deps[DEPENDENCIES:]
        i = len(self._rows) // _ROW.size
        if i >= self.instruction_limit:
            self.reserve(1, self._operators[-1].name if self._operators else "the program")
        padding, operator = _NONE[len(deps) :], len(self._operators) - 1
        self._rows += _ROW.pack(unit, opcode, *does, operator, *shape, *deps, *padding, *operands)
        self._latest[unit] = i
        return i

    def _waits(
        self, unit: int, dst: Storage, sources: tuple[View, ...], part: bool, users: bool
    ) -> list[int]:
        if dst.after:
            dst.inherit()
        seen, over = self._seen[unit], self._kernel
        wait: dict[int, int] = {}
        # Reading an own earlier result waits like any other: it must have left the pipeline.
        for source in sources:
            if source.storage.newest > over:
                for other, i in source.storage.writers.items():
                    if i > over and seen.get(other, -1) < i:
                        seen[other] = wait[other] = i
        # Overwriting or accumulating after an own earlier instruction needs no wait: units issue
        # and retire in order.
        if dst.newest > over:
            for other, i in dst.hazards(unit, part, users or not part):
                if other != unit and i > over and seen.get(other, -1) < i:
                    seen[other] = wait[other] = i
        if self._waited[unit] < over:
            self._waited[unit] = over
            return [over, *wait.values()]
        return list(wait.values())

    def operand(self, view: View) -> int:
        """Index of the descriptor of a window."""
        if view.operand < 0:
            view.operand = len(self._operands) // _OPERAND.size
            self._operands += _OPERAND.pack(*view.row())
        return view.operand

    def _with_immediate(self, instruction: int, value: float) -> int:
        if value:
            self._immediate[instruction] = value
        return instruction
