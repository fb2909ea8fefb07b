"""What a user says about routing, in words or in a file, and the routing of each layer from it.

A file or a Python value gives, for all layers or for one expert layer after the other,

    expert ids per token    JSON [[0, 3], [1, 2], ...], or CSV with one line per token: 0,3
    tokens per expert       JSON {"counts": [5, 0, 2, ...]}, or CSV with a first line expert,tokens

and several layers as a JSON list of such tables, or {"counts": [[...], [...]]}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.workload._words import did_you_mean, listed, parse_float, parse_whole, shown, whole
from accelsim.workload.routing import GIVEN, MODELS, Routing

if TYPE_CHECKING:
    from accelsim.workload.transformer_config import TransformerConfig

ROUTING_KEYS = ("routing", "skew", "seed", "draw")
DRAWS = ("once", "layer")
LARGEST_SKEW = 10.0
SUFFIXES = (".json", ".csv")

Table = tuple[tuple[int, ...], ...]
"""Expert ids [tokens][top_k], or one row of tokens per expert."""


@dataclass(frozen=True)
class RoutingChoice:
    """How tokens find their experts, for all layers of a model.

    Attributes:
        model: one of routing.MODELS, or GIVEN.
        skew, seed: of a drawn routing.
        draw: "once" for all layers, so that they stay identical and one is simulated; or "layer".
        source: what gave the routing, as messages and reports call it.
        tables: given ids, or with `counted` tokens per expert, one table or one for each layer.
    """

    model: str = "uniform"
    skew: float = 0.0
    seed: int = 0
    draw: str = "once"
    source: str = ""
    tables: tuple[Table, ...] = ()
    counted: bool = False

    @property
    def settings(self) -> dict[str, str | int]:
        """What was asked for, as a report prints it."""
        found: dict[str, str | int] = {"routing": self.source or self.model}
        if self.model == "zipf":
            found["skew"] = f"{self.skew:g}"
        if self.model in ("uniform", "zipf"):
            found["seed"] = self.seed
            if self.draw == "layer":
                found["draw"] = self.draw
        return found

    @property
    def differs(self) -> bool:
        """Whether layers have routings of their own."""
        return len(self.tables) > 1 or (self.draw == "layer" and self.model != "balanced")

    def words(self) -> str:
        """The choice as a sentence begins."""
        kind = {
            "balanced": "tokens are spread evenly over the experts",
            "uniform": f"tokens choose experts at random (seed {self.seed})",
            "zipf": f"tokens choose experts of popularity 1/rank^{self.skew:g} (seed {self.seed})",
            GIVEN: f"tokens visit experts as {self.source} says",
        }[self.model]
        return f"{kind}, {'each layer' if self.differs else 'all layers alike'}"

    def of_layer(self, config: TransformerConfig, tokens: int, index: int) -> Routing:
        """The routing of the expert layer number `index`, checked against the model."""
        form = Routing(
            tokens=tokens,
            experts=config.routed_experts,
            top_k=config.experts_per_token,
            computing=config.experts,
            zero=config.zero_experts,
            model=self.model,
            skew=self.skew,
            seed=self.seed,
            layer=index if self.differs else 0,
            groups=config.expert_groups,
            groups_kept=config.groups_per_token,
            group_votes=2 if config.scoring == "sigmoid" else 1,
        )
        if self.model != GIVEN:
            return form
        table = self.tables[index if len(self.tables) > 1 else 0]
        ids = self._from_counts(form, table[0]) if self.counted else self._checked(form, table)
        return replace(form, ids=ids, groups=0, groups_kept=0, group_votes=1)

    def check_layers(self, expert_layers: int) -> None:
        """Raise AccelsimError unless there is one table, or one for each expert layer."""
        if len(self.tables) not in (0, 1, expert_layers):
            raise AccelsimError(
                f"{self.source}: routing of {len(self.tables)} layers;"
                f" accepted: one for all, or of {expert_layers} layers with experts"
            )

    def _checked(self, form: Routing, table: Table) -> tuple[int, ...]:
        if len(table) != form.tokens:
            raise AccelsimError(
                f"{self.source}: routing of {len(table)} tokens; accepted: {form.tokens}"
            )
        for token, ids in enumerate(table):
            legal = all(0 <= e < form.experts for e in ids)
            if len(ids) != form.top_k or len({*ids}) != len(ids) or not legal:
                raise AccelsimError(
                    f"{self.source}: token {token} visits {shown(list(ids))}; accepted:"
                    f" {form.top_k} different experts from 0 to {form.experts - 1}"
                )
        return tuple(e for ids in table for e in ids)

    def _from_counts(self, form: Routing, counts: tuple[int, ...]) -> tuple[int, ...]:
        """An assignment with these counts: experts laid out one behind the other, token after
        token; no expert has more places than there are tokens, so a token meets none twice."""
        visits = form.tokens * form.top_k
        if len(counts) != form.experts or sum(counts) != visits or max(counts) > form.tokens:
            raise AccelsimError(
                f"{self.source}: {sum(counts)} tokens on {len(counts)} experts, at most"
                f" {max(counts)} on one; accepted: {visits} on {form.experts}, at most"
                f" {form.tokens} on one"
            )
        line = [expert for expert, count in enumerate(counts) for _ in range(count)]
        return tuple(
            line[t + j * form.tokens] for t in range(form.tokens) for j in range(form.top_k)
        )


def routing_choice(config: TransformerConfig, words: Mapping[str, object]) -> RoutingChoice:
    """The routing that a user's words describe: `routing`, `skew`, `seed`, `draw`.

    Raises:
        AccelsimError: for a model without experts, an unknown word, a file that is none, or words
            that do not go together.
    """
    if words and not config.experts:
        word = next(iter(words))
        other = ", or with dataset=" if word == "seed" else ""
        raise AccelsimError(f"{config}: '{word}' without experts; accepted: a mixture{other}")
    asked = words.get("routing", "uniform")
    if not isinstance(asked, str):
        choice = _given(asked, f"{config}: routing")
    elif asked in MODELS:
        choice = RoutingChoice(model=asked, skew=1.0 if asked == "zipf" else 0.0)
    else:
        choice = _read(config, asked)
    drawn = choice.model in ("uniform", "zipf")
    for key, fits in (("skew", choice.model == "zipf"), ("seed", drawn), ("draw", drawn)):
        if key in words and not fits:
            accepted = "zipf" if key == "skew" else "uniform or zipf"
            raise AccelsimError(
                f"{config}: '{key}' with routing={asked}; accepted: with {accepted}"
            )
    if "skew" in words:
        choice = replace(choice, skew=_skew(config, words["skew"]))
    if "seed" in words:
        choice = replace(choice, seed=parse_whole(words["seed"], f"{config}: seed", least=0))
    if "draw" in words:
        choice = replace(choice, draw=_draw(config, words["draw"]))
    return choice


def _skew(config: TransformerConfig, value: object) -> float:
    skew = parse_float(value, f"{config}: skew")
    if not 0.0 <= skew <= LARGEST_SKEW:
        raise AccelsimError(f"{config}: skew is {skew:g}; accepted: 0 to {LARGEST_SKEW:g}")
    return skew


def _draw(config: TransformerConfig, value: object) -> str:
    if value in DRAWS:
        return str(value)
    raise AccelsimError(f"{config}: draw is {shown(value)}; accepted: {listed(DRAWS)}")


def _read(config: TransformerConfig, name: str) -> RoutingChoice:
    """The routing in a file."""
    path = Path(name)
    if path.suffix not in SUFFIXES or not path.is_file():
        hint = did_you_mean(name, MODELS)
        raise AccelsimError(
            f"{config}: routing is {shown(name)}{hint};"
            f" accepted: {listed(MODELS)}, or a file ({listed(SUFFIXES)})"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix == ".json" else _csv(text, name)
    except OSError as error:
        raise AccelsimError(
            f"{name}: cannot read it ({error.strerror}); accepted: a file"
        ) from None
    except json.JSONDecodeError as error:
        raise AccelsimError(f"{name}:{error.lineno}: invalid JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise AccelsimError(f"{name}: not a text; accepted: UTF-8 JSON or CSV") from None
    return _given(content, name)


def _csv(text: str, where: str) -> Any:
    """What the lines of a CSV mean, as JSON would say it; # begins a comment."""
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in lines if line and not line.startswith("#")]
    counted = bool(lines) and lines[0][1].replace(" ", "") == "expert,tokens"
    rows = [
        [parse_whole(cell, f"{where}:{n}: an entry", least=0) for cell in line.split(",")]
        for n, line in lines[counted:]
    ]
    if not counted:
        return rows
    if any(len(row) != 2 for row in rows) or [row[0] for row in rows] != [*range(len(rows))]:
        raise AccelsimError(f"{where}: experts are not 0, 1, 2, ...; accepted: EXPERT,TOKENS lines")
    return {"counts": [row[1] for row in rows]}


