"""Pictures of a distorted camera as a pinhole would have taken them: images, masks and depth maps alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import in_image, sample_depth, sample_image
from som.errors import UserError

if TYPE_CHECKING:
    from som.cameras.camera import Camera

Kind = Literal["image", "mask", "depth"]


class Undistorted(NamedTuple):
    """A resampled picture."""

    values: Tensor
    """(*b,h,w) or (*b,h,w,C), of the picture's type; 0 where not ``valid``."""
    valid: Bool[Tensor, "*b h w"]
    """Whether the original picture saw the pixel; of a depth map, also whether its depth is known."""


@dataclass(frozen=True, eq=False)
class Undistortion:
    """Where each pixel of a pinhole's picture lies in the picture of a distorted camera; made once for all frames."""

    source: Camera
    """The distorted camera."""
    target: Camera
    """The pinhole camera at the same place."""
    xy: Float[Tensor, "*b n 2"]
    """Image coordinates in the source of all pixels of the target, row by row."""
    reached: Bool[Tensor, "*b n"]
    """Whether they lie in the source's picture, on the lens model's proper branch."""

    def __call__(self, picture: Tensor, kind: Kind = "image") -> Undistorted:
        """Resamples one picture of each camera.

        Args:
            picture: (*b,H,W), or (*b,H,W,C) of images and masks, of the source's size and any type.
            kind: ``image`` (bilinear), ``mask`` (nearest), or ``depth``, which never mixes two surfaces; 0 = unknown.
                z along the optical axis is the same for both cameras.

        Raises:
            UserError: the picture has another shape, or the kind is unknown.
        """
        batch, (W, H) = self.source.batch_shape, (self.source.width, self.source.height)
        ends = {"image": (0, 1), "mask": (0, 1), "depth": (0,)}.get(kind)
        if ends is None:
            raise UserError(f"Pictures are resampled as image, mask or depth; got {kind!r}.")
        extra = picture.ndim - len(batch) - 2
        if tuple(picture.shape[: len(batch) + 2]) != (*batch, H, W) or extra not in ends:
            wanted = f"{(*batch, H, W)}" + (", with or without channels" if 1 in ends else "")
            raise UserError(f"The picture to undistort must be {wanted}; got {tuple(picture.shape)}.")
        flat = picture.reshape(-1, H, W, *(picture.shape[-1:] if extra else (1,)))
        xy = self.xy.reshape(-1, *self.xy.shape[-2:])
        valid = self.reached.reshape(-1, self.reached.shape[-1], 1)
        if kind == "depth":
            values = sample_depth(flat[..., 0].to(xy.dtype), xy)[..., None]
            valid = valid & (values > 0)
        elif kind == "mask":
            column, row = xy[..., 0].long().clamp(0, W - 1), xy[..., 1].long().clamp(0, H - 1)
            values = flat[torch.arange(len(flat), device=flat.device)[:, None], row, column]
        else:
            values = sample_image(flat.to(xy.dtype), xy)
            values = values if picture.is_floating_point() else values.round()
        values = torch.where(valid, values, torch.zeros_like(values)).to(picture.dtype)
        size = (*batch, self.target.height, self.target.width)
        return Undistorted(values.reshape(*size, *picture.shape[len(batch) + 2 :]), valid.reshape(size))


def undistortion(source: Camera, target: Camera) -> Undistortion:
    """The map from a pinhole's pixels to a camera's.

    Raises:
        UserError: the target is no pinhole, or stands elsewhere than the source.
    """
    if target.model != "pinhole":
        raise UserError(f"Pictures can be undistorted to a pinhole only; got a target of the model {target.model}.")
    if not torch.equal(source.w2c, target.w2c):
        raise UserError("Pictures can be undistorted to a camera at the same place only; give target the same w2c.")
    place = target.pixels()
    xy, _ = source.project_local(target.unproject_local(place))
    inside = in_image(xy, source.height, source.width)
    # a polynomial may fold back far outside and send a second direction to the same pixel
    seen = torch.where(inside[..., None], xy, source.K[..., None, :2, 2])
    back = target.project_local(source.unproject_local(seen))[0]
    reached = inside & ((back - place).abs().amax(-1) < 0.1)
    return Undistortion(source, target, xy.nan_to_num(-1.0), reached)
