"""som4d depth train"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from som.commands.depth.common import height_priors, open_inputs, road_and_objects
from som.commands.depth.options import TrainCommand
from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.multiview import MultiViewNet, predict_views
from som.depth.learning.multiview.build import make_multiview_trainer, measurement_rule
from som.depth.learning.training.annotations import RoadAnnotations, together
from som.depth.learning.training.build import (
    known_depth,
    make_dataset,
    make_networks,
    needs_poses,
    network_config,
    resolve_pose,
)
from som.depth.learning.training.checkpoint import Units, load_checkpoint
from som.depth.learning.training.collapse import CollapseError, collapse_reason
from som.depth.learning.training.config import DepthTrainingConfig, check_training
from som.depth.learning.training.distributed import Processes, joined_processes
from som.depth.learning.training.teacher import swept_labels
from som.depth.learning.training.trainer import DepthTrainer
from som.depth.networks import DepthNet
from som.depth.weights import load_weights
from som.runs.device import choose_device, set_up_process
from som.runs.interruption import Interrupted, NonFiniteLossError, stop_signals
from som.runs.progress import ProgressLine, say
from som.runs.work_dir import checkpoint_path
from som.settings.plain import check_same_settings, merge, read_settings, write_settings

CHECKED_FRAMES = 16
"""Frames whose depth is looked at when training is over."""
CHECKED_NEIGHBOURS = 48
"""Of a multi-view network: frames from the beginning of the first video, which are matched with each other."""
WHERE_NOT_WHAT = ("work_dir", "device", "threads", "overwrite")
"""Settings that do not change what a run computes."""
MAX_IMAGE_BYTES = 4 * 2**30
"""Bytes of images that are kept in memory rather than read again in every epoch."""


def train(command: TrainCommand) -> int:
    """Runs or resumes; returns the exit code (0 done, 1 failed or collapsed, 130/143 interrupted and saved).

    Raises:
        DepthError: something in the options, the data or the work dir is wrong.
    """
    set_up_process(command.threads)
    with joined_processes(choose_device(command.device)) as (processes, device):
        config = command.training
        check_training(config, processes.count)
        recorded = _recorded(command, processes)
        sequences = _open(command)
        if processes.is_first:
            for sequence in sequences:
                poses = "no poses" if sequence.w2cs is None else f"poses ({sequence.world_scale})"
                say(f"{sequence.name}: {len(sequence)} frames of {config.width}x{config.height}, {poses}")
        trainer = make_trainer(command, sequences, device, processes)
        if recorded:
            trainer.load(load_checkpoint(checkpoint_path(command.work_dir)))
            say(f"resuming {command.work_dir} after step {trainer.step}")
        elif processes.is_first:
            _begin(command)
        processes.wait()
        return _run(trainer, sequences, command.work_dir, processes)


def _open(command: TrainCommand) -> list[DepthSequence]:
    """The videos at the size of training; their images are kept in memory where they fit."""
    size = command.training.height, command.training.width
    sequences = open_inputs(command.input, size=size)
    pixels = sum(len(sequence) for sequence in sequences) * size[0] * size[1]
    if 3 * pixels > MAX_IMAGE_BYTES:
        return sequences
    return [DepthSequence(sequence.recording, size=size, cache_images=True) for sequence in sequences]


def _fill(net: torch.nn.Module, path: Path, part: str) -> None:
    """Loads weights from a checkpoint or work dir of this program, or from a published file or folder.

    Args:
        part: ``depth_net`` or ``pose_net``, the network's entry in a checkpoint.
    """
    if path.suffix != ".ckpt" and not (path / "checkpoints").is_dir():
        say(str(load_weights(net, path)))
        return
    state = getattr(load_checkpoint(path if path.is_file() else checkpoint_path(path)), part)
    try:
        net.load_state_dict(state or {})
    except RuntimeError as error:
        raise DepthError(f"{path}: its {part} is another network ({str(error).splitlines()[1].strip()})") from None


def make_trainer(
    command: TrainCommand, sequences: list[DepthSequence], device: torch.device, processes: Processes
) -> DepthTrainer:
    """The trainer of a command's run, at its beginning."""
    config = command.training
    if config.network.name == "mvdepthnet":
        return _multiview_trainer(command, sequences, device, processes)
    pose = resolve_pose(config, sequences)
    config = replace(config, pose=pose)
    labels, supervised = None, config.weights.supervised > 0 or config.weights.normals > 0
    if supervised and config.teacher == "sweep":
        labels, scale = swept_labels(sequences, ProgressLine())
    else:
        scale = known_depth(sequences) if supervised else torch.zeros(0)
    with_depth = supervised and labels is None
    if with_depth and not len(scale):
        wanted = "supervised" if config.weights.supervised else "normals"
        raise DepthError(f"weights.{wanted} needs known depth, but the data has none; set the weight to 0.")
    network = network_config(config, sequences, pose, scale)
    depth_net, pose_net = make_networks(config, network, pose)
    if command.weights is not None:
        _fill(depth_net, command.weights, "depth_net")
    if command.pose_weights is not None:
        if pose_net is None:
            raise DepthError("--pose-weights: poses are given here, so that there is no pose network to load.")
        _fill(pose_net, command.pose_weights, "pose_net")
    annotate = None
    if config.weights.rough_height or config.weights.camera_height:
        given = road_and_objects(command.metric, sequences[0])
        if given is None or len(sequences) > 1:
            raise DepthError("the metric terms need --road and --objects of one video.")
        annotate = RoadAnnotations(sequences[0], *given, height_priors(command.metric))
    dataset = make_dataset(config, sequences, network.initial_depth, together(annotate, labels), with_depth)
    return DepthTrainer(
        config,
        depth_net,
        dataset,
        pose_net=pose_net,
        work_dir=command.work_dir,
        units=_units(config, pose, sequences),
        device=device,
        processes=processes,
    )


