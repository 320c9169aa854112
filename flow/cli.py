"""The command ``python -m flow``. Torch and OpenCV are loaded after parsing, so that ``--help`` answers at once."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from flow.errors import FlowError, UserError
from flow.process import limit_thread_spinning

if TYPE_CHECKING:
    from torch import Tensor

    from flow.estimator import FlowEstimator
    from flow.video_flow import VideoFlow

DESCRIPTION = """Optical flow and point tracks, with DIS (needs no weights) or RAFT (from a checkpoint).

  {prog} pair frame0.png frame1.png --picture flow.png
  {prog} pair frame0.png frame1.png --truth flow.flo
  {prog} video clip.mp4 --output flow/ --max-side 480 --pictures pictures/
  {prog} tracks clip.mp4 --output tracks.npz --masks masks/ --picture tracks.png
"""
UNRELIABLE_IMAGE_SHARE = 0.35
"""How much of the image shows where flow may not be trusted in a picture of occlusion."""


@dataclass(kw_only=True)
class EstimatorOptions:
    """How flow is computed."""

    estimator: Literal["auto", "dis", "raft-large", "raft-small"] = "auto"
    """auto: the RAFT model in ``weights``, or dis without weights."""
    weights: str | None = None
    """Checkpoint of RAFT: a file, or the name of a published one."""
    device: str = "cpu"
    """Where RAFT runs."""


@dataclass(kw_only=True)
class VideoOptions(EstimatorOptions):
    """Which frames, and over which distances."""

    video: tyro.conf.Positional[Path]
    """Video file or folder of images."""
    max_side: int = 480
    """Flow's longer side in pixels."""
    strides: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Distances in frames."""
    start: int = 0
    """First frame."""
    end: int | None = None
    """Frame after the last one."""
    every: int = 1
    """Use every n-th frame."""


@dataclass(kw_only=True)
class PairCommand(EstimatorOptions):
    """Flow between two images."""

    images: tyro.conf.Positional[tuple[Path, Path]]
    """From the first to the second."""
    output: Path | None = None
    """Flow file to write: .flo (Middlebury) or .png (KITTI)."""
    picture: Path | None = None
    """Image to write: both images, the flow in colour, and occlusion."""
    truth: Path | None = None
    """True flow, .flo or .png (KITTI), to score against."""


@dataclass(kw_only=True)
class VideoCommand(VideoOptions):
    """Flow between the frames of a video, kept in a folder."""

    output: Path
    """Folder of the fields; resumed where it has some."""
    pictures: Path | None = None
    """Folder for a picture of every field of the first stride."""


@dataclass(kw_only=True)
class TracksCommand(VideoOptions):
    """Points tracked through a video."""

    output: Path | None = None
    """tracks.npz to write: query_frame, xy, visible, confidence."""
    flow: Path | None = None
    """Folder of flow fields, computed there unless it has them."""
    masks: Path | None = None
    """Folder of masks of moving objects, one a frame: denser points there."""
    num_tracks: int = 4000
    """Most points."""
    picture: Path | None = None
    """Image to write: the tracks over nine frames."""
    truth: Path | None = None
    """True tracks (.npz): its queries are tracked and scored."""
    seed: int = 0
    """Of the choice of points."""


Command = (
    Annotated[PairCommand, tyro.conf.subcommand("pair")]
    | Annotated[VideoCommand, tyro.conf.subcommand("video")]
    | Annotated[TracksCommand, tyro.conf.subcommand("tracks")]
)


def main(argv: Sequence[str], prog: str = "python -m flow") -> int:
    """Runs a command; returns the exit code (2 after an error of the user's, which is printed)."""
    if "--stop" in argv:
        print("error: --stop: this option is called --end now.", file=sys.stderr)
        return 2
    command = tyro.cli(Command, args=list(argv), prog=prog, description=DESCRIPTION.format(prog=prog))
    limit_thread_spinning()  # before anything imports torch
    try:
        match command:
            case PairCommand():
                run_pair(command)
            case VideoCommand():
                run_video(command)
            case TracksCommand():
                run_tracks(command)
    except UserError as error:
        text = re.sub(r"`([a-z_]+)`", lambda name: "--" + name[1].replace("_", "-"), str(error))
        print(f"error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the fields that are done", file=sys.stderr)
        return 130
    return 0


def run_pair(command: PairCommand) -> None:
    """Flow between two images: its length, its score, its picture."""
    from flow.consistency import check_consistency
    from flow.files import read_flow, write_flow
    from flow.frames import read_frames
    from flow.metrics import end_point_error, fl_score, outlier_share

    truth = None if command.truth is None else read_flow(command.truth)
    frames, _ = read_frames(command.images)
    estimator = _make_estimator(command)
    began = time.monotonic()
    forward, backward = estimator(frames, frames.flip(0))
    took = time.monotonic() - began
    check, _ = check_consistency(forward, backward)
    print(f"{_describe(estimator)}, {frames.shape[2]}x{frames.shape[1]}, both ways in {took:.2f} s")
    print(
        f"flow {forward.norm(dim=-1).mean():.2f} px on average; consistent there and back in "
        f"{check.consistent.float().mean():.1%} of the pixels, occluded {check.occluded.float().mean():.1%}, "
        f"out of the image {check.leaves.float().mean():.1%}"
    )
    if truth is not None:
        if truth[0].shape != forward.shape:
            size = f"{truth[0].shape[1]}x{truth[0].shape[0]}"
            raise FlowError(f"{command.truth} is {size}, the images {frames.shape[2]}x{frames.shape[1]}.")
        shares = ", ".join(f"{outlier_share(forward, *truth[:1], t, truth[1]):.1%} > {t} px" for t in (1, 3, 5))
        print(f"EPE {end_point_error(forward, *truth):.3f} px, Fl {fl_score(forward, *truth):.2%}, {shares}")
    if command.output is not None:
        write_flow(command.output, forward)
        print(f"wrote {command.output}")
    if command.picture is not None:
        _write_image(command.picture, picture_of_flow(frames[0], frames[1], forward, backward))


def run_video(command: VideoCommand) -> None:
    """Flow of a video into a folder."""
    from flow.frames import read_frames

    frames, names = read_frames(command.video, start=command.start, end=command.end, every=command.every)
    flow = _video_flow(frames, command, command.output)
    if command.pictures is not None:
        stride = min(flow.strides())
        small = _reduce(frames, command.max_side)
        for t in range(len(frames) - stride):
            picture = picture_of_flow(small[t], small[t + stride], flow.get(t, t + stride), flow.get(t + stride, t))
            _write_image(command.pictures / f"{names[t]}.png", picture, quiet=t > 0)
        print(f"wrote {len(frames) - stride} pictures to {command.pictures}")


def run_tracks(command: TracksCommand) -> None:
    """Tracks of a video: written, scored, drawn."""
    from flow.frames import read_frames
    from flow.queries import query_points
    from flow.tap import scored_pairs, tap_vid
    from flow.track_files import read_tracks, write_tracks
    from flow.tracks import TrackingOptions, track_points

    frames, names = read_frames(command.video, start=command.start, end=command.end, every=command.every)
    T, H, W = frames.shape[:3]
    truth = None if command.truth is None else read_tracks(command.truth, T)
    masks = None if command.masks is None else read_masks(command.masks, names, (H, W))
    flow = _video_flow(frames, command, command.flow)
    if truth is not None:
        query_frames = truth.query_frames
        query_xy = truth.xy[range(len(truth)), query_frames]
    else:
        query_xy, query_frames = query_points(
            command.num_tracks, T, (H, W), foreground=masks, frames=frames, seed=command.seed
        )
    sx, sy = W / flow.width, H / flow.height
    began = time.monotonic()
    strides = flow.strides()
    scale = query_xy.new_tensor([sx, sy])
    tracks = track_points(flow, query_xy / scale, query_frames, TrackingOptions(strides=strides)).scaled(sx, sy)
    took = time.monotonic() - began
    seen = tracks.visible.float().sum(1)
    print(f"{len(tracks)} tracks from {len(query_frames.unique())} frames in {took:.1f} s, seen in {seen.mean():.1f} "
          f"of {T} frames on average")  # fmt: skip
    if truth is not None:
        scores = tap_vid(tracks.xy, tracks.visible, truth.xy, truth.visible, scored_pairs(query_frames, T), W, H)
        print(f"AJ {scores['aj']:.3f}, delta_avg {scores['delta_avg']:.3f}, OA {scores['oa']:.3f}")
    if command.output is not None:
        write_tracks(command.output, tracks)
        print(f"wrote {command.output}")
    if command.picture is not None:
        _write_image(command.picture, picture_of_tracks(frames, tracks))


def _make_estimator(options: EstimatorOptions) -> FlowEstimator:
    import torch

    from flow.factory import make_estimator

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise FlowError(f"--device {options.device}: no usable NVIDIA GPU was found; use cpu.")
    return make_estimator(options.estimator, weights=options.weights, device=options.device)


def _describe(estimator: FlowEstimator) -> str:
    return ", ".join(f"{name} {value}" for name, value in estimator.provenance().items())


def _video_flow(frames: Tensor, options: VideoOptions, folder: Path | None) -> VideoFlow:
    """Flow at the wanted strides, with a line of progress and what came out."""
    from flow.compute import compute_video_flow

    estimator = _make_estimator(options)
    began = time.monotonic()

    def progress(stage: str, share: float) -> None:
        print(f"\r{stage}: {100 * share:3.0f} %", end="", file=sys.stderr, flush=True)

    live = sys.stderr.isatty()
    flow = compute_video_flow(
        frames,
        estimator,
        strides=options.strides,
        max_side=options.max_side,
        folder=folder,
        progress=progress if live else None,
    )
    if live:
        print(file=sys.stderr)
    count = len(flow.pairs())
    reused = f", {flow.reused} found in {folder}" if flow.reused else ""
    print(f"{_describe(estimator)}: {count} fields of {flow.width}x{flow.height}{reused}, "
          f"{time.monotonic() - began:.1f} s")  # fmt: skip
    return flow


def read_masks(folder: Path, names: list[str], size: tuple[int, int]) -> Tensor:
    """(T,H,W) bool masks from images with the names of the frames, see ``read_mask``.

    Raises:
        UserError: one is missing, unreadable or of another size.
    """
    import numpy as np
    import torch

    from flow.io.images import IMAGE_SUFFIXES, read_mask

    masks = []
    for name in names:
        path = next((p for p in sorted(folder.glob(f"{name}.*")) if p.suffix.lower() in IMAGE_SUFFIXES), None)
        if path is None:
            raise FlowError(f"{folder} has no mask {name}.png; give one mask for every frame, of the same name.")
        masks.append(read_mask(path))
        if masks[-1].shape != size:
            raise FlowError(f"{path} must be a mask of {size[1]}x{size[0]} pixels.")
    return torch.from_numpy(np.stack(masks))


def picture_of_flow(image0: Tensor, image1: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """(2H,2W,3) uint8: both images above; the flow in colour and, pale and red, what is not consistent below."""
    import torch

    from flow.color import flow_to_rgb
    from flow.consistency import check_consistency

    check, _ = check_consistency(forward, backward)
    red = torch.tensor([255.0, 40.0, 40.0])
    pale = (UNRELIABLE_IMAGE_SHARE * image0.float() + (1 - UNRELIABLE_IMAGE_SHARE) * red).to(torch.uint8)
    trusted = torch.where(check.consistent[..., None], image0, pale)
    top, bottom = torch.cat([image0, image1], 1), torch.cat([flow_to_rgb(forward), trusted], 1)
    return torch.cat([top, bottom])


def picture_of_tracks(frames: Tensor, tracks) -> Tensor:
    """(3h,3w,3) uint8: the tracks over nine frames spread over the video."""
    import torch

    from flow.draw import draw_tracks

    times = torch.linspace(0, len(frames) - 1, 9).round().long().tolist()
    drawn = [torch.from_numpy(draw_tracks(frames[t], tracks, t)) for t in times]
    return torch.cat([torch.cat(drawn[i : i + 3], 1) for i in (0, 3, 6)])


def _reduce(frames: Tensor, max_side: int) -> Tensor:
    import torch

    from flow.frames import reduce_image

    return torch.stack([torch.from_numpy(reduce_image(frame.numpy(), max_side)) for frame in frames])


def _write_image(path: Path, image: Tensor, quiet: bool = False) -> None:
    """Writes RGB (H,W,3) uint8 as .png or .jpg."""
    from flow.io.images import write_image

    write_image(path, image.numpy())
    if not quiet:
        print(f"wrote {path}")
