"""The pictures of each part of the pipeline."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import torch

from flow.color import flow_to_rgb
from flow.draw import draw_tracks
from som.depth.draw import color_depth, disparity_range
from som.files import reduced_size, resize_image, resize_map
from som.preprocessing.report.camera_plot import plot_cameras
from som.preprocessing.report.contents import Picture, Section
from som.preprocessing.report.folder import Folder, Shot, ShotCamera, spread

T = TypeVar("T")
PICTURE_SIDE_PX = 480
"""Longer side of the pictures in pixels."""
OUTLINE_RGB = (255, 61, 129)
UNRELIABLE_GREY = 104
"""Grey of pixels whose flow cannot be trusted."""
MAX_TRACKS = 300
MAX_POINTS = 40_000


def frame_section(folder: Folder) -> Section | None:
    """Frames over the whole video."""
    pictures = [
        Picture(small(image), f"frame {shot.time:g}")
        for shot in _some(folder.shots, 8)
        if (image := folder.image(shot)) is not None
    ]
    text = "Frames over the whole video. They should be upright, sharp and of one shot."
    return Section("Frames", text, pictures) if pictures else None


def flow_section(folder: Folder) -> Section | None:
    """Flow over one frame and over several, in colours."""
    fields = folder.flow_fields(4, 1) + (folder.flow_fields(3, 8) or folder.flow_fields(3, 4))
    pictures = []
    for found in fields:
        length = found.flow.norm(dim=-1)
        usual = length if found.consistent is None or not bool(found.consistent.any()) else length[found.consistent]
        longest = max(float(torch.quantile(usual.flatten()[:: max(1, usual.numel() // 100_000)], 0.98)), 1.0)
        picture = flow_to_rgb(found.flow, max_magnitude=longest).numpy()
        share = ""
        if found.consistent is not None:
            unsure = ~found.consistent.numpy()
            picture[unsure] = (0.2 * picture[unsure] + 0.8 * UNRELIABLE_GREY).astype(np.uint8)
            share = f", {float(found.consistent.float().mean()):.0%} consistent"
        caption = f"{found.source} → {found.target}{share}, median {float(usual.median()):.1f} px"
        pictures.append(Picture(small(picture), caption))
    if not pictures:
        return None
    pictures.append(Picture(_flow_legend(), "colours of directions; white: still"))
    text = (
        "Colour is the direction of motion, strength its length. Grey pixels are not consistent there and back: hidden "
        "in the other frame, or wrong. Much grey away from the edges of moving objects means that the flow failed "
        "there."
    )
    return Section("Optical flow", text, pictures)


def mask_section(folder: Folder) -> Section | None:
    """What counts as moving, outlined over the frames."""
    pictures = []
    for shot in _some([shot for shot in folder.shots if shot.foreground is not None], 8):
        image, mask = folder.image(shot), folder.mask(shot)
        if image is None or mask is None or mask.shape != image.shape[:2]:
            continue
        size = reduced_size(mask.shape, PICTURE_SIDE_PX)
        share = f"frame {shot.time:g}, {mask.mean():.1%} moving"
        pictures.append(Picture(outline_mask(resize_image(image, size), resize_map(mask, size)), share))
    text = (
        "What moves keeps its colours, the rest is grey. A part of a moving object that is grey will stay behind as a "
        "ghost in the background; background in colour only costs quality there."
    )
    return Section("Masks of what moves", text, pictures) if pictures else None


def track_section(folder: Folder) -> Section | None:
    """Tracks with the way that they came, over frames."""
    tracks = folder.tracks
    if tracks is None or len(tracks) == 0 or tracks.num_frames < 2:
        return None
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(tracks), generator=generator)[:MAX_TRACKS].sort().values
    by_time, pictures = {round(shot.time): shot for shot in folder.shots}, []
    times = [t for t in spread(tracks.num_frames, 5)[1:] if t in by_time]
    for t in times:
        image = folder.image(by_time[t])
        if image is None:
            continue
        H, W = (round(side * PICTURE_SIDE_PX / max(image.shape[:2])) for side in image.shape[:2])
        scaled = tracks.select(chosen).scaled(W / image.shape[1], H / image.shape[0])
        faded = (cv2.resize(image, (W, H), interpolation=cv2.INTER_AREA) * 0.6).astype(np.uint8)
        seen = int(tracks.visible[:, t].sum())
        drawn = draw_tracks(faded, scaled, t, trail=10, radius=1.8)
        pictures.append(Picture(drawn, f"frame {t}: {seen} of {len(tracks)} points seen"))
    text = (
        "Points that were followed, with their last ten frames; each keeps its colour. Trails should follow the things "
        "that they lie on; trails that slide over them or jump are wrong."
    )
    return Section("Tracks", text, pictures) if pictures else None


def camera_section(folder: Folder) -> Section | None:
    """The cameras' path alone, and with the scene from above and from the side."""
    cameras = [(shot, shot.camera) for shot in folder.shots if shot.camera is not None]
    posed = [(shot, camera) for shot, camera in cameras if np.isfinite(camera.w2c).all()]
    if not posed:
        return None
    w2c = np.stack([camera.w2c for _, camera in posed])
    centers = np.linalg.inv(w2c)[:, :3, 3]
    if len(posed) > 1 and np.ptp(centers, axis=0).max() < 1e-9 and np.ptp(w2c[:, :3, :3], axis=0).max() < 1e-6:
        text = "The camera stands still: all frames have the same pose, and only moving objects show their shape."
        return Section("Cameras", text, [])
    points, colors, origin = scene_points(folder, posed)
    K = posed[0][1].K
    tangent = float(K[0, 2] / K[0, 0])
    plans: list[tuple[str, np.ndarray | None, str]]
    plans = [("above", None, "the path from above"), ("side", None, "the path from the side, looking to the right")]
    if points is not None:
        plans += [("above", points, f"with the scene from above ({origin})"), ("side", points, "from the side")]
    pictures = [
        Picture(plot_cameras(w2c, at, colors if at is not None else None, view=view, half_fov=tangent), caption)
        for view, at, caption in plans
    ]
    text = (
        "Where the camera was: blue is the begin, red the end, triangles show where it looked. A hand-held path is "
        "smooth; jumps and zigzags are wrong. Walls and floors of the scene should be straight lines."
    )
    known = folder.cameras.get("registered")
    if known is not None and not known.all():
        text += f" {int((known == 0).sum())} of {len(known)} frames have no camera and are left out."
    return Section("Cameras", text, pictures)


