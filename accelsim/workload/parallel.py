"""The part of a transformer that one device holds: tensor and pipeline parallelism.

    tensor     heads, feed-forward columns and rows of the vocabulary are split over `tp` devices;
               what the output projections leave is a part of a sum, which an all-reduce completes:
               here the sum of the other devices' parts is an input that is added
    pipeline   the layers are split over `pp` stages of equally many; a stage but the first takes
               the rows of the one before, the last has the final norm and the vocabulary head

Device 0 of every stage is described; it adds the biases behind the all-reduce. Time on the links
between devices is not part of a device's graph: how many bytes they carry is told.

Source: Shoeybi et al., Megatron-LM, 2019 (arXiv 1909.08053), section 3; ring all-reduce: Patarasuk
and Yuan, J. Parallel Distrib. Comput. 69, 2009 (each device sends 2 (n - 1) / n of the data).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from accelsim.errors import AccelsimError
from accelsim.workload._words import parse_whole
from accelsim.workload.tensors import DTYPES
from accelsim.workload.transformer_config import TransformerConfig

PARALLEL_KEYS = ("tp", "pp", "stage")


@dataclass(frozen=True)
class Parallel:
    """How a model is spread: over ``tp`` x ``pp`` devices, of which one of pipeline stage ``stage``
    is described."""

    tp: int = 1
    pp: int = 1
    stage: int = 0

    @property
    def first(self) -> bool:
        """Whether the stage begins with the embedding."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Whether the stage ends with the vocabulary head."""
        return self.stage == self.pp - 1

    @property
    def settings(self) -> dict[str, str | int]:
        """What was asked for, as a report prints it."""
        found: dict[str, str | int] = {"tp": self.tp} if self.tp > 1 else {}
        if self.pp > 1:
            found |= {"pp": self.pp, "stage": self.stage}
        return found

    def words(self, reduced: int, rows: int, hidden: int, dtype: str) -> tuple[str, ...]:
        """What a device's graph takes for granted, in plain words; ``reduced`` results [rows,
        hidden] of it are completed by an all-reduce."""
        found, size = [], rows * hidden * DTYPES[dtype].bits // 8
        if self.tp > 1:
            sent = reduced * size * 2 * (self.tp - 1) // self.tp
            found.append(
                f"tensor parallel: one of {self.tp} devices; {reduced} all-reduces, in a ring"
                f" {sent:,} bytes sent per device; their time on the links is not counted, adding"
                " what arrives is"
            )
        if self.pp > 1:
            found.append(
                f"pipeline parallel: stage {self.stage} of {self.pp}; {size:,} bytes from stage to"
                " stage, their time on the links is not counted"
            )
        return tuple(found)


def parallel(config: TransformerConfig, tp: object, pp: object, stage: object) -> Parallel:
    """The spread that a user's words describe; the last stage unless told, which has the head.

    Raises:
        AccelsimError: no whole numbers, or ones that do not divide the model.
    """
    wide = parse_whole(tp, f"{config}: tp")
    deep = parse_whole(pp, f"{config}: pp")
    if config.layers % deep:
        raise AccelsimError(f"{config}: pp {deep}; accepted: a divisor of layers {config.layers}")
    chosen = deep - 1 if stage is None else parse_whole(stage, f"{config}: stage", least=0)
    if chosen >= deep:
        raise AccelsimError(f"{config}: stage {chosen}; accepted: 0 to {deep - 1}, below pp")
    if deep > 1 and (config.dense_layers or not config.causal):
        what = "an encoder" if not config.causal else "layers of two kinds"
        raise AccelsimError(f"{config}: pp {deep} with {what}; accepted: 1")
    return Parallel(wide, deep, chosen)


def device_part(config: TransformerConfig, spread: Parallel) -> TransformerConfig:
    """What one device of a stage holds, as a smaller transformer of the same width.

    Rows of the vocabulary are rounded up; key heads that are fewer than devices are on several.
    """
    tp = spread.tp
    split = {"heads": config.heads, "ffn": config.ffn}
    split |= {"expert_ffn": config.expert_ffn, "shared_ffn": config.shared_ffn}
    for name, size in split.items():
        if size % tp:
            raise AccelsimError(f"{config}: tp {tp}; accepted: a divisor of {name} {size}")
    if config.kv_heads % tp and tp % config.kv_heads:
        raise AccelsimError(
            f"{config}: tp {tp}; accepted: a divisor or a multiple of kv_heads {config.kv_heads}"
        )
    parts = {name: size // tp for name, size in split.items()}
    return replace(
        config,
        kv_heads=max(1, config.kv_heads // tp),
        vocab=-(-config.vocab // tp),
        layers=config.layers // spread.pp,
        **parts,  # type: ignore[arg-type]
    )
