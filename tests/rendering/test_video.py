import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from som.cameras import Camera
from som.data.normalization import Normalization
from som.rendering.video import (
    VideoWriter,
    colorize_depth,
    colorize_error,
    depth_range,
    draw_trails,
    overlay_mask,
    rainbow,
    render_path_video,
    side_by_side,
    to_uint8,
    write_video,
)
from som.scene import DynamicScene, Gaussians


def test_round_trip(tmp_path):
    frames = (np.full((24, 32, 3), i / 9, np.float32) for i in range(10))
    assert write_video(tmp_path / "new" / "a.mp4", frames, fps=12) == 10
    back = imageio.mimread(tmp_path / "new" / "a.mp4")
    assert len(back) == 10
    assert np.allclose([f.mean() for f in back], np.arange(10) / 9 * 255, atol=4)
    meta = imageio.get_reader(tmp_path / "new" / "a.mp4").get_meta_data()
    assert meta["fps"] == 12 and meta["codec"] == "h264" and "yuv420p" in meta["pix_fmt"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(("height", "width"), [(23, 31), (24, 31), (23, 32), (2, 2), (1, 1)])
def test_odd_sizes_are_padded(tmp_path, height, width):
    write_video(tmp_path / "a.mp4", [np.full((height, width, 3), 128, np.uint8)] * 3, fps=5)
    back = imageio.mimread(tmp_path / "a.mp4")
    assert len(back) == 3 and back[0].shape == (height + height % 2, width + width % 2, 3)
    assert abs(back[0][-1, -1].mean() - 128) < 6


def test_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def frames():
        yield np.zeros((8, 8, 3), np.uint8)
        raise RuntimeError("rendering failed")

    with pytest.raises(RuntimeError, match="rendering failed"):
        write_video(path, frames(), fps=5)
    with pytest.raises(ValueError, match="shape"):
        write_video(path, [np.zeros((8, 8, 3)), np.zeros((8, 10, 3))], fps=5)
    with pytest.raises(ValueError, match="no frames"), VideoWriter(path, 5):
        pass
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_to_uint8():
    assert to_uint8(torch.tensor([[[0.0, 0.5, 2.0]]])).tolist() == [[[0, 128, 255]]]
    assert to_uint8(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]
    assert to_uint8(np.array([[np.nan]])).tolist() == [[[0] * 3]]


def test_depth_range_is_of_the_whole_video():
    depths = [np.array([[0.0, 1.0, 2.0]]), np.array([[3.0, np.inf, 4.0]])]
    assert depth_range(depths, (0, 100)) == (1.0, 4.0)
    assert depth_range([np.zeros((2, 2))]) == (1.0, 2.0)
    assert depth_range([]) == (1.0, 2.0)
    near, far = depth_range([np.ones((2, 2))])
    assert near < far


def test_depth_colours():
    image = colorize_depth(np.array([[1.0, 4.0, 0.0, 1.0]]), 1.0, 4.0, np.array([[1.0, 1.0, 1.0, 0.0]]))
    near, far, unknown, transparent = image[0].astype(int)
    assert near[0] > near[2] and far[2] > far[0]
    assert unknown.tolist() == [0, 0, 0] and transparent.tolist() == [0, 0, 0]
    alone = colorize_depth(np.array([[1.0]]), 1.0, 4.0)
    assert (alone[0, 0] == near).all()  # the colour does not depend on the rest of the frame
    assert (colorize_error(np.array([[0.5, 9.0]]))[0, 0] == colorize_error(np.array([[9.0]]))[0, 0]).all()


def test_side_by_side_and_overlay():
    image = side_by_side(np.zeros((4, 5, 3)), torch.ones(4, 6, 3), gap=2)
    assert image.shape == (4, 13, 3) and image[0, 4].tolist() == [0] * 3 and image[0, 7].tolist() == [255] * 3
    tinted = overlay_mask(np.zeros((1, 2, 3)), np.array([[True, False]]), (200, 100, 0), 0.5)
    assert tinted.tolist() == [[[100, 50, 0], [0, 0, 0]]]


def test_trails():
    xy = np.array([[[2.5, 4.5], [2.5, 12.5]], [[10.5, 4.5], [10.5, 12.5]]])  # two points move right
    colors = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    frame = np.zeros((16, 20, 3), np.uint8)
    image = draw_trails(frame, xy, colors, visible=[True, False])
    assert image[4, 10, 0] > 200 and image[4, 6, 0] > 100 and image[4, 6, 1] == 0
    assert image[12].max() == 0  # hidden
    assert frame.max() == 0  # untouched
    assert draw_trails(frame, xy, colors, drawable=np.zeros((2, 2), bool)).max() == 0
    assert draw_trails(frame, np.full((1, 2, 2), np.nan), colors).max() == 0
    assert draw_trails(frame, xy[-1:], colors)[12, 10, 1] > 200


def test_rainbow():
    assert rainbow(np.array([3.0])).shape == (1, 3)
    colors = rainbow(np.array([0.0, 100.0, 1.0]))
    assert len({tuple(c) for c in colors.tolist()}) == 3


def test_render_path_video():
    gaussian = Gaussians.from_values(
        torch.tensor([[0.0, 0, 3]]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.5), torch.ones(1),
        torch.tensor([[1.0, 0, 0]]),
    )  # fmt: skip
    scene = DynamicScene(None, None, gaussian, Normalization(torch.zeros(3), 1.0), num_times=5)
    K = torch.tensor([[10.0, 0, 8], [0, 10, 6], [0, 0, 1]])
    frames = list(
        render_path_video(scene, Camera(K, torch.eye(4).expand(5, 4, 4), 16, 12), torch.arange(5), batch_size=2)
    )
    assert len(frames) == 5
    assert frames[4].rgb.shape == (12, 16, 3) and frames[4].depth[6, 8] == pytest.approx(3.0)
    assert frames[0].rgb[6, 8, 0] > 0.9 and frames[0].rgb[6, 8, 1] < 0.2
    with pytest.raises(ValueError, match="times"):
        next(render_path_video(scene, Camera(K, torch.eye(4)[None], 16, 12), torch.arange(2)))
