"""Scene model: Gaussians, shared SE(3) motion bases, rendering of a moving scene."""

from som.scene.dynamic_scene import DynamicScene, ForegroundPoses, SceneRender
from som.scene.gaussians import Gaussians
from som.scene.motion import MotionBases
from som.scene.picture import Picture

__all__ = ["DynamicScene", "ForegroundPoses", "Gaussians", "MotionBases", "Picture", "SceneRender"]