def scene_points(
    folder: Folder, posed: list[tuple[Shot, ShotCamera]]
) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """(P,3) points of the scene, their colours (P,3) uint8 or None, and where they come from."""
    if folder.points is not None:
        return folder.points, None, f"{len(folder.points)} triangulated points"
    points, colors = [], []
    for shot, camera in _some([(shot, camera) for shot, camera in posed if shot.depth is not None], 6):
        image, depth, moving = folder.image(shot), folder.depth(shot), folder.mask(shot)
        if image is None or depth is None or depth.shape != image.shape[:2]:
            continue
        usable = depth > 0 if moving is None or moving.shape != depth.shape else (depth > 0) & ~moving
        row, column = np.nonzero(usable)
        step = max(1, len(row) * 6 // MAX_POINTS)
        row, column = row[::step], column[::step]
        pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(row))])
        local = np.linalg.inv(camera.K) @ pixels * depth[row, column]
        c2w = np.linalg.inv(camera.w2c)
        points.append((c2w[:3, :3] @ local).T + c2w[:3, 3])
        colors.append(image[row, column])
    if not points:
        return None, None, ""
    return np.concatenate(points), np.concatenate(colors), "points of the depth maps"


def depth_section(folder: Folder) -> Section | None:
    """Depth in colours, one range for all frames, with its confidence."""
    shots = _some([shot for shot in folder.shots if shot.depth is not None], 4)
    maps = [(shot, folder.depth(shot), folder.confidence(shot)) for shot in shots]
    found = [(shot, depth, confidence) for shot, depth, confidence in maps if depth is not None]
    if not found or folder.header is None:
        return None
    kind = folder.header.depth_kind
    near_far = disparity_range(np.concatenate([depth.reshape(-1, depth.shape[-1]) for _, depth, _ in found]))
    pictures = []
    for shot, depth, _ in found:
        size = reduced_size((depth.shape[0], depth.shape[1]), PICTURE_SIDE_PX)
        range_ = disparity_range(depth) if kind == "relative" else near_far
        caption = f"frame {shot.time:g}, depth {range_[0]:.3g} (red) to {range_[1]:.3g} (blue)"
        pictures.append(Picture(color_depth(resize_map(depth, size), range_), caption))
    for shot, _, confidence in found:
        if confidence is not None:
            size = reduced_size(confidence.shape, PICTURE_SIDE_PX)
            levels = (resize_map(confidence, size).clip(0, 1) * 255).astype(np.uint8)
            picture = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
            pictures.append(Picture(picture, f"frame {shot.time:g}, confidence {confidence.mean():.2f} in the mean"))
    text = (
        f"Depth of kind {kind}: red is near, blue far, black unknown. Edges should lie on the edges of objects, and "
        "the same wall should keep its colour from frame to frame. In the maps of confidence yellow is sure."
    )
    return Section("Depth", text, pictures)


def outline_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H,W,3) uint8 RGB that is grey outside of a mask (H,W) bool, with the mask's outline."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    result = np.where(mask[..., None], image, 0.12 * image + 0.5 * grey).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(result, contours, -1, OUTLINE_RGB, 2 if max(mask.shape) > 400 else 1, cv2.LINE_AA)


def small(image: np.ndarray) -> np.ndarray:
    """The image with its longer side reduced to ``PICTURE_SIDE_PX``."""
    return resize_image(image, reduced_size(image.shape[:2], PICTURE_SIDE_PX))


def _flow_legend(side: int = 180) -> np.ndarray:
    axis = torch.linspace(-1.15, 1.15, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = torch.hypot(x, y) <= 1
    wheel = flow_to_rgb(torch.stack([x, y], -1), max_magnitude=1.0).numpy()
    wheel[~inside.numpy()] = 255
    return wheel


def _some(shots: list[T], count: int) -> list[T]:
    return [shots[i] for i in spread(len(shots), count)]
