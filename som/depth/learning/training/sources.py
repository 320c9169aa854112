"""Source frames of every target, for the data set of a training run."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.data.dataset import SourceRule
from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.views import SourceConfig, choose_sources


def time_offsets(count: int, step: int) -> tuple[int, ...]:
    """Alternately before and after the target: -step, step, -2 step, 2 step, ..."""
    return tuple((-1 if k % 2 == 0 else 1) * (k // 2 + 1) * step for k in range(count))


def rule_name(
    config: DepthTrainingConfig,
) -> Literal["consecutive", "offset", "baseline", "overlap", "two_view"]:
    """The rule that chooses the sources, with ``auto`` resolved."""
    if config.sources != "auto":
        return config.sources
    return "baseline" if config.network.name == "mvdepthnet" else "consecutive"


def source_frames(
    config: DepthTrainingConfig, sequence: DepthSequence, scene_depth: float | Float[Tensor, "t"] | None
) -> Int[Tensor, "t s"]:
    """Frames that are warped into each target; -1 in a row means that the frame cannot be a target.

    Where a target lacks a source on one side (at the ends of a video), the mirrored one takes its place, then any that
    it has, twice.

    Args:
        scene_depth: typical depth in the unit of the poses, needed by the rules that look at cameras.

    Raises:
        DepthError: the rule needs poses, intrinsics or a depth that are not known.
    """
    name = rule_name(config)
    if name == "consecutive" or name == "offset":
        step = config.source_offset if name == "offset" else 1
        offsets = time_offsets(config.num_sources, step)
        chosen = choose_sources(SourceConfig("index", offsets=offsets), len(sequence))
        mirrored = choose_sources(SourceConfig("index", offsets=tuple(-o for o in offsets)), len(sequence))
    else:
        rule = SourceConfig(name, count=config.num_sources)
        if scene_depth is None and name == "baseline":
            raise DepthError(
                "sources by baseline need the scene's depth; set network.initial_depth to about its median."
            )
        chosen = choose_sources(
            rule, len(sequence), w2c=sequence.w2cs, K=sequence.Ks, depth=scene_depth, size=sequence.size
        )
        mirrored = chosen
    return _filled(chosen, mirrored)


def _filled(chosen: Int[Tensor, "t s"], spare: Int[Tensor, "t s"]) -> Int[Tensor, "t s"]:
    """Every -1 replaced by a spare source that is not used yet, else by one that is; rows without any stay -1."""
    rows = []
    for own, others in zip(chosen.tolist(), spare.tolist(), strict=True):
        have = [s for s in own if s >= 0]
        for other in others:
            if len(have) < len(own) and other >= 0 and other not in have:
                have.append(other)
        rows.append([have[k % len(have)] for k in range(len(own))] if have else [-1] * len(own))
    return torch.tensor(rows, dtype=torch.long)


def source_rule(config: DepthTrainingConfig, sequences: list[DepthSequence], scene_depth: float | None) -> SourceRule:
    """The rule in the form that ``DepthDataset`` takes.

    Raises:
        DepthError: as ``source_frames``.
    """
    tables = {id(sequence): source_frames(config, sequence, scene_depth).tolist() for sequence in sequences}

    def rule(sequence: DepthSequence, target: int) -> list[int] | None:
        row = tables[id(sequence)][target]
        return None if row[0] < 0 else row

    return rule
