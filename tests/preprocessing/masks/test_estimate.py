import json

import numpy as np
import pytest
import torch

from flow.video_flow import VideoFlow
from som.errors import UserError
from som.preprocessing.masks.estimate import estimate_masks
from som.preprocessing.masks.options import MaskOptions

T = 12


def test_a_box_before_a_wall_is_found_without_cameras(falling):
    found = estimate_masks(falling.flow, falling.frames)
    assert found.method == "homography"
    assert falling.iou(found.foreground) > 0.85
    assert falling.recall(found.foreground) > 0.97
    assert found.foreground.dtype == torch.bool and found.foreground.shape == falling.frames.shape[:3]
    assert found.score.shape == (T, falling.flow.height, falling.flow.width) and bool(found.score.isfinite().all())
    assert found.warnings == []


def test_cameras_tell_parallax_from_motion(with_post):
    alone = estimate_masks(with_post.flow, with_post.frames)
    informed = estimate_masks(with_post.flow, with_post.frames, K=with_post.K, w2c=with_post.w2c)
    assert informed.method == "homography+multi_view"
    assert with_post.iou(alone.foreground) < 0.65  # the post counts as moving
    assert with_post.iou(informed.foreground) > 0.8
    assert with_post.recall(informed.foreground) > 0.95
    assert informed.findings["camera_residual_px"] < 0.05


def test_wrong_cameras_do_not_hide_what_the_homography_shows(falling):
    wrong = falling.w2c.clone()
    wrong[:, :3, 3] = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (T, 3)))
    found = estimate_masks(falling.flow, falling.frames, K=falling.K, w2c=wrong)
    assert falling.iou(found.foreground) > 0.75
    assert any("cameras" in sentence for sentence in found.warnings)


def test_poses_of_unregistered_frames_are_never_read(with_post):
    registered = torch.ones(T, dtype=torch.bool)
    registered[[0, 5]] = False
    poses = with_post.w2c.clone()
    poses[~registered] = torch.nan
    found = estimate_masks(with_post.flow, with_post.frames, K=with_post.K, w2c=poses, registered=registered)
    known = registered.numpy()
    assert with_post.iou(found.foreground, known) > 0.75
    assert with_post.recall(found.foreground) > 0.9


def test_motion_along_epipolar_lines_is_left_to_the_homography(make_clip):
    # a box that keeps ahead of a sideways camera looks as a static point behind it, at 4/(1-.5) = 8 units
    clip = make_clip(
        path=np.arange(T)[:, None] * np.array([[0.06, 0.0]]), camera=np.arange(T)[:, None] * [[0.12, 0, 0]]
    )
    rigid = estimate_masks(clip.flow, clip.frames, K=clip.K, w2c=clip.w2c, method="multi_view")
    assert clip.recall(rigid.foreground) < 0.2
    # what lies in front of the wall cannot be a point behind it
    depth = torch.where(torch.from_numpy(clip.moving), 4.0, 6.0)
    narrowed = estimate_masks(clip.flow, clip.frames, K=clip.K, w2c=clip.w2c, depth=depth, method="multi_view")
    assert clip.recall(narrowed.foreground) > 0.9


@pytest.mark.parametrize("cameras", [True, False])
def test_a_camera_that_stands_still(make_clip, cameras):
    clip = make_clip(path=np.arange(T)[:, None] * np.array([[0.05, 0.1]]), post=True, camera=np.zeros((T, 3)))
    given = dict(K=clip.K, w2c=clip.w2c) if cameras else {}
    found = estimate_masks(clip.flow, clip.frames, **given)
    assert found.method == "static_camera"
    assert clip.iou(found.foreground) > 0.85


def test_what_stops_for_a_while_stays_foreground(make_clip):
    steps = np.r_[0, 1, 2, [3] * 7, 4, 5]
    clip = make_clip(path=steps[:, None] * np.array([[0.1, 0.12]]), camera=np.zeros((T, 3)))
    found = estimate_masks(clip.flow, clip.frames)
    still = slice(5, 8)
    by_itself = found.score.numpy()[still][clip.moving[still]] > found.findings["threshold_px"]
    assert by_itself.mean() < 0.1
    assert clip.recall(found.foreground, still) > 0.95
    assert clip.iou(found.foreground) > 0.8


