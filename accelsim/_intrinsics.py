"""What the compiler of the hot loops is taught: instructions of the host that numba does not offer.

Each is a function with a meaning of its own where kernels are not compiled.
"""

from importlib import import_module
from typing import Any


def prefetch(column: Any, index: int) -> None:
    """Ask the host's cache for ``column[index]``: a hint, legal past the end, no effect uncompiled.

    Only for one-dimensional contiguous columns.
    """


def fma(x: Any, y: Any, z: Any) -> Any:
    """x y + z rounded once, of three fp32 or three float64: one instruction of the host, compiled.

    numba never contracts x * y + z to it by itself. Uncompiled it is exact, too, and slow.
    """
    from fractions import Fraction

    import numpy as np

    kind = type(z)
    with np.errstate(all="ignore"):
        if not np.isfinite(x) or not np.isfinite(y) or not np.isfinite(z):
            return kind(float(x) * float(y) + float(z))
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        if exact == 0:
            return kind(x * y + z)  # the sign of zero is that of the unfused sum
        return kind(_to_odd(exact)) if kind is np.float32 else kind(_nearest(exact))


def _nearest(exact: Any) -> float:
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def _to_odd(exact: Any) -> float:
    """A float64 that rounds to fp32 as ``exact`` does: inexact ones get an odd last bit.

    Innocuous because 53 >= 24 + 2 (Boldo and Melquiond, IEEE Trans. Computers 57(4), 2008).
    """
    import math
    from fractions import Fraction

    value = _nearest(exact)
    if math.isinf(value) or Fraction(value) == exact or _is_odd(value):
        return value
    return math.nextafter(value, math.inf if exact > Fraction(value) else -math.inf)


def _is_odd(value: float) -> bool:
    import struct

    return bool(struct.unpack("<q", struct.pack("<d", value))[0] & 1)


def teach() -> list[Any]:
    """Teach numba all of them; called once per process. The result must be kept."""
    return [_teach_prefetch(), _teach_fma(), _index_from_the_front()]


def _teach_prefetch() -> Any:
    """Register the machine instruction behind ``prefetch`` (LLVM LangRef, llvm.prefetch)."""
    from numba.core import types
    from numba.extending import intrinsic, overload

    ir: Any = import_module("llvmlite.ir")  # untyped; comes with numba

    def lowered(_context: Any, column: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            byte, word = ir.IntType(8), ir.IntType(32)
            address = builder.bitcast(builder.gep(array.data, [args[1]]), byte.as_pointer())
            form = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
            function = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), form)
            # read, keep in all cache levels, data cache
            builder.call(function, [address, word(0), word(3), word(1)])
            return context.get_dummy_value()

        return types.void(column, types.intp), codegen

    hint: Any = intrinsic(lowered)

    def compiled(column: Any, index: Any) -> Any:
        def touch(column: Any, index: Any) -> None:
            hint(column, index)

        return touch

    return overload(prefetch, inline="never")(compiled)


def _index_from_the_front() -> Any:
    """Let kernels of this package index arrays as C does: none of them counts from an array's end.

    numba looks at the sign of every index, to let it count from the end as Python does; that is a
    third of what a step of a DRAM channel costs. Kernels of other packages stay as they are.
    """
    arrays: Any = import_module("numba.np.arrayobj")  # untyped
    types: Any = import_module("numba.core.types")
    numba_own = getattr(arrays, "fix_integer_index", None)
    if numba_own is None:  # another numba: kernels are slower, and right
        return None
    ours = f"_ZN{len('accelsim')}accelsim"  # how mangled names of this package begin

    def fix_integer_index(context: Any, builder: Any, idxty: Any, idx: Any, size: Any) -> Any:
        if idxty.signed and builder.function.name.startswith(ours):
            return context.cast(builder, idx, idxty, types.intp)
        return numba_own(context, builder, idxty, idx, size)

    arrays.fix_integer_index = fix_integer_index
    return fix_integer_index


def _teach_fma() -> Any:
    """Register the machine instruction behind ``fma`` (LLVM LangRef, llvm.fma)."""
    from numba.core import types
    from numba.extending import intrinsic, overload

    def lowered(_context: Any, x: Any, y: Any, z: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.fma(*args)

        return (z(x, y, z), codegen) if x == y == z and isinstance(z, types.Float) else None

    fused: Any = intrinsic(lowered)

    def compiled(x: Any, y: Any, z: Any) -> Any:
        def once(x: Any, y: Any, z: Any) -> Any:
            return fused(x, y, z)

        return once

    return overload(fma, inline="never")(compiled)
