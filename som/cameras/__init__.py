"""Cameras: the ``Camera`` that everything holds, the projective geometry below it, rotations, undistortion."""

from som.cameras.camera import Camera
from som.cameras.distortion import CameraModel

__all__ = ["Camera", "CameraModel"]