def test_nothing_moves(make_clip):
    clip = make_clip()
    found = estimate_masks(clip.flow, clip.frames)
    assert not found.foreground.any()
    assert len(found.warnings) == 1 and "Nothing" in found.warnings[0]


def test_flow_that_contradicts_itself_is_reported(falling):
    flow, rng = VideoFlow(T, (96, 144)), torch.Generator().manual_seed(0)
    for pair in falling.flow.pairs():
        flow.put(*pair, torch.randn(96, 144, 2, generator=rng) * 40)
    found = estimate_masks(flow, falling.frames)
    assert bool(found.score.isfinite().all())
    json.dumps(found.findings, allow_nan=False)
    assert any("consistent" in sentence for sentence in found.warnings)


def test_masks_have_the_size_of_the_images(falling):
    larger = np.repeat(np.repeat(falling.frames, 2, 1), 2, 2)
    flow = VideoFlow(T, (96, 144), (192, 288))
    for pair in falling.flow.pairs():
        flow.put(*pair, falling.flow.get(*pair))
    scale = torch.tensor([[2.0], [2.0], [1.0]], dtype=torch.float64)
    found = estimate_masks(flow, larger, K=falling.K * scale, w2c=falling.w2c)
    assert found.foreground.shape == larger.shape[:3]
    assert found.findings["camera_residual_px"] < 0.05  # K was scaled to the flow
    truth = np.repeat(np.repeat(falling.moving, 2, 1), 2, 2)
    assert (found.foreground.numpy() & truth).sum() / (found.foreground.numpy() | truth).sum() > 0.8


def test_the_same_input_gives_the_same_masks_and_counts_progress(falling):
    steps = []
    first = estimate_masks(falling.flow, falling.frames)
    second = estimate_masks(falling.flow, falling.frames, progress=lambda stage, share: steps.append(share))
    assert torch.equal(first.foreground, second.foreground) and torch.equal(first.score, second.score)
    assert steps == [(i + 1) / len(steps) for i in range(len(steps))]


def test_flow_in_one_direction_only_says_nothing(falling):
    flow = VideoFlow(T, (96, 144))
    for source, target in falling.flow.pairs():
        if source < target:
            flow.put(source, target, falling.flow.get(source, target))
    found = estimate_masks(flow, falling.frames, K=falling.K, w2c=falling.w2c)
    assert not found.foreground.any()
    json.dumps(found.findings, allow_nan=False)
    assert any("consistent" in sentence for sentence in found.warnings)


def test_no_masks_on_demand(falling):
    found = estimate_masks(falling.flow, falling.frames, method="none")
    assert found.method == "none" and not found.foreground.any() and found.foreground.shape == (T, 96, 144)


def test_input_that_does_not_fit(falling):
    flow, frames, K, w2c = falling.flow, falling.frames, falling.K, falling.w2c
    with pytest.raises(UserError, match="frames"):
        estimate_masks(flow, frames[:5])
    with pytest.raises(UserError, match="frames"):
        estimate_masks(flow, frames.astype(np.float32))
    with pytest.raises(UserError, match="K and w2c"):
        estimate_masks(flow, frames, K=K)
    with pytest.raises(UserError, match="w2c"):
        estimate_masks(flow, frames, K=K, w2c=w2c[:3])
    with pytest.raises(UserError, match="depth"):
        estimate_masks(flow, frames, K=K, w2c=w2c, depth=torch.ones(3, 96, 144))
    with pytest.raises(UserError, match="multi-view needs cameras"):
        estimate_masks(flow, frames, method="multi_view")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("homography_strides", ()),
        ("multi_view_strides", (1, 1)),
        ("inlier_px", 0.0),
        ("max_threshold_px", 0.5),
        ("keep_vote", 1.0),
        ("min_component", -0.1),
        ("close_px", -1),
    ],
)
def test_options_out_of_range(option, value):
    with pytest.raises(UserError, match=option):
        MaskOptions(**{option: value})
