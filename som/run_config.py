"""The options of run_training.py and run_val.py, and the work directory that they share. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from som.cli import merge, read_yaml, to_plain
from som.correspondence.config import FlowConfig
from som.data.config import CustomData, DavisData, DemoData, IphoneData
from som.errors import UserError
from som.evaluation.config import EvaluationConfig
from som.initialization.config import InitializationConfig
from som.training.config import TrainingConfig

Data = (
    Annotated[DemoData, tyro.conf.subcommand("demo", description="The built-in demo scene; needs nothing.")]
    | Annotated[CustomData, tyro.conf.subcommand("custom", description="A data set folder; its layout is recognised.")]
    | Annotated[DavisData, tyro.conf.subcommand("davis", description="A DAVIS sequence with Shape-of-Motion priors.")]
    | Annotated[IphoneData, tyro.conf.subcommand("iphone", description="A DyCheck (iPhone) sequence.")]
)


@dataclass
class TrainingRun:
    """Options of run_training.py; a work dir's config.yaml holds all of them."""

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


@dataclass
class ValidationRun:
    """Options of run_val.py."""

    work_dir: Path = Path("out")
    """The run to score."""
    model: str = "last"
    """Which checkpoint: a step, ``last``, or a file."""
    data: Data | None = None
    """The data set to score against; by default the one recorded in the work dir."""
    out_dir: Path | None = None
    """Where the results go; by default <work-dir>/val/step_XXXXXX."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: cuda if there is one."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is scored and written."""


WHERE_NOT_WHAT = ("work_dir", "config", "device", "threads", "overwrite")
"""Options that do not change what a run computes; a resumed run may change them."""


def check_training_run(run: TrainingRun) -> None:
    """Refuses values that cannot work, before any work is done.

    Raises:
        UserError: names the option, what it must be and what it is.
    """
    training, density = run.training, run.training.density
    fractions = {
        "training.density.start": density.start,
        "training.density.stop": density.stop,
        "training.density.cull-opacity": density.cull_opacity,
        "training.density.reset-opacity": density.reset_opacity,
        "training.density.reset-at": max(density.reset_at, default=0.0),
        "training.depth-order.start": training.depth_order.start,
        "training.depth-order.full": training.depth_order.full,
        "training.depth-order.near-share": training.depth_order.near_share,
        "training.depth-order.near-radius": training.depth_order.near_radius,
    }
    for name, value in fractions.items():
        if not 0 <= value <= 1:
            raise UserError(f"--{name}: must lie in [0, 1], got {value}.")
    at_least_one = {
        "training.steps": training.steps,
        "training.batch-size": training.batch_size,
        "training.log-every": training.log_every,
        "training.checkpoint-every": training.checkpoint_every,
        "training.density.every": density.every,
        "training.tracks-per-view": training.tracks_per_view,
        "training.depth-order.pairs": training.depth_order.pairs,
        "training.depth-order.linked-pairs": training.depth_order.linked_pairs,
        "flow.strides": min(run.flow.strides, default=0),
        "flow.max-side": run.flow.max_side,
    }
    for name, value in at_least_one.items():
        if value is not None and value < 1:
            raise UserError(f"--{name}: must be at least 1, got {value}.")
    for name in ("track_targets", "validations"):
        if getattr(training, name) < 0:
            raise UserError(f"--training.{name.replace('_', '-')}: must not be negative.")
    for name, value in vars(training.losses).items():
        if not 0 <= value < float("inf"):
            raise UserError(f"--training.losses.{name.replace('_', '-')}: must be 0 or positive, got {value}.")
    for name, value in vars(training.learning_rates).items():
        if not 0 <= value < float("inf"):
            raise UserError(f"--training.learning-rates.{name.replace('_', '-')}: must be 0 or positive, got {value}.")


def recorded_run(work_dir: Path) -> TrainingRun:
    """The configuration recorded in a work dir.

    Raises:
        UserError: the work dir holds no run, or its config.yaml is not one.
    """
    path = work_dir / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path}: no such file; --work-dir must name a folder that run_training.py has written.")
    return merge(TrainingRun(data=DemoData()), read_yaml(path), str(path))


def differences(recorded: dict, wanted: dict, prefix: str = "") -> list[str]:
    """What differs between two plain configurations, as ``option: recorded -> wanted``."""
    found = []
    for key in sorted(set(recorded) | set(wanted)):
        a, b = recorded.get(key), wanted.get(key)
        name = f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, name + ".")
        elif a != b:
            found.append(f"{name}: {a} -> {b}")
    return found


def check_same_run(recorded: TrainingRun, wanted: TrainingRun, work_dir: Path) -> None:
    """A run is only resumed with the settings that it was started with.

    Raises:
        UserError: lists what differs.
    """
    a, b = ({k: v for k, v in to_plain(run).items() if k not in WHERE_NOT_WHAT} for run in (recorded, wanted))
    found = differences(a, b)
    if found:
        raise UserError(
            f"{work_dir} holds a run with other settings ({'; '.join(found)}). "
            "Use another --work-dir, the same settings to resume it, or --overwrite True to start anew."
        )
