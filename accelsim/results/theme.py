"""The look of every figure: one layout, one palette, one colour per operator kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

INK, FAINT, ACCENT = "#1f2933", "#dde3ea", "#d1495b"

# Tableau 10: distinct for most readers, printable.
PALETTE = (
    "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2",
    "#edc948", "#ff9da7", "#9c755f", "#e15759", "#8d99a6",
)  # fmt: skip

_KINDS = (
    "gemm", "attention", "rmsnorm", "layernorm", "activation",
    "residual", "rotary", "kv_append", "softmax", "elementwise", "embedding", "conv2d",
    "linear_attention", "state_update",
)  # fmt: skip
# Kinds that hardly ever meet in one workload share a colour.
_FIXED = {kind: PALETTE[i % len(PALETTE)] for i, kind in enumerate(_KINDS)} | {
    "layernorm": PALETTE[2],
    "embedding": PALETTE[8],
    "conv2d": PALETTE[0],
    "linear_attention": PALETTE[1],
    "state_update": PALETTE[7],
}


def kind_colors(kinds: Iterable[str]) -> dict[str, str]:
    """A colour per operator kind, the same in every figure for the kinds that are built in."""
    return {
        kind: _FIXED.get(kind, PALETTE[(i + 5) % len(PALETTE)])
        for i, kind in enumerate(dict.fromkeys(kinds))
    }


def figure(title: str, subtitle: str = "", **layout: Any) -> Figure:
    """An empty figure in the house style; ``layout`` is plotly's."""
    from plotly.graph_objects import Figure

    below = f"<br><span style='font-size:12px;color:#66717e'>{subtitle}</span>" if subtitle else ""
    fig = Figure()
    fig.update_layout(
        title={"text": title + below, "x": 0, "xref": "paper", "font": {"size": 16}},
        font={"family": "system-ui, Segoe UI, Helvetica, Arial, sans-serif", "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 70, "r": 24, "t": 84, "b": 56},
        colorway=PALETTE,
        hoverlabel={"align": "left"},
        hovermode="closest",
        legend={"orientation": "v"},
    )
    grid = {"gridcolor": FAINT, "linecolor": FAINT, "zeroline": False, "automargin": True}
    fig.update_xaxes(**grid)
    fig.update_yaxes(**grid)
    fig.update_layout(**layout)
    return fig
