"""YAML as plain lists and tables that remember the line they stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.workload._words import shown


class Table(dict[str, Any]):
    """A YAML mapping with the line of each key."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}

    def line_of(self, key: str) -> int:
        """Line of a key, or of the mapping when it lacks the key."""
        return self.lines.get(key, self.line)


def load_table(file: Path) -> Table:
    """The mapping at the top of a YAML file.

    Raises:
        AccelsimError: with file:line, for a missing file, invalid YAML, a key given twice or a
            top level that is no mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader that builds Tables."""

    def construct(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Table:
        table = Table(node.start_mark.line + 1)
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str) or key in table:
                problem = "is given twice" if isinstance(key, str) else "is not a word"
                raise AccelsimError(f"{file}:{line}: key {shown(key)} {problem}")
            table[key] = loader.construct_object(value_node, deep=True)
            table.lines[key] = line
        return table

    Loader.add_constructor("tag:yaml.org,2002:map", construct)
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=Loader)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AccelsimError(f"{file}: cannot read it ({reason}); accepted: a YAML file") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise AccelsimError(f"{file}{line}: invalid YAML: {error.problem}") from None
    # An explicit tag (!!bool x) makes the YAML library fail with whatever its conversion raises.
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError):
        raise AccelsimError(f"{file}: not a YAML text; accepted: UTF-8 YAML") from None
    if not isinstance(content, Table):
        raise AccelsimError(f"{file}:1: the top level is not a mapping; accepted: KEY: VALUE")
    return content
