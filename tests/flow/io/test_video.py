import imageio.v2 as imageio
import numpy as np
import pytest

from flow.errors import UserError
from flow.io.video import probe_video, read_video

H, W, T = 32, 48, 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frames of rising red."""
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    frames = np.zeros((T, H, W, 3), np.uint8)
    frames[..., 0] = 20 + 20 * np.arange(T)[:, None, None]
    with imageio.get_writer(path, fps=30000 / 1001, codec="libx264", quality=10, macro_block_size=1) as writer:
        for frame in frames:
            writer.append_data(frame)
    return path


def test_size_and_rate(clip):
    info = probe_video(clip)
    assert info.size == (H, W) and info.fps == pytest.approx(30000 / 1001, abs=1e-9)


@pytest.mark.parametrize("part", [slice(0, None, 1), slice(2, 9, 3), slice(7, 99, 2), slice(10, None, 1)])
def test_chosen_frames(clip, part):
    frames = dict(read_video(clip, probe_video(clip), start=part.start, end=part.stop, every=part.step))
    assert list(frames) == list(range(T))[part]
    for index, frame in frames.items():
        assert frame.shape == (H, W, 3) and frame.flags.writeable
        assert np.abs(frame[..., 0].astype(int) - 20 - 20 * index).max() < 12


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"a\.mp4: no frame can be decoded"):
        probe_video(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"b\.mp4: this video is missing"):
        probe_video(tmp_path / "b.mp4")