def _given(content: object, where: str) -> RoutingChoice:
    """The routing that a JSON value describes."""
    counted = isinstance(content, dict)
    if isinstance(content, dict):
        if set(content) != {"counts"}:
            raise AccelsimError(f"{where}: keys {shown([*content])}; accepted: counts")
        content = content["counts"]
    content = getattr(content, "tolist", lambda: content)()  # a numpy array
    depth = _depth(content)
    wanted = (1, 2) if counted else (2, 3)
    if depth not in wanted:
        form = "counts [experts] or [layers, experts]" if counted else "ids [tokens, experts]"
        raise AccelsimError(f"{where} is {shown(content)}; accepted: {form}")
    tables: Any = content if depth == wanted[1] else [content]
    if counted:
        tables = [[row] for row in tables]
    entry = f"{where}: an entry"
    return RoutingChoice(
        model=GIVEN,
        source=where,
        counted=counted,
        tables=tuple(
            tuple(tuple(whole(e, entry, least=0) for e in _row(row, where)) for row in table)
            for table in tables
        ),
    )


def _row(row: object, where: str) -> list[Any]:
    if isinstance(row, list) and row:
        return row
    raise AccelsimError(f"{where}: {shown(row)} is no row; accepted: a list of whole numbers")


def _depth(content: object) -> int:
    """How deep lists are nested, by their first elements; 0 for what is no list or empty."""
    depth = 0
    while isinstance(content, list):
        if not content:
            return 0
        content, depth = content[0], depth + 1
    return depth
