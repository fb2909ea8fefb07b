"""Runs commands with uncompiled kernels on arrays that refuse negative indices.

Compiled kernels index as C does (accelsim/_jit.py): what NumPy would take from an array's end lies
before its beginning. ``python strict_kernels.py COMMAND...`` is a program of its own, since the
compiler is switched off for a whole process.
"""

from __future__ import annotations

import functools
import os
import sys

import numpy as np


class Strict(np.ndarray):
    """An array that counts from the front only."""

    def __getitem__(self, index):
        _refuse_negative(index)
        return super().__getitem__(index)

    def __setitem__(self, index, value):
        _refuse_negative(index)
        super().__setitem__(index, value)


def _refuse_negative(index) -> None:
    for i in index if isinstance(index, tuple) else (index,):
        if isinstance(i, int | np.integer) and i < 0:
            raise IndexError(f"a kernel counts from the end of an array: {index}")


def strict(argument):
    """The same array, or tuple of arrays, refusing negative indices."""
    if isinstance(argument, np.ndarray):
        return argument.view(Strict)
    if isinstance(argument, tuple):
        parts = [strict(part) for part in argument]
        return type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts)
    return argument


def uncompiled(function, **_options):
    @functools.wraps(function)
    def kernel(*arguments):
        return function(*(strict(argument) for argument in arguments))

    kernel.py_func = function
    return kernel


def main(commands: list[str]) -> None:
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    from accelsim import _jit

    _jit._compile = uncompiled
    from accelsim.cli.main import main as accelsim

    for command in commands:
        sys.argv = ["accelsim", *command.split()]
        try:
            accelsim()
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    main(sys.argv[1:])
