"""A generated drive along a street with exact depth, cameras, road and objects of known height.

World axes are x right, y down, z along the street; the road is the plane y = camera_height and the camera centre
stays on y = 0. Everything is a function of the seed.
"""

from som.depth.learning.synthetic.clip import RoadClip, make_road_clip
from som.depth.learning.synthetic.degradation import degrade_depth
from som.depth.learning.synthetic.street import RoadClipConfig

__all__ = ["RoadClip", "RoadClipConfig", "degrade_depth", "make_road_clip"]
