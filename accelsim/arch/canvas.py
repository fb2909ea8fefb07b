"""A drawing of characters: boxes and wires that join where they meet."""

from __future__ import annotations

from dataclasses import dataclass, field

NORTH, SOUTH, EAST, WEST = 1, 2, 4, 8

_LINES = {
    "─": EAST | WEST, "│": NORTH | SOUTH, "┌": SOUTH | EAST, "┐": SOUTH | WEST,
    "└": NORTH | EAST, "┘": NORTH | WEST, "├": NORTH | SOUTH | EAST, "┤": NORTH | SOUTH | WEST,
    "┬": SOUTH | EAST | WEST, "┴": NORTH | EAST | WEST, "┼": NORTH | SOUTH | EAST | WEST,
}  # fmt: skip
_BY_SIDES = {sides: char for char, sides in _LINES.items()}


@dataclass
class Canvas:
    """Characters by (row, column); lines drawn over each other join unless told to cross."""

    cells: dict[tuple[int, int], str] = field(default_factory=dict)
    sides: dict[tuple[int, int], int] = field(default_factory=dict)

    def text(self, row: int, column: int, text: str) -> None:
        """Write text over whatever is there."""
        for offset, char in enumerate(text):
            self.cells[row, column + offset] = char
            self.sides[row, column + offset] = _LINES.get(char, 0)

    def join(self, row: int, column: int, sides: int) -> None:
        """Add the given sides to the line at a place."""
        sides |= self.sides.get((row, column), 0)
        self.sides[row, column] = sides
        # The loose end of a wire, with one side only, looks like the wire itself.
        self.cells[row, column] = _BY_SIDES.get(sides, "│" if sides <= SOUTH else "─")

    def horizontal(self, row: int, first: int, last: int) -> None:
        """A wire along a row, both ends included."""
        for column in range(first, last + 1):
            sides = (WEST if column > first else 0) | (EAST if column < last else 0)
            self.join(row, column, sides)

    def vertical(self, column: int, first: int, last: int) -> None:
        """A wire along a column, both ends included."""
        for row in range(first, last + 1):
            self.join(row, column, (NORTH if row > first else 0) | (SOUTH if row < last else 0))

    def passing(self, column: int, first: int, last: int) -> None:
        """A wire along a column that passes over other wires without a joint."""
        for row in range(first, last + 1):
            self.text(row, column, "│")

    def box(self, row: int, column: int, title: str, lines: list[str], width: int) -> None:
        """A box of ``width`` columns with its title in the upper edge."""
        self.text(row, column, f"┌ {title} ".ljust(width - 1, "─") + "┐")
        for offset, line in enumerate(lines, 1):
            self.text(row + offset, column, f"│ {line.ljust(width - 4)} │")
        self.text(row + len(lines) + 1, column, "└" + "─" * (width - 2) + "┘")

    def frame(self, top: int, bottom: int, width: int, title: str) -> None:
        """A double frame around rows ``top`` to ``bottom``; wires through its upper edge stay."""
        self.text(bottom, 0, "╚" + "═" * (width - 2) + "╝")
        for row in range(top + 1, bottom):
            self.text(row, 0, "║")
            self.text(row, width - 1, "║")
        for column, char in enumerate(f"╔═ {title} ".ljust(width - 1, "═") + "╗"):
            wire = self.cells.get((top, column)) == "│" and char == "═"
            self.cells[top, column] = "╪" if wire else char

    def render(self) -> str:
        """All rows as text, without trailing blanks."""
        height = 1 + max((row for row, _ in self.cells), default=-1)
        width = 1 + max((column for _, column in self.cells), default=-1)
        rows = ("".join(self.cells.get((r, c), " ") for c in range(width)) for r in range(height))
        return "\n".join(row.rstrip() for row in rows)
