"""The 4D scene: static background Gaussians and foreground Gaussians carried by shared motion bases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from som.data.normalization import Normalization
from som.rendering import rasterize
from som.scene.gaussians import Gaussians
from som.scene.motion import MotionBases, matrix_to_quat_wxyz, quat_multiply_wxyz


@dataclass
class SceneRender:
    """What one call of :meth:`DynamicScene.render` returns, for B views."""

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
    info: dict
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
        if motion_bases is None and num_times is None:
            raise ValueError("DynamicScene: num_times is required without a foreground.")
        self.foreground = foreground
        self.motion_bases = motion_bases
        self.background = background
        self.rasterize_mode = rasterize_mode
        self.register_buffer("center", normalization.center.detach().clone().float())
        self.register_buffer("scale", torch.tensor(float(normalization.scale), dtype=torch.float64))
        self.num_times = num_times if motion_bases is None else motion_bases.num_times

    @property
    def normalization(self) -> Normalization:
        return Normalization(center=self.center, scale=float(self.scale))

    @property
    def num_foreground(self) -> int:
        return 0 if self.foreground is None else len(self.foreground)

    @property
    def num_background(self) -> int:
        return 0 if self.background is None else len(self.background)

    def foreground_poses(self, times: Int[Tensor, "b"]) -> tuple[Float[Tensor, "b g 3 3"], Float[Tensor, "b g 3"]]:
        """Rotation and position of every foreground Gaussian at each time."""
        return self.motion_bases.carry(self.foreground.means, self.foreground.motion_weights, times)

    def _gaussians_at(self, B: int, positions: Tensor | None, rotations: Tensor | None, parts: tuple[str, ...]):
        """Means, quats, scales, opacities and features (rgb + foreground flag) of B views, foreground first."""
        rows = []
        if "foreground" in parts:
            fg = self.foreground
            quats = quat_multiply_wxyz(matrix_to_quat_wxyz(rotations), fg.quats_wxyz.expand(B, -1, -1))
            rows.append((positions, quats, fg, 1.0))
        if "background" in parts:
            bg = self.background
            rows.append((bg.means.expand(B, -1, -1), bg.quats_wxyz.expand(B, -1, -1), bg, 0.0))
        means = torch.cat([r[0] for r in rows], 1)
        quats = torch.cat([r[1] for r in rows], 1)
        scales = torch.cat([r[2].scales for r in rows]).expand(B, -1, -1)
        opacities = torch.cat([r[2].opacities for r in rows]).expand(B, -1)
        features = torch.cat(
            [torch.cat([r[2].colors, r[2].colors.new_full((len(r[2]), 1), r[3])], 1) for r in rows]
        ).expand(B, -1, -1)
        return means, quats, scales, opacities, features

    def gaussians_at(
        self, times: Int[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b g 3"], Float[Tensor, "b g 4"], Float[Tensor, "b g 3"], Float[Tensor, "b g"]]:
        """Means, quaternions (wxyz), scales and opacities of all Gaussians, foreground first, in scene coordinates."""
        rotations, positions = (None, None) if self.foreground is None else self.foreground_poses(times)
        parts = tuple(part for part in ("foreground", "background") if getattr(self, part) is not None)
        return self._gaussians_at(len(times), positions, rotations, parts)[:4]

    def render(
        self,
        w2cs: Float[Tensor, "b 4 4"],
        Ks: Float[Tensor, "b 3 3"],
        times: Int[Tensor, "b"],
        width: int,
        height: int,
        *,
        background_color: Float[Tensor, "b 3"] | float = 1.0,
        track_times: Int[Tensor, "b n"] | None = None,
        poses: tuple[Tensor, Tensor, Tensor | None] | None = None,
        parts: tuple[str, ...] = ("foreground", "background"),
        absgrad: bool = False,
    ) -> SceneRender:
        """Renders B views, each at its own time, in one rasterisation.

        Args:
            w2cs, Ks: cameras in scene coordinates (see ``normalization.w2cs_to_scene``).
            times: time index of every view.
            background_color: what shows through where alpha < 1, RGB in [0, 1].
            track_times: for every view, N times at which the seen surface's positions are rendered.
            poses: rotations (B, G, 3, 3) and positions (B, G, 3) of the foreground at ``times``, and its positions
                (B, N, G, 3) at ``track_times`` (or None), where they are already known.
            parts: which Gaussians to draw.
        """
        parts = tuple(p for p in parts if getattr(self, p) is not None)
        if not parts:
            raise ValueError("render: none of the requested parts exists in this scene.")
        B = len(w2cs)
        if poses is None and "foreground" in parts:
            rotations, positions = self.foreground_poses(times)
            track_positions = None
            if track_times is not None:
                track_positions = self.foreground_poses(track_times.flatten())[1].unflatten(0, track_times.shape)
        else:
            rotations, positions, track_positions = (None, None, None) if poses is None else poses
        means, quats, scales, opacities, features = self._gaussians_at(B, positions, rotations, parts)
        if track_times is not None:
            features = torch.cat([features, self._track_features(track_positions, B, track_times.shape[1], parts)], -1)

        color = torch.as_tensor(background_color, dtype=means.dtype, device=means.device)
        backdrop = means.new_zeros(B, 1, features.shape[-1])
        backdrop[..., :3] = color.expand(B, 3)[:, None]
        rendered, alpha, info = rasterize(
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
        alpha = alpha.squeeze(1)  # (B, H, W, 1)
        # split, not slices: the gradient of a slice is an image full of zeros, each
        rgb, foreground, weighted, depth = rendered.squeeze(1).split([3, 1, features.shape[-1] - 4, 1], dim=-1)
        tracks = None
        if track_times is not None:
            tracks = (weighted / alpha.clamp(min=1e-6)).unflatten(-1, (-1, 3)).permute(0, 3, 1, 2, 4)
        return SceneRender(
            rgb=rgb,
            alpha=alpha.squeeze(-1),
            foreground=foreground.squeeze(-1),
            depth=depth.squeeze(-1),
            tracks=tracks,
            info=info,
        )

    def _track_features(self, positions: Tensor | None, B: int, N: int, parts: tuple[str, ...]) -> Tensor:
        """(B, G, 3 N) positions at the track times; the background stays where it is."""
        rows = []
        if "foreground" in parts:
            rows.append(positions.transpose(1, 2).flatten(2))
        if "background" in parts:
            rows.append(self.background.means.repeat(1, N).expand(B, -1, -1))
        return torch.cat(rows, 1)

    def state(self) -> dict:
        """Everything needed to rebuild the scene: plain tensors and numbers (see ``from_state``)."""
        parts = {}
        for name in ("foreground", "background", "motion_bases"):
            module = getattr(self, name)
            if module is not None:
                parts[name] = {k: v.detach().clone() for k, v in module.params.items()}
        return {
            **parts,
            "center": self.center.detach().clone(),
            "scale": float(self.scale),
            "num_times": int(self.num_times),
            "rasterize_mode": self.rasterize_mode,
        }

    @classmethod
    def from_state(cls, state: dict) -> DynamicScene:
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
