"""Pictures of a scene as a user asks for them: cameras in world units, times in frames, any number of views."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from som.cameras import Camera
from som.errors import UserError

if TYPE_CHECKING:
    from som.scene.dynamic_scene import DynamicScene

MAX_PIXELS = 1 << 26
"""Of one picture; 8192 x 8192."""
PIXELS_AT_ONCE = 1 << 22
"""Views are drawn together while they have fewer pixels than this, which bounds memory."""
VIEWS_AT_ONCE = 16
"""... and fewer views than this: each has its own copy of the moving Gaussians."""


@dataclass(frozen=True)
class Picture:
    """What :meth:`DynamicScene.render` returns, on the scene's device.

    ``*b`` are the leading dimensions of the camera and the time, broadcast; a single view has none.
    """

    rgb: Float[Tensor, "*b h w 3"]
    """Colour in [0, 1], composited over the background colour."""
    alpha: Float[Tensor, "*b h w"]
    """Accumulated opacity in [0, 1]."""
    depth: Float[Tensor, "*b h w"]
    """Expected z-depth in world units; 0 where nothing is seen."""
    foreground: Float[Tensor, "*b h w"]
    """Part of ``alpha`` that moving Gaussians contribute, in [0, 1]."""
    tracks: Float[Tensor, "*b n h w 3"] | None
    """World position, at each track time, of the surface seen in a pixel; means nothing where ``alpha`` is 0. None
    unless asked for."""


@dataclass(frozen=True)
class RequestedViews:
    """B views of a request in world units, checked and with flat leading dimensions."""

    camera: Camera
    times: Int[Tensor, "b"] | Float[Tensor, "b"]
    track_times: Int[Tensor, "b n"] | Float[Tensor, "b n"] | None
    background_color: Float[Tensor, "b 3"]
    batch: tuple[int, ...]
    """The leading dimensions that the result gets."""


def requested_views(
    scene: DynamicScene, camera: Camera, time: Any, track_times: Any, background_color: Any
) -> RequestedViews:
    """Checks what :meth:`DynamicScene.render` was asked for and brings it to the scene's device.

    Raises:
        UserError: something does not fit; says what.
    """
    _check_camera(camera)
    times = frames("time", time, scene)
    color = torch.as_tensor(background_color, dtype=torch.float32, device=scene.device)
    if color.ndim and color.shape[-1] != 3:
        raise UserError(f"`background_color` must be one number or (...,3) RGB in [0, 1]; got {_shape(color)}.")
    color = color if color.ndim else color.expand(3)
    leading = {"camera": camera.batch_shape, "time": tuple(times.shape), "background_color": tuple(color.shape[:-1])}
    wanted = None if track_times is None else frames("track_times", track_times, scene)
    if wanted is not None:
        if not wanted.numel():
            raise UserError("`track_times` must name at least one time; got none.")
        wanted = wanted.reshape(1) if wanted.ndim == 0 else wanted
        leading["track_times"] = tuple(wanted.shape[:-1])
    try:
        batch = torch.broadcast_shapes(*leading.values())
    except RuntimeError:
        found = ", ".join(f"{name} {shape}" for name, shape in leading.items())
        raise UserError(f"The leading dimensions of one request must broadcast; got {found}.") from None
    if 0 in batch:
        raise UserError(f"There must be at least one view to render; got {tuple(batch)} of them.")
    size = math.prod(batch)
    K, w2c = camera.K.to(scene.device).expand(*batch, 3, 3), camera.w2c.to(scene.device).expand(*batch, 4, 4)
    return RequestedViews(
        camera=Camera(K.reshape(size, 3, 3), w2c.reshape(size, 4, 4), camera.width, camera.height),
        times=times.expand(batch).reshape(size),
        track_times=None if wanted is None else wanted.expand(*batch, -1).reshape(size, -1),
        background_color=color.expand(*batch, 3).reshape(size, 3),
        batch=tuple(batch),
    )


def frames(name: str, value: Any, scene: DynamicScene) -> Tensor:
    """A time or times in frames as a tensor, of integers where they were given as such.

    Raises:
        UserError: they are no numbers, or lie outside the scene's.
    """
    try:
        times = torch.as_tensor(value, device=scene.device)
    except (TypeError, ValueError, RuntimeError):
        times = torch.zeros(0, dtype=torch.bool)
    if times.dtype == torch.bool or times.is_complex():
        raise UserError(f"`{name}` must be a number or a tensor of numbers, in frames; got {type(value).__name__}.")
    last = scene.num_times - 1
    outside = ~((times >= 0) & (times <= last))  # so that nan is outside
    if bool(outside.any()):
        raise UserError(f"`{name}` must lie between 0 and {last}, in frames; got {times[outside].flatten()[0].item()}.")
    return times if times.is_floating_point() else times.long()


def _check_camera(camera: Camera) -> None:
    if not isinstance(camera, Camera):
        raise UserError(f"`camera` must be a som.Camera, in world units; got {type(camera).__name__}.")
    if camera.is_distorted:
        raise UserError(f"Scenes are drawn by pinhole cameras; got one of model {camera.model}: use its undistorted().")
    if camera.width * camera.height > MAX_PIXELS:
        raise UserError(f"A picture may have at most {MAX_PIXELS:,} pixels; got {camera.width}x{camera.height}.")
    if not bool(camera.K.isfinite().all() & camera.w2c.isfinite().all()):
        raise UserError("The camera's K and w2c must be finite; got nan or infinity.")
    R, bottom = camera.w2c[..., :3, :3], camera.w2c.new_tensor([0, 0, 0, 1])
    scaled = (R @ R.mT - torch.eye(3).to(R)).abs().max() > 1e-3
    if scaled or (camera.w2c[..., 3, :] - bottom).abs().max() > 1e-5:
        raise UserError("The camera's w2c must be a rotation and a translation, last row 0 0 0 1; remove its scale.")
    if not bool((camera.K.diagonal(dim1=-2, dim2=-1) > 0).all()):
        raise UserError("The camera's focal lengths must be positive.")


def _shape(value: Tensor) -> str:
    return f"a tensor of shape {tuple(value.shape)}"
