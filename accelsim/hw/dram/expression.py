"""Whole-number formulas over timing names: ``CL + burst_cycles + 2 - CWL``, ``max(4, 7.5 ns)``.

Only + - * // max min, whole numbers and names are understood; nothing is executed. A time
("7.5 ns", "3.9 us") becomes cycles of the given clock, rounded up (a
minimum) or down (a maximum such as the refresh interval).
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from accelsim.errors import AccelsimError, unknown

_TIME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(ns|us)\b")
_NAME = re.compile(r"[A-Za-z_]\w*")
_SECONDS = {"ns": Fraction(1, 10**9), "us": Fraction(1, 10**6)}
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_FUNCTIONS: dict[str, Callable[..., int]] = {"max": max, "min": min}
_ACCEPTED = "accepted: + - * // max() min(), whole numbers, times (7.5 ns) and timing names"


def cycles_of(nanoseconds: Fraction, clock_hz: int, *, down: bool = False) -> int:
    """Whole cycles of a time: at least it, or with ``down`` at most it."""
    exact = nanoseconds * clock_hz / 10**9
    return (
        exact.numerator // exact.denominator if down else -(-exact.numerator // exact.denominator)
    )


def evaluate(text: str, names: Mapping[str, int], clock_hz: int = 0, *, down: bool = False) -> int:
    """The value of a formula.

    Raises:
        AccelsimError: what is not understood, or a name that is not among ``names``.
    """

    def in_cycles(found: re.Match[str]) -> str:
        if not clock_hz:
            raise AccelsimError(f"{found[0]!r}: a time needs a clock; {_ACCEPTED}")
        seconds = Fraction(found[1]) * _SECONDS[found[2]]
        return str(cycles_of(seconds * 10**9, clock_hz, down=down))

    if len(text) > 200:
        raise AccelsimError(f"formula of {len(text)} characters; accepted: up to 200")
    try:
        tree = ast.parse(_TIME.sub(in_cycles, text).strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise AccelsimError(f"cannot read the formula {text!r}; {_ACCEPTED}") from None
    return _value(tree.body, names, text)


def names_in(text: str) -> set[str]:
    """Timing names that a formula reads."""
    return set(_NAME.findall(_TIME.sub("0", text))) - _FUNCTIONS.keys()


def _value(node: ast.expr, names: Mapping[str, int], text: str) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in names:
            raise AccelsimError(unknown("timing", node.id, names))
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, names, text)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, names, text), _value(node.right, names, text)
        if isinstance(node.op, ast.FloorDiv) and right == 0:
            raise AccelsimError(f"{text!r} divides by zero")
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = _FUNCTIONS.get(node.func.id)
        if function and len(node.args) > 1:
            return function(*(_value(one, names, text) for one in node.args))
    raise AccelsimError(f"cannot read the formula {text!r}; {_ACCEPTED}")