def _multiview_trainer(
    command: TrainCommand, sequences: list[DepthSequence], device: torch.device, processes: Processes
) -> DepthTrainer:
    """The trainer of a run of ``mvdepthnet``, at its beginning."""
    if command.pose_weights is not None:
        raise DepthError("--pose-weights: mvdepthnet takes the poses as they are, without a pose network.")

    weights = command.weights

    def fill(net: MultiViewNet) -> None:
        assert weights is not None
        ours = weights.suffix == ".ckpt" or (weights / "checkpoints").is_dir()
        if not ours and net.config.matching != "published":
            raise DepthError(
                f"{weights}: published weights need network.matching published and network.width 1, "
                f"got {net.config.matching} and {net.config.width:g}."
            )
        _fill(net if ours else net.net, weights, "depth_net")

    return make_multiview_trainer(
        command.training,
        sequences,
        None if weights is None else fill,
        ProgressLine(),
        work_dir=command.work_dir,
        device=device,
        processes=processes,
    )


def _units(config: DepthTrainingConfig, pose: str, sequences: list[DepthSequence]) -> Units:
    """Unit of the depth that this run learns."""
    weights = config.weights
    if weights.velocity or weights.camera_height or weights.rough_height:
        return "metric"
    metric = all(sequence.world_scale == "metric" for sequence in sequences)
    if (pose == "given" and needs_poses(config)) or weights.supervised:
        return "metric" if metric else "scene"
    return "relative"


def _recorded(command: TrainCommand, processes: Processes) -> bool:
    """Whether the work dir holds this very run, to go on from.

    Raises:
        DepthError: it holds a run with other settings, or is a file.
    """
    work_dir, file = command.work_dir, command.work_dir / "config.yaml"
    if work_dir.exists() and not work_dir.is_dir():
        raise DepthError(f"--work-dir {work_dir}: is a file; name a folder.")
    resumable = not command.overwrite and file.is_file() and checkpoint_path(work_dir).is_file()
    if resumable:
        recorded = merge(command, read_settings(file), str(file))
        recorded.training.workers = command.training.workers  # the result does not depend on it
        check_same_settings(recorded, command, work_dir, WHERE_NOT_WHAT)
    processes.wait()  # before the first process writes there
    return resumable


def _begin(command: TrainCommand) -> None:
    """Writes the configuration; removes what an earlier run, and only a run, has left there."""
    work_dir = command.work_dir
    if (work_dir / "config.yaml").is_file():
        shutil.rmtree(work_dir / "checkpoints", ignore_errors=True)
        (work_dir / "metrics.jsonl").unlink(missing_ok=True)
    try:
        write_settings(work_dir / "config.yaml", command)
    except OSError as error:
        raise DepthError(f"--work-dir {work_dir}: cannot be written ({error.strerror}); name another.") from None


def _run(trainer: DepthTrainer, sequences: list[DepthSequence], work_dir: Path, processes: Processes) -> int:
    if trainer.step >= trainer.total_steps:
        say(f"this run is complete ({trainer.step} steps); predict with --model {work_dir}")
        return 0
    began, start = time.monotonic(), trainer.step

    def report(step: int, total: int, values: dict[str, float]) -> None:
        left = (time.monotonic() - began) / (step - start) * (total - step)
        terms = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "learning_rate")
        say(f"step {step}/{total}  {terms}  left {left / 60:.1f} min")

    try:
        with stop_signals() as stop:
            trainer.train(report, stop)
    except Interrupted as stop:
        say(f"interrupted: saved after step {stop.step}; the same command resumes the run")
        return 128 + stop.signal_number
    except (NonFiniteLossError, CollapseError) as error:
        say(f"error: {error}")
        return 1
    reason = _collapse(trainer, sequences) if processes.is_first else None
    if reason is not None:
        say(f"error: this network is no result: {reason}.")
        return 1
    if processes.is_first:
        minutes = (time.monotonic() - began) / 60
        last = checkpoint_path(work_dir)
        say(f"done: {trainer.step} steps in {minutes:.1f} min, {last}; predict with --model {work_dir}")
    return 0


@torch.no_grad()
def _collapse(trainer: DepthTrainer, sequences: list[DepthSequence]) -> str | None:
    """Why the trained network is no result, by its depth on some frames; None if it is one."""
    net, config = trainer.objective.depth_net.eval(), trainer.config
    if isinstance(net, MultiViewNet):
        first = sequences[0].select(range(min(len(sequences[0]), CHECKED_NEIGHBOURS)))
        found = predict_views(net, first, measurement_rule(config), config.network.depth_range, trainer.device)
        return collapse_reason(found.depth, None, config.collapse)
    frames = [(sequence, t) for sequence in sequences for t in range(len(sequence))]
    every = math.ceil(len(frames) / CHECKED_FRAMES)
    depth = torch.cat([net(s.image(t)[None].to(trainer.device)).depths[0][:, 0].cpu() for s, t in frames[::every]])
    span = net.config.depth_range if isinstance(net, DepthNet) and net.config.head != "softplus" else None
    return collapse_reason(depth, span, trainer.config.collapse, trainer.objective.pose_net is not None)
