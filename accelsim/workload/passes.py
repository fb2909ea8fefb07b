"""One forward pass of a transformer: which sequences, which positions are new, what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from accelsim.errors import AccelsimError
from accelsim.workload._words import did_you_mean, listed, parse_whole, shown
from accelsim.workload.requests import contexts as drawn_contexts
from accelsim.workload.requests import data_set, given_contexts
from accelsim.workload.tensors import dtype_named
from accelsim.workload.transformer_config import TransformerConfig

PHASES = ("prefill", "decode", "encode")
LOGITS = ("last", "all")
DEFAULT_TOKENS = 512
DEFAULT_CONTEXT = 1024


@dataclass(frozen=True)
class Pass:
    """One forward pass: how many sequences, which positions are new, what is computed.

    Attributes:
        phase: "prefill", "decode" or "encode".
        batch: sequences.
        q_len: new tokens per sequence.
        kv_len: tokens per sequence that attention sees, the new ones included.
        dtype: storage format of weights, activations and cache.
        logits: "last" computes the language-model head for the last token only, or "all".
        kv_dtype: storage format of the cache where it is another one ("").
        page: tokens of a page of the cache, 0 if sequences lie in one piece.
        prefix: tokens at the beginning of the context that all sequences have in common.
        contexts: in a decode, the kv_len of each sequence where they differ; kv_len is the longest.
        drawn: the data set and the seed that they were drawn with, or the file that gave them.
    """

    phase: str
    batch: int
    q_len: int
    kv_len: int
    dtype: str
    logits: str
    kv_dtype: str = ""
    page: int = 0
    prefix: int = 0
    contexts: tuple[int, ...] = ()
    drawn: tuple[tuple[str, str | int], ...] = ()

    @property
    def position(self) -> int:
        """Position of the first new token, in the longest sequence."""
        return self.kv_len - self.q_len

    @property
    def positions(self) -> tuple[int, ...]:
        """Position of the new token of each sequence where they differ."""
        return tuple(tokens - 1 for tokens in self.contexts)

    @property
    def rows(self) -> int:
        """Rows of the activation matrices: new tokens of all sequences."""
        return self.batch * self.q_len

    @property
    def settings(self) -> dict[str, str | int]:
        """What was asked for, as a report prints it."""
        length: dict[str, str | int] = {"tokens": self.q_len}
        if self.phase == "decode":
            length = {"context": self._context, **dict(self.drawn)}
        cache: dict[str, str | int] = {"kv_dtype": self.kv_dtype}
        cache |= {"page": self.page, "prefix": self.prefix}
        told: dict[str, str | int] = {"phase": self.phase, "batch": self.batch, **length}
        told["dtype"] = self.dtype
        return told | {key: value for key, value in cache.items() if value}

    @property
    def _context(self) -> str | int:
        if not self.contexts:
            return self.kv_len
        mean = sum(self.contexts) / self.batch
        return f"{min(self.contexts)} to {self.kv_len}, mean {mean:.1f}"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What was drawn, in plain words."""
        drawn = dict(self.drawn)
        if "dataset" not in drawn:
            return ()
        return (
            f"requests: contexts of {self.batch} requests drawn from the published length"
            f" statistics of {drawn['dataset']} (seed {drawn['seed']}): {self._context} tokens;"
            " log-normal lengths, seen at a random moment of decoding",
        )


