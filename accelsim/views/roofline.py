"""The roofline of a run (Williams et al., CACM 2009) with MACs in place of FLOPs."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from accelsim.arch.describe import peak_bytes_per_second, peak_macs_per_second
from accelsim.errors import AccelsimError
from accelsim.results.text import bytes_text, percent_text, plural, scaled, seconds_text
from accelsim.results.theme import ACCENT, INK, figure, kind_colors

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from accelsim.arch.model import Architecture
    from accelsim.results.result import OperatorResult, Result

_LARGEST, _SMALLEST = 44, 8  # marker diameters in pixels


def roofline(result: Result) -> Figure:
    """Every operator with MACs as a point: MAC/s over MACs per byte of main memory.

    The area of a point is its share of the time; the star is the whole run. Operators without
    MACs, or hidden behind others for all of their time, have no place here and are counted in the
    subtitle. Raises AccelsimError when the result does not know its architecture.
    """
    arch = _architecture(result)
    drawn = [op for op in result.operators if op.macs and op.cycles > 0 and _moved(op)]
    left_out = len(result.operators) - len(drawn)
    fig = figure(
        f"Roofline of {escape(result.arch)}",
        f"{escape(result.workload)}; area of a point = share of time"
        + (f"; {plural(left_out, 'operator')} without MACs not drawn" if left_out else ""),
        height=520,
    )
    _points(fig, result, drawn)
    low, high = _span([op.macs / _moved(op) for op in drawn])
    _roof(fig, arch, low, high)
    fig.update_xaxes(title="MACs per byte of main memory", type="log", dtick=1)
    fig.update_yaxes(title="MAC/s", type="log", dtick=1, exponentformat="SI")
    return fig


def _architecture(result: Result) -> Architecture:
    if result.architecture is None:
        raise AccelsimError("the result does not hold its architecture; accepted: one of simulate")
    return result.architecture


def _moved(op: OperatorResult) -> int:
    return sum(op.traffic_bytes.values())


def _span(intensities: list[float]) -> tuple[float, float]:
    inside = intensities or [1.0]
    return min(0.5, min(inside) / 3), max(1000.0, max(inside) * 3)


def _points(fig: Figure, result: Result, drawn: list[OperatorResult]) -> None:
    colors = kind_colors(op.kind for op in result.operators)
    for kind in dict.fromkeys(op.kind for op in drawn):
        ops = [op for op in drawn if op.kind == kind]
        fig.add_scatter(
            x=[op.macs / _moved(op) for op in ops],
            y=[op.macs / op.cycles * result.clock_hz for op in ops],
            mode="markers",
            name=escape(kind),
            marker={
                "color": colors[kind],
                "opacity": 0.75,
                "line": {"width": 1, "color": "white"},
                "size": [_diameter(op.cycles / result.cycles) for op in ops],
            },
            text=[_hover(op, result) for op in ops],
            hovertemplate="%{text}<extra></extra>",
        )
    moved = sum(_moved(op) for op in result.operators)
    if result.macs and moved and result.cycles:
        fig.add_scatter(
            x=[result.macs / moved],
            y=[result.macs / result.seconds],
            mode="markers",
            name="whole run",
            marker={"symbol": "star", "size": 16, "color": ACCENT},
            hovertemplate="whole run<br>%{x:.3g} MAC/B<br>%{y:.3s}MAC/s<extra></extra>",
        )


def _diameter(share: float) -> float:
    return max(_SMALLEST, _LARGEST * math.sqrt(min(share, 1.0)))


def _hover(op: OperatorResult, result: Result) -> str:
    times = f" x{op.repeat}" if op.repeat > 1 else ""
    return "<br>".join((
        f"<b>{escape(op.name)}</b>{times}",
        f"{scaled(op.macs / op.cycles * result.clock_hz, 'MAC/s')}, "
        f"{op.macs / _moved(op):.3g} MAC/B",
        f"{seconds_text(op.cycles / result.clock_hz)}, "
        f"{percent_text(op.cycles / result.cycles)} of the run",
        f"{bytes_text(_moved(op))} of main memory",
        f"array {percent_text(op.utilization)}, bound by {escape(op.bottleneck)}",
    ))  # fmt: skip


def _roof(fig: Figure, arch: Architecture, low: float, high: float) -> None:
    """The slope of every shared memory and the ceiling of the arrays."""
    peak = peak_macs_per_second(arch)
    shared = [name for name, memory in arch.memories.items() if memory.shared]
    for name in shared:
        rate = peak_bytes_per_second(arch, name)
        if not (peak and rate):
            continue
        ridge = peak / rate
        _line(fig, [low, min(max(ridge, low), high), high],
              [min(peak, rate * low), min(peak, rate * min(max(ridge, low), high)),
               min(peak, rate * high)],
              f"{escape(name)} {scaled(rate, 'B/s')}, peak {scaled(peak, 'MAC/s')}")  # fmt: skip
        # Annotations on logarithmic axes are placed by exponent.
        fig.add_annotation(
            x=math.log10(ridge), y=math.log10(peak), text=f"ridge {ridge:.3g} MAC/B",
            showarrow=False, yshift=12, font={"size": 11, "color": INK},
        )  # fmt: skip


def _line(fig: Figure, x: list[float], y: list[float], name: str) -> None:
    line: dict[str, Any] = {"color": INK, "width": 2}
    fig.add_scatter(x=x, y=y, mode="lines", name=name, line=line, hoverinfo="name")
