"""The 4D scene: static background Gaussians and foreground Gaussians carried by shared motion bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from som.cameras import Camera
from som.cameras.rotations import matrix_to_quat_wxyz, quat_multiply_wxyz
from som.data.normalization import Normalization
from som.errors import UserError
from som.rendering import rasterize
from som.scene.gaussians import Gaussians
from som.scene.motion import MotionBases
from som.scene.picture import PIXELS_AT_ONCE, VIEWS_AT_ONCE, Picture, requested_views

PARTS = ("foreground", "background")


class ForegroundPoses(NamedTuple):
    """Where the G foreground Gaussians are, for B views."""

    rotations: Float[Tensor, "b g 3 3"]
    positions: Float[Tensor, "b g 3"]
    track_positions: Float[Tensor, "b n g 3"] | None = None
    """Positions at each view's N track times."""


@dataclass
class SceneRender:
    """What one call of :meth:`DynamicScene.rasterize_views` returns, for B views, in scene units."""

    rgb: Float[Tensor, "b h w 3"]
    """Colour composited over the background colour."""
    alpha: Float[Tensor, "b h w"]
    """Accumulated opacity in [0, 1]."""
    foreground: Float[Tensor, "b h w"]
    """Part of ``alpha`` that foreground Gaussians contribute, in [0, 1]; not divided by alpha."""
    depth: Float[Tensor, "b h w"]
    """Expected z-depth in scene units, sum(w z) / sum(w); 0 where nothing is hit."""
    tracks: Float[Tensor, "b n h w 3"] | None
    """Scene position at each track time of the surface seen in a pixel, sum(w x) / sum(w); None unless asked for."""
    info: dict[str, Any]
    """The rasteriser's intermediate results: means2d (B, 1, G, 2), radii, ... Foreground Gaussians come first."""


