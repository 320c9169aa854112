"""``Camera``: one or many cameras with their pose, intrinsics, picture size and lens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from som.cameras import distortion as lens
from som.cameras.distortion import COEFFICIENTS, MODELS, CameraModel
from som.cameras.geometry import (
    camera_centers,
    flip_intrinsics,
    flip_pose,
    invert_se3,
    pixel_centers,
    resize_intrinsics,
    transform_points,
)
from som.cameras.undistortion import Kind, Undistorted, Undistortion, undistortion
from som.errors import UserError

_COLMAP: dict[str, tuple[CameraModel, int]] = {
    "SIMPLE_PINHOLE": ("pinhole", 1),
    "PINHOLE": ("pinhole", 2),
    "SIMPLE_RADIAL": ("opencv", 1),
    "RADIAL": ("opencv", 1),
    "OPENCV": ("opencv", 2),
    "FULL_OPENCV": ("opencv", 2),
    "SIMPLE_RADIAL_FISHEYE": ("opencv_fisheye", 1),
    "RADIAL_FISHEYE": ("opencv_fisheye", 1),
    "OPENCV_FISHEYE": ("opencv_fisheye", 2),
    "THIN_PRISM_FISHEYE": ("thin_prism_fisheye", 2),
}
"""COLMAP's camera models: ours, and how many focal lengths they begin with."""


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera, or a batch of cameras of one picture size and one lens model.

    Axes are OpenCV's (x right, y down, z forward), the centre of the pixel in column i and row j is (i + 0.5, j + 0.5),
    depth is z along the optical axis. The leading dimensions of ``K``, ``w2c`` and ``distortion`` broadcast, so that
    one K may serve many poses. Nothing is ever changed in place: every method returns another camera.

    >>> camera = Camera.from_fov(90.0, width=640, height=480)
    >>> xy, z = camera.project(torch.tensor([[0.0, 0.0, 2.0]]))
    >>> xy.tolist(), z.tolist()
    ([[320.0, 240.0]], [2.0])
    >>> camera.resized(320, 240).unproject(torch.tensor([[320.0, 120.0]]), torch.tensor([2.0])).tolist()
    [[2.0, 0.0, 2.0]]

    Raises:
        UserError: shapes, types or devices do not fit each other, or the model is unknown.
    """

    K: Float[Tensor, "*#b 3 3"]
    """Intrinsics in pixels, without skew."""
    w2c: Float[Tensor, "*#b 4 4"]
    """World to camera, rigid."""
    width: int
    height: int
    model: CameraModel = "pinhole"
    distortion: Float[Tensor, "*#b c"] | None = None
    """Coefficients of the model, see ``som.cameras.distortion``; None for a pinhole."""

    def __post_init__(self) -> None:
        for name, value, end in (("K", self.K, (3, 3)), ("w2c", self.w2c, (4, 4))):
            if not isinstance(value, Tensor) or not value.is_floating_point() or tuple(value.shape[-2:]) != end:
                raise UserError(
                    f"The camera's {name} must be a (...,{end[0]},{end[1]}) float tensor; got {_say(value)}."
                )
        if self.model not in MODELS:
            raise UserError(f"Unknown camera model {self.model!r}; there are {', '.join(MODELS)}.")
        if not (self.width > 0 and self.height > 0):
            raise UserError(f"A camera's picture must have a positive size; got {self.width}x{self.height}.")
        if self.model == "pinhole" and self.distortion is not None:
            raise UserError('A pinhole camera has no distortion; name its model, as in "opencv", or leave it away.')
        tensors = {"K": (self.K, 2), "w2c": (self.w2c, 2)}
        if self.model != "pinhole":
            tensors["distortion"] = (self._checked_distortion(), 1)
        if len({(t.dtype, t.device) for t, _ in tensors.values()}) > 1:
            found = ", ".join(f"{name} {t.dtype} on {t.device}" for name, (t, _) in tensors.items())
            raise UserError(f"A camera's tensors must have one type and device; got {found}.")
        try:
            batch = torch.broadcast_shapes(*(t.shape[: t.ndim - own] for t, own in tensors.values()))
        except RuntimeError:
            found = ", ".join(f"{name} {tuple(t.shape)}" for name, (t, _) in tensors.items())
            raise UserError(f"A camera's tensors must have the same leading dimensions; got {found}.") from None
        for name, (t, own) in tensors.items():
            if t.shape[: t.ndim - own] != batch:
                object.__setattr__(self, name, t.expand(batch + t.shape[t.ndim - own :]))

    def _checked_distortion(self) -> Tensor:
        counts, value = COEFFICIENTS[self.model], self.distortion
        if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[-1] not in counts:
            wanted = " or ".join(map(str, counts))
            raise UserError(f"The {self.model} model needs (...,{wanted}) distortion coefficients; got {_say(value)}.")
        return value

    # -- making cameras ---------------------------------------------------------------------------------------------

    @staticmethod
    def from_fov(degrees: float, width: int, height: int, w2c: Float[Tensor, "*b 4 4"] | None = None) -> Camera:
        """A pinhole with square pixels whose picture is ``degrees`` wide; at the origin unless ``w2c`` is given."""
        if not 0 < degrees < 180:
            raise UserError(f"A pinhole camera's field of view must lie between 0 and 180 degrees; got {degrees}.")
        w2c = torch.eye(4) if w2c is None else w2c
        focal = width / 2 / math.tan(math.radians(degrees) / 2)
        K = w2c.new_tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        return Camera(K, w2c, width, height)

    @staticmethod
    def from_arrays(
        K: ArrayLike, w2c: ArrayLike, width: int, height: int, dtype: torch.dtype = torch.float32
    ) -> Camera:
        """A pinhole from (*b,3,3) and (*b,4,4) numbers of any kind: arrays, lists of arrays."""
        intrinsics, poses = (torch.from_numpy(np.asarray(values, np.float64)).to(dtype) for values in (K, w2c))
        return Camera(intrinsics, poses, width, height)

    @staticmethod
    def from_colmap(
        model: str, params: Sequence[float], w2c: Float[Tensor, "*b 4 4"], width: int, height: int
    ) -> Camera:
        """A camera by the name and the parameters of COLMAP's model; its axes and pixel centres are ours.

        Raises:
            UserError: the model is unknown or has another number of parameters.
        """
        if model not in _COLMAP:
            raise UserError(f"The COLMAP camera model {model} is not known; there are {', '.join(_COLMAP)}.")
        ours, focals = _COLMAP[model]
        fx, fy, cx, cy = (params[0], *params[:3]) if focals == 1 else params[:4]
        K = w2c.new_tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        rest = list(params[focals + 2 :])
        if ours == "pinhole":
            return Camera(K, w2c, width, height)
        if model in ("SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"):
            rest += [0.0] * (4 - len(rest))
        return Camera(K, w2c, width, height, ours, w2c.new_tensor(rest))

    @staticmethod
    def stack(cameras: Sequence[Camera]) -> Camera:
        """Many cameras of one picture size and model as one batch, along a new first dimension.

        Raises:
            UserError: there is none, or they differ.
        """
        return Camera.cat([camera[None] for camera in cameras])

    @staticmethod
    def cat(batches: Sequence[Camera]) -> Camera:
        """Batches of cameras of one picture size and model one after another; errors as ``stack``."""
        kinds = {(c.width, c.height, c.model, c.batch_shape[1:], _num_coefficients(c)) for c in batches}
        if len(kinds) != 1:
            found = ", ".join(f"{model} {width}x{height}" for width, height, model, *_ in kinds) or "no camera"
            raise UserError(f"Only cameras of one picture size and model can be put together; got {found}.")
        coefficients = [c.distortion for c in batches if c.distortion is not None]
        distortion = torch.cat(coefficients) if coefficients else None
        K, w2c = torch.cat([c.K for c in batches]), torch.cat([c.w2c for c in batches])
        return replace(batches[0], K=K, w2c=w2c, distortion=distortion)

    # -- as a batch -------------------------------------------------------------------------------------------------

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions; () for a single camera."""
        return tuple(self.K.shape[:-2])

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("A single camera has no length; `camera[None]` makes a batch of one.")
        return self.batch_shape[0]

    def __getitem__(self, index: Any) -> Camera:
        """Indexes the leading dimensions as a tensor's."""
        if not self.batch_shape and index is not None:
            raise TypeError("A single camera cannot be indexed; `camera[None]` makes a batch of one.")
        distortion = None if self.distortion is None else self.distortion[index]
        return replace(self, K=self.K[index], w2c=self.w2c[index], distortion=distortion)

    def __iter__(self) -> Iterator[Camera]:
        return (self[i] for i in range(len(self)))

    def to(self, *args: Any, **kwargs: Any) -> Camera:
        """On another device or of another floating type, as ``torch.Tensor.to``."""
        distortion = None if self.distortion is None else self.distortion.to(*args, **kwargs)
        return replace(self, K=self.K.to(*args, **kwargs), w2c=self.w2c.to(*args, **kwargs), distortion=distortion)

    # -- where it is ------------------------------------------------------------------------------------------------

    @property
    def c2w(self) -> Float[Tensor, "*b 4 4"]:
        """Camera to world."""
        return invert_se3(self.w2c)

    @property
    def centers(self) -> Float[Tensor, "*b 3"]:
        """Positions in the world."""
        return camera_centers(self.w2c)

    # -- from the world to pixels and back --------------------------------------------------------------------------

    def project(
        self, points: Float[Tensor, "*#b n 3"], min_depth: float = 1e-5
    ) -> tuple[Float[Tensor, "*#b n 2"], Float[Tensor, "*#b n"]]:
        """Where world points are seen.

        Args:
            points: leading dimensions broadcast with the camera's.
            min_depth: smallest z that is divided by, so that points beside or behind the camera stay finite.

        Returns:
            image coordinates (x, y) in pixels, and z in camera axes. Where z <= 0 the point is behind the camera and
            its coordinates mean nothing; they are not bounded by the picture either.
        """
        _check_points("points", points, 3)
        return self.project_local(transform_points(self.w2c, points), min_depth)

    def unproject(self, xy: Float[Tensor, "*#b n 2"], depth: Float[Tensor, "*#b #n"]) -> Float[Tensor, "*#b n 3"]:
        """World points seen at image coordinates with z-depth ``depth``; leading dimensions broadcast.

        Nan at pixels of a distorted picture that no direction is sent to.
        """
        direction = self.unproject_local(xy)
        return transform_points(self.c2w, direction * (depth / direction[..., 2])[..., None])

    def project_local(
        self, points: Float[Tensor, "*#b n 3"], min_depth: float = 1e-5
    ) -> tuple[Float[Tensor, "*#b n 2"], Float[Tensor, "*#b n"]]:
        """``project`` of points in camera axes."""
        plane = lens.to_plane(points, self.model, min_depth)
        moved = lens.distort(plane, self.model, self._coefficients())
        return moved * self._focal() + self._principal_point(), points[..., 2]

    def unproject_local(self, xy: Float[Tensor, "*#b n 2"]) -> Float[Tensor, "*#b n 3"]:
        """Directions in camera axes of image coordinates; of a pinhole and of ``opencv`` with z = 1."""
        _check_points("xy", xy, 2)
        plane = (xy - self._principal_point()) / self._focal()
        return lens.from_plane(lens.undistort(plane, self.model, self._coefficients()), self.model)

    def pixels(self) -> Float[Tensor, "n 2"]:
        """Image coordinates of all pixel centres, row by row."""
        return pixel_centers(self.height, self.width, device=self.K.device, dtype=self.K.dtype).flatten(0, 1)

    def rays(self, xy: Float[Tensor, "*#b n 2"] | None = None) -> tuple[Tensor, Tensor]:
        """Unit directions in the world.

        Args:
            xy: image coordinates in pixels; None takes the centres of all pixels.

        Returns:
            origins and directions, both (*b,n,3), or (*b,h,w,3) for all pixels; z-depth is the length along a ray times
            the cosine of its angle to the optical axis. Nan as in ``unproject``.
        """
        direction = self.unproject_local(self.pixels() if xy is None else xy)
        direction = torch.nn.functional.normalize(direction, dim=-1) @ self.w2c[..., :3, :3]
        origins = self.centers[..., None, :].expand_as(direction)
        if xy is None:
            size = (self.height, self.width)
            return origins.unflatten(-2, size), direction.unflatten(-2, size)
        return origins, direction

    def _focal(self) -> Tensor:
        return self.K[..., None, [0, 1], [0, 1]]

    def _principal_point(self) -> Tensor:
        return self.K[..., None, :2, 2]

    def _coefficients(self) -> Tensor | None:
        return None if self.distortion is None else self.distortion[..., None, :]

    # -- other pictures of the same cameras -------------------------------------------------------------------------

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the picture resized to ``width`` x ``height``."""
        K = resize_intrinsics(self.K, width / self.width, height / self.height)
        return replace(self, K=K, width=width, height=height)

    def cropped(self, left: float, top: float, width: int, height: int) -> Camera:
        """The camera of the window whose upper left corner is (left, top); it may reach beyond the picture."""
        shift = self.K.new_tensor([[0.0, 0.0, left], [0.0, 0.0, top], [0.0, 0.0, 0.0]])
        return replace(self, K=self.K - shift, width=width, height=height)

    def flipped(self) -> Camera:
        """The camera of the picture mirrored left to right, in the world mirrored in x: points (x, y, z) are at
        (-x, y, z)."""
        return replace(
            self,
            K=flip_intrinsics(self.K, self.width),
            w2c=flip_pose(self.w2c),
            distortion=lens.mirrored(self.model, self.distortion),
        )

    # -- without distortion -----------------------------------------------------------------------------------------

    @property
    def is_distorted(self) -> bool:
        """Whether it is anything but a pinhole; an ``opencv`` lens whose coefficients are all 0 is one."""
        if self.model == "opencv" and self.distortion is not None:
            return bool(self.distortion.any())
        return self.model != "pinhole"

    def undistorted(self, blank: float = 1.0, max_zoom: float = 2.0) -> Camera:
        """The pinhole camera at the same place, of the same size and principal point, that shows the same pixels.

        Args:
            blank: 1 takes the focal lengths that keep every pixel in the picture, with a border without values where
                the lens bends inwards; 0 those that leave no such border; between them, a mixture.
            max_zoom: how far the focal lengths may change, up or down; what is far out in a fisheye picture is lost.
        """
        if not self.is_distorted:
            return replace(self, model="pinhole", distortion=None)
        scale = blank * self._zoom(keep=True) + (1 - blank) * self._zoom(keep=False)
        scale = scale.clamp(1 / max_zoom, max_zoom)[..., None, None]
        zoom = torch.cat([scale.expand(*self.batch_shape, 2, 1), torch.ones_like(scale)], -2)
        K = torch.cat([self.K[..., :2] * zoom, self.K[..., 2:]], -1)
        return replace(self, K=K, model="pinhole", distortion=None)

    def _zoom(self, keep: bool) -> Tensor:
        """(*b) factor of the focal length with which the undistorted outline touches the picture's sides from within
        (``keep``) or from without."""
        W, H = float(self.width), float(self.height)
        x, y = torch.arange(self.width + 1).to(self.K), torch.arange(self.height + 1).to(self.K)
        sides = [torch.stack([x, torch.full_like(x, at)], -1) for at in (0.0, H)]
        sides += [torch.stack([torch.full_like(y, at), y], -1) for at in (0.0, W)]
        corner, zooms = self.K.new_tensor([W, H]), []
        for side, axis in zip(sides, (1, 1, 0, 0), strict=True):
            direction = self.unproject_local(side)
            place = self._focal() * direction[..., :2] / direction[..., 2:]
            seen = (direction[..., 2:] > 0) & place.isfinite()
            room = torch.where(place > 0, corner - self._principal_point(), -self._principal_point())
            ratio = torch.where(seen, room / place, torch.zeros_like(place))  # 0: at infinity or beyond
            if keep:
                zooms.append(torch.where(ratio > 0, ratio, torch.inf * seen).amin((-1, -2)))
            else:
                zooms.append(ratio[..., axis].amax(-1))
        return torch.stack(zooms).amin(0) if keep else torch.stack(zooms).amax(0)

    def undistortion(self, target: Camera | None = None) -> Undistortion:
        """What resamples this camera's pictures to those of a pinhole; use it for all frames of one lens.

        Args:
            target: the pinhole, at the same place; None takes ``undistorted()``.
        """
        return undistortion(self, self.undistorted() if target is None else target)

    def undistort(self, picture: Tensor, kind: Kind = "image", target: Camera | None = None) -> Undistorted:
        """One picture resampled to one without distortion, see ``Undistortion``.

        >>> camera = Camera.from_colmap("SIMPLE_RADIAL", (50.0, 32.0, 24.0, -0.1), torch.eye(4), 64, 48)
        >>> image, valid = camera.undistort(torch.ones(48, 64, 3))
        >>> tuple(image.shape), bool(valid.all())
        ((48, 64, 3), False)
        """
        return self.undistortion(target)(picture, kind)


def _num_coefficients(camera: Camera) -> int:
    return 0 if camera.distortion is None else camera.distortion.shape[-1]


def _say(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}".replace("torch.", "")
    return type(value).__name__


def _check_points(name: str, points: Tensor, size: int) -> None:
    if points.ndim < 2 or points.shape[-1] != size:
        raise UserError(f"The camera takes {name} of shape (...,N,{size}); got {_say(points)}.")
