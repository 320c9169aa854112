"""The settings of a training run, which its work dir records in config.yaml. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from som.correspondence.config import FlowConfig
from som.data.config import CustomData, DavisData, DemoData, IphoneData
from som.errors import UserError
from som.initialization.config import InitializationConfig
from som.runs.work_dir import config_path
from som.settings.plain import check_same_settings, merge, read_settings
from som.settings.presets import load_preset
from som.training.config import TrainingConfig

Data = (
    Annotated[DemoData, tyro.conf.subcommand("demo", description="The built-in demo scene; needs nothing.")]
    | Annotated[CustomData, tyro.conf.subcommand("custom", description="A data set folder; its layout is recognised.")]
    | Annotated[DavisData, tyro.conf.subcommand("davis", description="A DAVIS sequence with Shape-of-Motion priors.")]
    | Annotated[IphoneData, tyro.conf.subcommand("iphone", description="A DyCheck (iPhone) sequence.")]
)


@dataclass
class TrainingRun:
    """Everything that a run is made from; a work dir's config.yaml holds all of it."""

    data: Data
    """Where the video comes from."""
    work_dir: Path = Path("out")
    """Gets config.yaml, checkpoints/, logs/, metrics.jsonl and val/."""
    config: str = "auto"
    """Preset in configs/ or a YAML file whose values the command line overrides; auto: ``cpu`` without an NVIDIA GPU,
    ``quality`` with one. Several are separated by commas and applied in order, as in auto,ablation/no_depth."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: cuda if there is one."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""
    seed: int = 0
    """Of every random choice; the same seed, device and version give the same result."""
    overwrite: bool = False
    """Start anew although the work dir holds a run (its checkpoints are deleted)."""
    align_depth: Literal["auto", "no", "scale", "scale_shift", "monotone"] = "auto"
    """Bring every frame's depth prior to the cameras, so that static points linked by optical flow agree: by a scale,
    by scale and shift of disparity, or by these and a rising curve; auto: ``monotone`` where the prior is ``relative``,
    nothing elsewhere."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    """Optical flow between the training views."""
    initialization: InitializationConfig = field(default_factory=InitializationConfig)
    """How the first scene is built from tracks and depth."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The optimisation."""


WHERE_NOT_WHAT = ("work_dir", "config", "device", "threads", "overwrite")
"""Settings that do not change what a run computes; a resumed run may change them."""


def with_presets(run: TrainingRun, names: str, auto: str | None) -> TrainingRun:
    """``run`` changed by presets, one after the other.

    Args:
        names: in configs/, or YAML files, separated by commas.
        auto: what the name ``auto`` stands for: ``quality`` with an NVIDIA GPU, ``cpu`` without; None for nothing.

    Raises:
        UserError: no such preset or file, or an entry that does not fit.
    """
    chosen = [auto or name if name == "auto" else name for name in names.split(",")]
    for name in chosen:
        if name != "auto":
            run = load_preset(run, name)
    return replace(run, config=",".join(chosen))


def check_training_run(run: TrainingRun) -> None:
    """Refuses values that cannot work, before any work is done.

    Raises:
        UserError: names the setting, what it must be and what it is.
    """
    training, density = run.training, run.training.density
    fractions = {
        "training.density.start": density.start,
        "training.density.end": density.end,
        "training.density.cull_opacity": density.cull_opacity,
        "training.density.reset_opacity": density.reset_opacity,
        "training.density.reset_at": max(density.reset_at, default=0.0),
        "training.depth_order.start": training.depth_order.start,
        "training.depth_order.full": training.depth_order.full,
        "training.depth_order.near_share": training.depth_order.near_share,
        "training.depth_order.near_radius": training.depth_order.near_radius,
    }
    for name, value in fractions.items():
        if not 0 <= value <= 1:
            raise UserError(f"`{name}`: must lie in [0, 1], got {value}.")
    at_least_one = {
        "training.steps": training.steps,
        "training.batch_size": training.batch_size,
        "training.log_every": training.log_every,
        "training.checkpoint_every": training.checkpoint_every,
        "training.density.every": density.every,
        "training.tracks_per_view": training.tracks_per_view,
        "training.depth_order.pairs": training.depth_order.pairs,
        "training.depth_order.linked_pairs": training.depth_order.linked_pairs,
        "flow.strides": min(run.flow.strides, default=0),
        "flow.max_side": run.flow.max_side,
    }
    for name, count in at_least_one.items():
        if count is not None and count < 1:
            raise UserError(f"`{name}`: must be at least 1, got {count}.")
    for name in ("track_targets", "validations"):
        if getattr(training, name) < 0:
            raise UserError(f"`training.{name}`: must not be negative.")
    for name, value in vars(training.losses).items():
        if not 0 <= value < float("inf"):
            raise UserError(f"`training.losses.{name}`: must be 0 or positive, got {value}.")
    for name, value in vars(training.learning_rates).items():
        if not 0 <= value < float("inf"):
            raise UserError(f"`training.learning_rates.{name}`: must be 0 or positive, got {value}.")


def recorded_run(work_dir: str | Path) -> TrainingRun:
    """The configuration recorded in a work dir.

    Raises:
        UserError: the work dir holds no run, or its config.yaml is not one.
    """
    path = config_path(Path(work_dir))
    if not path.is_file():
        raise UserError(f"{path}: no such file; `work_dir` must name a folder that `som4d train` has written.")
    return merge(TrainingRun(data=DemoData()), read_settings(path), str(path))


def check_same_run(recorded: TrainingRun, wanted: TrainingRun, work_dir: Path) -> None:
    """A run is only resumed with the settings that it was started with.

    Raises:
        UserError: lists what differs.
    """
    check_same_settings(recorded, wanted, work_dir, WHERE_NOT_WHAT)