class DynamicScene(nn.Module):
    """Background and foreground Gaussians in scene coordinates, ``x_scene = (x_world - center) / scale``.

    Args:
        foreground: moving Gaussians with ``motion_coefs``, or None.
        motion_bases: the K rigid motions; required with a foreground.
        background: static Gaussians, or None.
        normalization: how scene coordinates relate to the data set's world.
        num_times: T; needed only for scenes without a foreground.
        rasterize_mode: ``classic`` or ``antialiased``; a scene is drawn in the mode in which it was optimised.
    """

    center: Tensor
    scale: Tensor
    num_times: int

    def __init__(
        self,
        foreground: Gaussians | None,
        motion_bases: MotionBases | None,
        background: Gaussians | None,
        normalization: Normalization,
        num_times: int | None = None,
        rasterize_mode: str = "classic",
    ):
        super().__init__()
        if foreground is None and background is None:
            raise ValueError("DynamicScene: needs foreground or background Gaussians, got neither.")
        if (foreground is None) != (motion_bases is None):
            raise ValueError("DynamicScene: a foreground and motion bases come together.")
        if foreground is not None and "motion_coefs" not in foreground.params:
            raise ValueError("DynamicScene: foreground Gaussians need motion_coefs.")
        if motion_bases is not None:
            num_times = motion_bases.num_times
        if num_times is None:
            raise ValueError("DynamicScene: num_times is required without a foreground.")
        self.foreground = foreground
        self.motion_bases = motion_bases
        self.background = background
        self.rasterize_mode = rasterize_mode
        self.register_buffer("center", normalization.center.detach().clone().float())
        self.register_buffer("scale", torch.tensor(float(normalization.scale), dtype=torch.float64))
        self.num_times = num_times

    @property
    def normalization(self) -> Normalization:
        return Normalization(center=self.center, scale=float(self.scale))

    @property
    def device(self) -> torch.device:
        return self.center.device

    @property
    def moving(self) -> tuple[Gaussians, MotionBases] | None:
        """The foreground with the motions that carry it; None where nothing moves."""
        if self.foreground is None or self.motion_bases is None:
            return None
        return self.foreground, self.motion_bases

    @property
    def num_foreground(self) -> int:
        return 0 if self.foreground is None else len(self.foreground)

    @property
    def num_background(self) -> int:
        return 0 if self.background is None else len(self.background)

    def foreground_poses(self, times: Int[Tensor, "b"] | Float[Tensor, "b"]) -> ForegroundPoses:
        """Rotation and position of every foreground Gaussian at each time; a scene without foreground has none (G = 0).

        Args:
            times: frames, as in :meth:`MotionBases.poses`.
        """
        if self.moving is None:
            return ForegroundPoses(self.center.new_zeros(len(times), 0, 3, 3), self.center.new_zeros(len(times), 0, 3))
        gaussians, bases = self.moving
        return ForegroundPoses(*bases.carry(gaussians.means, gaussians.motion_weights, times))

    def gaussians_at(
        self, times: Int[Tensor, "b"] | Float[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b g 3"], Float[Tensor, "b g 4"], Float[Tensor, "b g 3"], Float[Tensor, "b g"]]:
        """Means, quaternions (wxyz), scales and opacities of all Gaussians, foreground first, in scene coordinates."""
        return self._gaussians(self.foreground_poses(times), PARTS)[:4]

    def _gaussians(
        self, poses: ForegroundPoses, parts: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Means, quats, scales, opacities and features (rgb + foreground flag) of B views, foreground first."""
        B = len(poses.positions)
        placed: list[tuple[Gaussians, Tensor, Tensor, float]] = []
        if self.foreground is not None and "foreground" in parts:
            turned = quat_multiply_wxyz(
                matrix_to_quat_wxyz(poses.rotations), self.foreground.quats_wxyz.expand(B, -1, -1)
            )
            placed.append((self.foreground, poses.positions, turned, 1.0))
        if (still := self.background) is not None and "background" in parts:
            placed.append((still, still.means.expand(B, -1, -1), still.quats_wxyz.expand(B, -1, -1), 0.0))
        means = torch.cat([means for _, means, _, _ in placed], 1)
        quats = torch.cat([quats for _, _, quats, _ in placed], 1)
        scales = torch.cat([part.scales for part, *_ in placed]).expand(B, -1, -1)
        opacities = torch.cat([part.opacities for part, *_ in placed]).expand(B, -1)
        colors = [(part.colors, flag) for part, _, _, flag in placed]
        features = torch.cat([torch.cat([c, c.new_full((len(c), 1), flag)], 1) for c, flag in colors])
        return means, quats, scales, opacities, features.expand(B, -1, -1)

    def _track_features(
        self, positions: Float[Tensor, "b n moving 3"], parts: tuple[str, ...]
    ) -> Float[Tensor, "b g c"]:
        """Positions at the track times, (B, G, 3 N); the background stays where it is."""
        B, N = positions.shape[:2]
        rows = []
        if self.foreground is not None and "foreground" in parts:
            rows.append(positions.transpose(1, 2).flatten(2))
        if self.background is not None and "background" in parts:
            rows.append(self.background.means.repeat(1, N).expand(B, -1, -1))
        return torch.cat(rows, 1)

    def rasterize_views(
        self,
        w2cs: Float[Tensor, "b 4 4"],
        Ks: Float[Tensor, "b 3 3"],
        times: Int[Tensor, "b"] | Float[Tensor, "b"],
        width: int,
        height: int,
        *,
        background_color: Float[Tensor, "b 3"] | Float[Tensor, "3"] | float = 1.0,
        track_times: Int[Tensor, "b n"] | Float[Tensor, "b n"] | None = None,
        poses: ForegroundPoses | None = None,
        parts: tuple[str, ...] = PARTS,
        absgrad: bool = False,
    ) -> SceneRender:
        """Draws B views, each at its own time, in one rasterisation and in *scene* coordinates.

        What training and scoring stand on; cameras in world coordinates go to :meth:`render`.

        Args:
            w2cs, Ks: cameras in scene coordinates (see ``normalization.cameras_to_scene``).
            times: frame of every view; see :meth:`MotionBases.poses`.
            background_color: what shows through where alpha < 1, RGB in [0, 1].
            track_times: for every view, N times at which the seen surface's positions are rendered.
            poses: of the foreground at ``times`` and ``track_times``, where they are already known.
            parts: which Gaussians to draw, of ``foreground`` and ``background``.

        Raises:
            ValueError: none of the parts exists in this scene.
        """
        if not any(getattr(self, part) is not None for part in parts):
            raise ValueError(f"rasterize_views: this scene has no {' or '.join(parts)} to draw.")
        if poses is None:
            poses = self.foreground_poses(times)
            if track_times is not None:
                tracked = self.foreground_poses(track_times.flatten()).positions.unflatten(0, track_times.shape)
                poses = poses._replace(track_positions=tracked)
        means, quats, scales, opacities, features = self._gaussians(poses, parts)
        if poses.track_positions is not None:
            features = torch.cat([features, self._track_features(poses.track_positions, parts)], -1)

        B = len(w2cs)
        color = torch.as_tensor(background_color, dtype=means.dtype, device=means.device)
        backdrop = means.new_zeros(B, 1, features.shape[-1])
        backdrop[..., :3] = color.expand(B, 3)[:, None]
        rendered, accumulated, info = rasterize(
            means,
            quats,
            scales,
            opacities,
            features,
            w2cs[:, None],
            Ks[:, None],
            width,
            height,
            backgrounds=backdrop,
            render_mode="RGB+ED",
            rasterize_mode=self.rasterize_mode,
            absgrad=absgrad,
        )
        alpha = accumulated.squeeze(1)  # (B, H, W, 1)
        # split, not slices: the gradient of a slice is an image full of zeros, each
        rgb, foreground, weighted, depth = rendered.squeeze(1).split([3, 1, features.shape[-1] - 4, 1], dim=-1)
        tracks = None
        if poses.track_positions is not None:
            tracks = (weighted / alpha.clamp(min=1e-6)).unflatten(-1, (-1, 3)).permute(0, 3, 1, 2, 4)
        return SceneRender(
            rgb=rgb,
            alpha=alpha.squeeze(-1),
            foreground=foreground.squeeze(-1),
            depth=depth.squeeze(-1),
            tracks=tracks,
            info=info,
        )

    def render(
        self,
        camera: Camera,
        time: float | Tensor | Sequence[float],
        *,
        background_color: float | Tensor | Sequence[float] = 1.0,
        track_times: Tensor | Sequence[float] | None = None,
        parts: str | tuple[str, ...] = PARTS,
    ) -> Picture:
        """Pictures of the scene at any time from any camera, in world units; differentiable.

        The leading dimensions of camera and time broadcast: one camera with many times, many cameras with one time, or
        as many of both. Many views are drawn a few at once.

        >>> picture = scene.render(camera, time=12.5)                       # one view: rgb (h, w, 3)
        >>> film = scene.render(camera, time=torch.linspace(0, 9, 100))     # rgb (100, h, w, 3)

        Args:
            camera: one or many pinholes in world coordinates, on any device.
            time: in frames, from 0 to ``num_times - 1``; between two frames the motion is interpolated.
            background_color: what shows through where alpha < 1: grey or (..., 3) RGB in [0, 1].
            track_times: N times, the same for all views or (..., N), at which to give the positions of what is seen.
            parts: what to draw: ``foreground`` (what moves), ``background`` or both.

        Raises:
            UserError: a time outside of the scene's, shapes that do not fit each other, a distorted camera, too large a
                picture, or no such part.
        """
        parts = (parts,) if isinstance(parts, str) else tuple(parts)
        present = [part for part in PARTS if getattr(self, part) is not None]
        if not set(parts) <= set(PARTS) or not set(parts) & set(present):
            raise UserError(f"`parts` must be of {', '.join(present)}, which this scene has; got {', '.join(parts)}.")
        views = requested_views(self, camera, time, track_times, background_color)
        at_once = max(1, min(VIEWS_AT_ONCE, PIXELS_AT_ONCE // (camera.width * camera.height)))
        renders = []
        for start in range(0, len(views.times), at_once):
            some = slice(start, start + at_once)
            cameras = self.normalization.cameras_to_scene(views.camera[some]).to(torch.float32)
            render = self.rasterize_views(
                cameras.w2c,
                cameras.K,
                views.times[some],
                camera.width,
                camera.height,
                background_color=views.background_color[some],
                track_times=None if views.track_times is None else views.track_times[some],
                parts=parts,
            )
            renders.append(render)
        return self._picture(renders, views.batch)

    def _picture(self, renders: list[SceneRender], batch: tuple[int, ...]) -> Picture:
        """The renders one after the other, in world units and with leading dimensions ``batch``."""

        def joined(maps: list[Tensor]) -> Tensor:
            whole = torch.cat(maps) if len(maps) > 1 else maps[0]
            return whole.reshape(*batch, *whole.shape[1:])

        tracks = [render.tracks for render in renders if render.tracks is not None]
        return Picture(
            rgb=joined([render.rgb for render in renders]),
            alpha=joined([render.alpha for render in renders]),
            depth=joined([render.depth for render in renders]) * self.normalization.scale,
            foreground=joined([render.foreground for render in renders]),
            tracks=self.normalization.points_to_world(joined(tracks)) if tracks else None,
        )

    def state(self) -> dict[str, Any]:
        """Everything needed to rebuild the scene: plain tensors and numbers (see ``from_state``)."""
        parts: dict[str, Any] = {}
        for name in ("foreground", "background", "motion_bases"):
            module = getattr(self, name)
            if module is not None:
                parts[name] = {k: v.detach().clone() for k, v in module.params.items()}
        return {
            **parts,
            "center": self.center.detach().clone(),
            "scale": float(self.scale),
            "num_times": self.num_times,
            "rasterize_mode": self.rasterize_mode,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> DynamicScene:
        """Inverse of :meth:`state`.

        Raises:
            KeyError, ValueError: the state lacks an entry or shapes disagree.
        """
        gaussians = {name: Gaussians(**state[name]) if name in state else None for name in ("foreground", "background")}
        bases = MotionBases(**state["motion_bases"]) if "motion_bases" in state else None
        return cls(
            foreground=gaussians["foreground"],
            motion_bases=bases,
            background=gaussians["background"],
            normalization=Normalization(state["center"], state["scale"]),
            num_times=state["num_times"],
            rasterize_mode=state["rasterize_mode"],
        )
