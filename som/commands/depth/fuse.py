"""som4d depth fuse"""

from __future__ import annotations

import torch
from torch import Tensor

from som.commands.depth.common import known_cameras, open_input, read_depth_folder
from som.commands.depth.options import FuseCommand
from som.data.sequence import DepthSequence, resize_depth
from som.depth.errors import DepthError
from som.depth.fusion import FusionOptions, fuse_points, write_ply
from som.files import resize_map
from som.runs.device import set_up_process
from som.runs.progress import say


def fuse(command: FuseCommand) -> int:
    """Writes the point cloud; returns the exit code (0 done, 1 if no point is confirmed).

    Raises:
        DepthError: something in the options or the data is wrong.
    """
    set_up_process(command.threads)
    sequence = open_input(command.input, max_side=command.max_side, cache_images=True)
    Ks, w2cs = known_cameras(sequence)
    depth = _depths(command, sequence)
    options = FusionOptions(min_views=command.min_views, max_depth_error=command.max_depth_error, voxel=command.voxel)
    cloud = fuse_points(depth, sequence.images(), Ks, w2cs, options)
    if not len(cloud):
        say("error: no pixel is confirmed by other views; nothing was written. Lower --min-views or raise "
            "--max-depth-error.")  # fmt: skip
        return 1
    write_ply(command.output, cloud)
    say(f"wrote {len(cloud)} points to {command.output}")
    return 0


def _depths(command: FuseCommand, sequence: DepthSequence) -> Tensor:
    """(T,H,W) at the size of the images; 0 where unknown, not trusted, or moving."""
    if command.depth is not None:
        depths, confidences = read_depth_folder(command.depth, sequence.names)
    elif all(sequence.has_depth):
        depths = [sequence.depth(t)[0].numpy() for t in range(len(sequence))]
        found = [c.numpy() for c in map(sequence.confidence, range(len(sequence))) if c is not None]
        confidences = found if len(found) == len(sequence) else None
    else:
        raise DepthError(f"{sequence.name} has no depth of every frame; predict it first, or name a folder by --depth.")
    maps = []
    for t, depth in enumerate(depths):
        resized = torch.from_numpy(resize_depth(depth, sequence.size))
        if confidences is not None:
            sure = torch.from_numpy(resize_map(confidences[t], sequence.size)) >= command.min_confidence
            resized = torch.where(sure, resized, 0.0)
        for mask, good in ((sequence.moving(t), False), (sequence.valid(t), True)):
            if mask is not None:
                resized = torch.where(mask == good, resized, 0.0)
        maps.append(resized)
    return torch.stack(maps)
