"""Tables that print themselves: aligned text in a terminal, HTML in a notebook.

``run.operators`` is one: a tuple of OperatorResult whose text is a table. ``.by_kind()`` sums it
over operator kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib import import_module
from typing import Any, ClassVar, Generic, TypeVar

from accelsim.errors import AccelsimError
from accelsim.results.result import OperatorResult
from accelsim.results.text import bytes_text, count_text, percent_text

Row = TypeVar("Row")

MAX_ROWS = 60
"""Rows that a table shows; the rest is counted, not printed."""

CSS = (
    "<style>.accelsim{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    ".accelsim th,.accelsim td{padding:.25em .8em;text-align:right;border:0}"
    ".accelsim th{border-bottom:1px solid #8888}"
    ".accelsim .left{text-align:left}</style>"
)


@dataclass(frozen=True)
class Column:
    """One column: its heading, how a row reads in it, and whether it is aligned to the left."""

    title: str
    text: Callable[[Any], str]
    left: bool = False


def text_table(columns: Sequence[Column], rows: Iterable[Any], indent: str = "") -> str:
    """Rows as aligned text with a rule under the headings."""
    cells = [[column.text(row) for column in columns] for row in rows]
    titles = [column.title for column in columns]
    widths = [max(map(len, one)) for one in zip(titles, *cells, strict=True)]
    lines = [
        indent + "  ".join(
            cell.ljust(width) if column.left else cell.rjust(width)
            for column, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in (titles, *cells)
    ]  # fmt: skip
    rule = indent + "─" * (sum(widths) + 2 * len(widths) - 2)
    return "\n".join((lines[0], rule, *lines[1:]))


def html_table(columns: Sequence[Column], rows: Iterable[Any]) -> str:
    """Rows as an HTML table of class "accelsim"; its style sheet is ``CSS``."""

    def line(tag: str, cells: Iterable[str]) -> str:
        marked = (
            f"<{tag}{' class=left' if column.left else ''}>{escape(cell)}</{tag}>"
            for column, cell in zip(columns, cells, strict=True)
        )
        return f"<tr>{''.join(marked)}</tr>"

    head = line("th", (column.title for column in columns))
    body = "".join(line("td", (column.text(row) for column in columns)) for row in rows)
    return f'<table class="accelsim"><thead>{head}</thead><tbody>{body}</tbody></table>'


class Table(tuple[Row, ...], Generic[Row]):
    """A tuple of equal records that shows itself as a table."""

    columns: ClassVar[tuple[Column, ...]] = ()

    def __str__(self) -> str:
        return "\n".join((text_table(self.columns, self[:MAX_ROWS]), *self._rest()))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rest = "".join(f"<p>{line}</p>" for line in self._rest())
        return CSS + html_table(self.columns, self[:MAX_ROWS]) + rest

    def _rest(self) -> list[str]:
        return [f"… and {len(self) - MAX_ROWS} more rows"] if len(self) > MAX_ROWS else []

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain values, one dictionary per row."""
        return [asdict(row) for row in self]  # type: ignore[call-overload]

    def to_pandas(self) -> Any:
        """A pandas DataFrame; nested values become columns such as "traffic_bytes.read".

        Raises:
            AccelsimError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")  # optional: the extra [data]
        except ImportError:
            raise AccelsimError(
                "to_pandas needs pandas; install it with: pip install 'accelsim[data]'"
            ) from None
        return pandas.json_normalize(self.to_dicts())


@dataclass(frozen=True)
class KindResult:
    """All operators of one kind: how often they run and what they took together.

    ``share`` is of the run's cycles, ``utilization`` that of the arrays while these operators
    ran, ``bottleneck`` the resource that limits most of their time.
    """

    kind: str
    count: int
    cycles: float
    share: float
    macs: int
    traffic_bytes: dict[str, int]
    energy_pj: float
    utilization: float
    bottleneck: str


class KindTable(Table[KindResult]):
    """What each kind of operator took, the longest first."""

    columns = (
        Column("operator", lambda row: row.kind, left=True),
        Column("count", lambda row: f"{row.count:,}"),
        Column("cycles", lambda row: count_text(round(row.cycles))),
        Column("share", lambda row: percent_text(row.share)),
        Column("MACs", lambda row: count_text(row.macs)),
        Column("read", lambda row: bytes_text(row.traffic_bytes["read"])),
        Column("written", lambda row: bytes_text(row.traffic_bytes["write"])),
        Column("array", lambda row: percent_text(row.utilization) if row.macs else "-"),
        Column("bound by", lambda row: row.bottleneck, left=True),
    )


class PassTable(Table[KindResult]):
    """What each part of a training step took, in their order."""

    columns = (Column("pass", lambda row: row.kind, left=True), *KindTable.columns[1:])


class OperatorTable(Table[OperatorResult]):
    """Operators in execution order; times and amounts are over all their repetitions."""

    columns = (
        Column("operator", lambda row: row.name, left=True),
        Column("kind", lambda row: row.kind, left=True),
        Column("count", lambda row: f"{row.repeat:,}"),
        Column("cycles", lambda row: count_text(round(row.cycles))),
        Column("MACs", lambda row: count_text(row.macs)),
        Column("read", lambda row: bytes_text(row.traffic_bytes["read"])),
        Column("written", lambda row: bytes_text(row.traffic_bytes["write"])),
        Column("array", lambda row: percent_text(row.utilization) if row.macs else "-"),
        Column("bound by", lambda row: row.bottleneck, left=True),
    )

    def to_dicts(self) -> list[dict[str, Any]]:
        return [row.to_dict() for row in self]

    def by_kind(self) -> KindTable:
        """Sums over the operators of each kind, the longest first."""
        total = sum(row.cycles for row in self)
        kinds = dict.fromkeys(row.kind for row in self)
        sums = [_summed(kind, [row for row in self if row.kind == kind], total) for kind in kinds]
        return KindTable(sorted(sums, key=lambda row: -row.cycles))

    def by_pass(self, passes: Mapping[str, str]) -> PassTable:
        """Sums over the operators of each part of a training step; ``passes`` by their names."""
        total = sum(row.cycles for row in self)
        parts = dict.fromkeys(passes[row.name] for row in self)
        return PassTable(
            _summed(part, [row for row in self if passes[row.name] == part], total)
            for part in parts
        )


def _summed(kind: str, rows: Sequence[OperatorResult], total: float) -> KindResult:
    cycles = sum(row.cycles for row in rows)
    limits: dict[str, float] = {}
    for row in rows:
        limits[row.bottleneck] = limits.get(row.bottleneck, 0.0) + row.cycles
    return KindResult(
        kind=kind,
        count=sum(row.repeat for row in rows),
        cycles=cycles,
        share=cycles / total if total else 0.0,
        macs=sum(row.macs for row in rows),
        traffic_bytes={
            way: sum(row.traffic_bytes[way] for row in rows) for way in ("read", "write")
        },
        energy_pj=sum(row.energy_pj for row in rows),
        utilization=sum(row.utilization * row.cycles for row in rows) / cycles if cycles else 0.0,
        bottleneck=max(limits, key=lambda name: limits[name]),
    )