def forward_pass(
    config: TransformerConfig,
    *,
    phase: str | None = None,
    batch: object = None,
    tokens: object = None,
    context: object = None,
    dtype: str = "bf16",
    logits: str = "last",
    kv_dtype: str = "",
    page: object = 0,
    prefix: object = 0,
    dataset: object = None,
    seed: object = 0,
    contexts: object = None,
) -> Pass:
    """The pass that a user's words describe, checked against the model.

    Args:
        phase: "prefill" (`tokens` new tokens per sequence into an empty cache), "decode" (one
            new token per sequence; `context` counts the tokens in the cache after it was
            appended, so the new token is the last of the context), or "encode" for BERT (all
            tokens see each other). By default prefill, or encode for BERT.
        batch: sequences, by default 1, or as many as `contexts` says.
        tokens: new tokens per sequence, by default 512; not for decode.
        context: tokens attended to by the new one, itself included, by default 1024.
        dtype: fp32, fp16 or bf16.
        logits: "last" or "all": positions for which a decoder computes the vocabulary logits.
        kv_dtype: format of the KV cache, by default `dtype`; integers too.
        page: tokens of a page of the cache (PagedAttention), by default no pages.
        prefix: tokens, in whole pages, with which all sequences begin and which the cache holds
            once. In a prefill they are there already and `tokens` come behind them.
        dataset: alpaca or sharegpt, instead of `context`: every sequence has a context of its own,
            drawn from published lengths with `seed` (see workload.requests).
        contexts: the context of each sequence: a list, "12+300+7", or a file.

    Raises:
        AccelsimError: unknown word, a size that is no whole number, or one beyond the model.
    """
    default = "prefill" if config.causal else "encode"
    chosen = _choice(config, "phase", default if phase is None else phase, PHASES)
    ragged = {"dataset": dataset, "contexts": contexts}
    _check_phase(config, chosen, tokens, {"context": context, **ragged})
    if not dtype_named(dtype, str(config)).is_float:
        raise AccelsimError(f"{config}: dtype is '{dtype}'; accepted: fp32, fp16, bf16")
    paged = {
        "page": parse_whole(page, f"{config}: page", least=0),
        "prefix": parse_whole(prefix, f"{config}: prefix", least=0),
    }
    count, held, drawn = _sequences(config, batch, context, dataset, seed, contexts)
    if chosen == "decode":
        q_len, kv_len = 1, max(held)
    else:
        q_len = parse_whole(DEFAULT_TOKENS if tokens is None else tokens, f"{config}: tokens")
        kv_len = q_len + (paged["prefix"] if chosen == "prefill" else 0)
        held = (kv_len,)
    _check_length(config, kv_len)
    _check_cache(config, min(held) - q_len, kv_dtype, **paged)
    return Pass(
        phase=chosen,
        batch=count,
        q_len=q_len,
        kv_len=kv_len,
        dtype=dtype,
        logits=_choice(config, "logits", logits, LOGITS),
        kv_dtype="" if kv_dtype == dtype else kv_dtype,
        contexts=held if len({*held}) > 1 else (),
        drawn=drawn,
        **paged,
    )


Drawn = tuple[tuple[str, str | int], ...]


def _sequences(
    config: TransformerConfig,
    batch: object,
    context: object,
    dataset: object,
    seed: object,
    given: object,
) -> tuple[int, tuple[int, ...], Drawn]:
    """How many sequences, their contexts (one for all if they are alike), and where they are
    from."""
    count = parse_whole(1 if batch is None else batch, f"{config}: batch")
    if dataset is not None:
        data = data_set(dataset, str(config))
        number = parse_whole(seed, f"{config}: seed", least=0)
        held = drawn_contexts(data, count, number, config.positions)
        return count, held, (("dataset", data.name), ("seed", number))
    if given is not None:
        held = given_contexts(given, str(config))
        if batch is not None and count != len(held):
            raise AccelsimError(
                f"{config}: batch {count} with {len(held)} contexts; accepted: as many"
            )
        named = isinstance(given, str) and not given[:1].isdigit()
        return len(held), held, (("contexts", str(given)),) if named else ()
    length = DEFAULT_CONTEXT if context is None else context
    return count, (parse_whole(length, f"{config}: context"),), ()


def _choice(config: TransformerConfig, what: str, value: str, accepted: tuple[str, ...]) -> str:
    if value in accepted:
        return value
    hint = did_you_mean(str(value), accepted)
    raise AccelsimError(f"{config}: {what} is {shown(value)}{hint}; accepted: {listed(accepted)}")


def _check_phase(
    config: TransformerConfig, phase: str, tokens: object, lengths: Mapping[str, object]
) -> None:
    """``lengths``: the ways to say what the cache holds."""
    if config.causal == (phase == "encode"):
        accepted = "prefill, decode" if config.causal else "encode"
        raise AccelsimError(f"{config}: phase is '{phase}'; accepted for it: {accepted}")
    if phase == "decode" and tokens is not None:
        raise AccelsimError(f"{config}: decode takes one token per sequence; accepted: context=")
    said = [name for name, value in lengths.items() if value is not None]
    if phase != "decode" and said:
        raise AccelsimError(
            f"{config}: {phase} starts from an empty cache; accepted: tokens=, not {said[0]}="
        )
    if len(said) > 1:
        raise AccelsimError(f"{config}: {said[0]} and {said[1]}; accepted: one of them")


def _check_cache(
    config: TransformerConfig, held: int, kv_dtype: str, page: int, prefix: int
) -> None:
    """A cache that holds ``held`` tokens before the pass."""
    if kv_dtype:
        dtype_named(kv_dtype, f"{config}: kv_dtype")
    if prefix and not page:
        raise AccelsimError(f"{config}: prefix {prefix}; accepted: with page=, tokens of a page")
    if prefix and (prefix % page or prefix > held):
        raise AccelsimError(
            f"{config}: prefix {prefix}; accepted: whole pages of {page}, at most the {held} tokens"
            " before the new ones"
        )


def _check_length(config: TransformerConfig, kv_len: int) -> None:
    if not config.rotary and kv_len > config.positions:
        raise AccelsimError(
            f"{config}: {kv_len} tokens; accepted: up to its {config.positions} learned positions"
        )
