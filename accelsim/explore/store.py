"""The results of a sweep on disk: a CSV that grows as points finish and can be resumed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError

FILE_NAME = "sweep.csv"
KEY = "key"


def store_path(out: str | Path) -> Path:
    """The CSV that ``out`` means: itself if it ends in .csv, else a file in that folder."""
    path = Path(out)
    return path if path.suffix.lower() == ".csv" else path / FILE_NAME


@dataclass(frozen=True)
class Store:
    """A CSV with one line per finished point, the first column its key.

    Lines are appended a chunk at a time and flushed, so that an interrupted sweep loses at most
    the chunks in flight. A last line that was torn is dropped when the sweep is resumed.
    """

    path: Path
    columns: tuple[str, ...]

    @classmethod
    def open(cls, out: str | Path, columns: Sequence[str], *, resume: bool) -> Store:
        """The store for these columns, created with its header unless it is resumed.

        Raises:
            AccelsimError: there are results already and this is no resume, they have other
                columns, or the file cannot be written.
        """
        store = cls(store_path(out), (KEY, *columns))
        try:
            if store._has_results() and not resume:
                raise AccelsimError(
                    f"{store.path}: holds results already; accepted: resume, or another name"
                )
            store._prepare()
        except OSError as fault:
            raise store._unwritable(fault) from None
        return store

    def _has_results(self) -> bool:
        return self.path.exists() and self.path.read_bytes().count(b"\n") > 1

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header = _line(self.columns)
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            self.path.write_text(header, encoding="utf-8", newline="")
            return
        self._check_header(whole.decode("utf-8").splitlines()[0])
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))

    def _check_header(self, line: str) -> None:
        found = next(csv.reader([line]), [])
        if tuple(found) == self.columns:
            return
        extra = ", ".join(sorted(set(found) - set(self.columns))) or "none"
        lacks = ", ".join(sorted(set(self.columns) - set(found))) or "none"
        raise AccelsimError(
            f"{self.path}:1: columns are not those of this sweep (too many: {extra}; missing: "
            f"{lacks}); accepted: the same axes, or another name"
        )

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add finished points. Raises AccelsimError when the file cannot be written."""
        text = "".join(_line(_shown(row.get(name)) for name in self.columns) for row in rows)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as fault:
            raise self._unwritable(fault) from None

    def read(self) -> dict[str, dict[str, str]]:
        """Every stored line by its key; of two with one key the later one counts.

        Raises:
            AccelsimError: a line that is no result, with its number.
        """
        found = {}
        with self.path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            next(reader, None)
            for cells in reader:
                if len(cells) != len(self.columns):
                    raise AccelsimError(
                        f"{self.path}:{reader.line_num}: has {len(cells)} columns; accepted: "
                        f"{len(self.columns)}, as its header"
                    )
                found[cells[0]] = dict(zip(self.columns, cells, strict=True))
        return found

    def _unwritable(self, fault: OSError) -> AccelsimError:
        return AccelsimError(f"{self.path}: cannot be written ({fault.strerror})")


def _line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(list(cells))
    return text.getvalue()


def _shown(value: Any) -> Any:
    return "" if value is None else value


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """A table as a CSV of its own. Raises AccelsimError when it cannot be written."""
    path = Path(path)
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(_line(columns))
            file.writelines(_line(_shown(row.get(name)) for name in columns) for row in rows)
    except OSError as fault:
        raise AccelsimError(f"{path}: cannot be written ({fault.strerror})") from None
    return path
