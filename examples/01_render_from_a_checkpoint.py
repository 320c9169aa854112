"""A film from a trained scene: the camera circles what it looks at while time plays, or stands still (bullet time).

    som4d train --work-dir out data:demo            # once; some minutes on a CPU
    python examples/01_render_from_a_checkpoint.py out film.mp4
    python examples/01_render_from_a_checkpoint.py out bullet_time.mp4 --freeze 12
"""

import argparse
import math

import torch

import som
from som.rendering.video import write_video
from som.training.run_config import recorded_run


def orbit(start: som.Camera, target: torch.Tensor, frames: int, degrees: float) -> som.Camera:
    """Cameras on an arc around ``target``, the first and the last of them at ``start``; all of them as one batch."""
    phase = torch.linspace(0, 2 * math.pi, frames)
    angle = math.radians(degrees) / 2 * torch.sin(phase)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros(frames), torch.ones(frames)
    # turns the world about the camera's vertical axis through the target; w2c maps world points to camera axes
    turn = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], -1).unflatten(-1, (3, 3))
    R, t = start.w2c[:3, :3], start.w2c[:3, 3]
    pivot = R @ target + t
    w2c = torch.eye(4).repeat(frames, 1, 1)
    w2c[:, :3, :3] = turn @ R
    w2c[:, :3, 3] = (turn @ (t - pivot)[:, None])[..., 0] + pivot
    return som.Camera(start.K, w2c, start.width, start.height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dir", help="a run of som4d train")
    parser.add_argument("video", help="the .mp4 that is written")
    parser.add_argument("--freeze", type=float, help="stop time at this frame")
    parser.add_argument("--frames", type=int, default=60)
    options = parser.parse_args()

    scene = som.load_scene(options.work_dir)  # on the GPU if there is one
    data = som.load_dataset(recorded_run(options.work_dir).data)  # the cameras of the video that it was trained on
    start = data.train.cameras[0]

    # What the first camera sees in the middle of its picture is what we circle. Everything is in world units.
    seen = scene.render(start, time=0)
    middle = seen.depth[seen.alpha > 0.5].median().cpu()
    target = start.unproject(torch.tensor([[start.width / 2, start.height / 2]]), middle[None])[0]

    # As many times as cameras: the two broadcast. Times are in frames and need not be whole.
    times = torch.linspace(0, scene.num_times - 1, options.frames)
    if options.freeze is not None:
        times = torch.full_like(times, options.freeze)
    film = scene.render(orbit(start, target, options.frames, degrees=20), times)
    write_video(options.video, film.rgb.cpu(), fps=24)
    print(f"{options.video}: {options.frames} frames, {film.rgb.shape[2]}x{film.rgb.shape[1]}")


if __name__ == "__main__":
    main()
