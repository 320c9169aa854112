"""Depth of your own in preprocessing: a provider, known by a name, that is asked like the built-in ones.

    python examples/03_own_depth_provider.py my_video.mp4 data/my_video
"""

import argparse
from dataclasses import dataclass

import torch

import som
from som.preprocessing import register_provider
from som.preprocessing.config import DepthSettings
from som.preprocessing.frames.options import FrameOptions
from som.preprocessing.providers.base import Clip, DepthProvider, DepthResult


@dataclass(frozen=True)
class LowerIsNearer(DepthProvider):
    """Stands for a network: what is lower in the picture is nearer. Fields count among what the result depends on, so
    that the stage is done again when they change."""

    horizon: float = 0.3
    """Where disparity is 0, from the top of the picture."""

    def provide(self, clip: Clip, settings: DepthSettings, *, device, seed, progress) -> DepthResult:
        """``clip`` has the images (T, H, W, 3) and what earlier stages have found: flow, cameras, masks, tracks."""
        maps = []
        for i, image in enumerate(clip.images):
            height, width = image.shape[:2]
            # with a network: disparity = network(image), on ``device``
            rows = (torch.arange(height) + 0.5) / height
            disparity = (rows - self.horizon).clamp(min=0)[:, None].expand(height, width)
            maps.append(torch.where(disparity > 0, 1 / disparity.clamp(min=1e-3), 0.0))  # depth; 0 where unknown
            progress("lower is nearer", (i + 1) / len(clip))
        # "relative": scale and shift of every frame's disparity are unknown; training brings them to the cameras
        return DepthResult(torch.stack(maps), kind="relative", method="lower is nearer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="a video or a folder of images")
    parser.add_argument("output", help="the data set folder that is made")
    parser.add_argument("--max-side", type=int, default=480)
    options = parser.parse_args()

    register_provider("depth", "lower-is-nearer", LowerIsNearer())
    result = som.preprocess(
        options.video,
        options.output,
        frames=FrameOptions(max_side=options.max_side),
        depth=DepthSettings(provider="lower-is-nearer"),
        on_stage=lambda stage, earlier: print(f"{stage.name}: {stage.method}"),
    )
    data = som.load_dataset(options.output)
    print(f"{result.folder}: {len(data.train)} frames, {data.depth_kind} depth")


if __name__ == "__main__":
    main()
