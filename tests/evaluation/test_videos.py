from dataclasses import replace

import imageio.v2 as imageio
import pytest
import torch

from som.data.normalization import Normalization
from som.evaluation.config import EvaluationConfig, VideoConfig
from som.evaluation.videos import novel_view_cameras, render_videos, subject_depth
from som.scene import DynamicScene


def test_all_videos(scene, dataset, tmp_path):
    config = EvaluationConfig(videos=VideoConfig(num_frames=7, num_trails=10, trail_length=3))
    calls = []
    paths = render_videos(scene, dataset, tmp_path, config, lambda *call: calls.append(call))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{k}.mp4" for k in config.videos.kinds)
    sizes = {"train_view": (24, 66, 3), "novel_view": (24, 32, 3), "novel_view_depth": (24, 32, 3)}
    for kind, path in paths.items():
        frames = imageio.mimread(path)
        assert len(frames) == 7
        assert frames[0].shape == sizes.get(kind, (24, 32, 3))
        assert frames[3].std() > 5
        assert imageio.get_reader(path).get_meta_data()["fps"] == dataset.fps
    assert calls[-1] == ("novel views", 1.0)


def test_scene_in_which_nothing_moves(scene, dataset, tmp_path, caplog):
    still = DynamicScene(None, None, scene.background, scene.normalization, num_times=5)
    config = EvaluationConfig(videos=VideoConfig(kinds=("novel_view", "tracks"), num_frames=2))
    assert list(render_videos(still, dataset, tmp_path, config)) == ["novel_view"]
    assert "nothing moves" in caplog.text


def test_no_videos(scene, dataset, tmp_path):
    assert render_videos(scene, dataset, tmp_path, EvaluationConfig(videos=VideoConfig(kinds=()))) == {}


def test_depth_of_the_subject_is_in_scene_units(scene, dataset):
    assert subject_depth(scene, dataset) == pytest.approx(3.0, abs=0.5)


def test_nothing_rendered_still_gives_a_path(scene, dataset):
    far = DynamicScene(None, None, scene.background, Normalization(torch.full((3,), 500.0), 1.0), num_times=5)
    assert subject_depth(far, dataset) == 1.0
    cameras = novel_view_cameras(far, replace(dataset), EvaluationConfig(), 4)
    assert len(cameras) == 4 and bool(cameras.w2c.isfinite().all())


@pytest.mark.parametrize("follow", ["auto", "yes", "no"])
def test_novel_view_cameras(scene, dataset, follow):
    config = EvaluationConfig(videos=VideoConfig(follow=follow))
    cameras = novel_view_cameras(scene, dataset, config, 6)
    assert len(cameras) == 6
    torch.testing.assert_close(torch.det(cameras.w2c[:, :3, :3]), torch.ones(6))
