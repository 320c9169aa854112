"""Optical flow between training views, and the static links and pixel pairs drawn from it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from flow.errors import FlowError
from som.cameras import Camera
from som.correspondence import FlowConfig, link_pixel_pairs, link_static_points, training_flow
from som.data.dataset import VideoDataset, Views
from som.errors import UserError

N, H, W, STEP = 5, 72, 96, 3


@pytest.fixture(scope="module")
def views() -> Views:
    """A texture that moves by 3 px to the right a frame, and a square in front of it that moves down."""
    rng = np.random.default_rng(0)
    cloth = cv2.GaussianBlur(rng.uniform(0, 255, (H, W + N * STEP, 3)).astype(np.float32), (0, 0), 2.0)
    patch = cv2.GaussianBlur(rng.uniform(0, 255, (24, 24, 3)).astype(np.float32), (0, 0), 1.5)
    cloth, patch = (cv2.normalize(x, None, 0, 255, cv2.NORM_MINMAX) for x in (cloth, patch))
    images, masks = [], []
    for i in range(N):
        image = cloth[:, (N - i) * STEP : (N - i) * STEP + W].copy()
        mask = np.zeros((H, W), bool)
        mask[10 + 4 * i : 34 + 4 * i, 40:64] = True
        image[mask] = patch.reshape(-1, 3)
        images.append(image.round().astype(np.uint8))
        masks.append(mask)
    return Views(
        names=[str(i) for i in range(N)],
        times=torch.arange(N),
        images=torch.from_numpy(np.stack(images)),
        cameras=Camera(torch.tensor([[80.0, 0, W / 2], [0, 80, H / 2], [0, 0, 1]]), torch.eye(4).repeat(N, 1, 1), W, H),
        valid=torch.ones(N, H, W, dtype=torch.bool),
        foreground=torch.from_numpy(np.stack(masks)),
        depths=torch.full((N, H, W), 2.0),
    )


def video(views: Views, **more) -> VideoDataset:
    return VideoDataset(name="squares", num_times=N, train=views, **more)


@pytest.fixture(scope="module")
def flow(views):
    return training_flow(video(views), FlowConfig(strides=(1, 2)))[0]


def test_static_links_follow_the_background_only(views, flow):
    links = link_static_points(views, flow, per_link=100, generator=torch.Generator().manual_seed(0))
    assert len(links.source) > 500 and (links.source - links.target).abs().max() == 2
    expected = torch.stack([STEP * (links.target - links.source), torch.zeros_like(links.source)], 1)
    error = (links.target_xy - links.source_xy - expected).norm(dim=1)
    assert error.quantile(0.95) < 0.5
    column, row = links.source_xy.floor().long().unbind(1)
    assert not views.foreground[links.source, row, column].any()


def test_static_links_come_in_the_views_pixels(views):
    """Flow on smaller images, links in full pixels."""
    small, _ = training_flow(video(views), FlowConfig(strides=(1,), max_side=48))
    assert (small.height, small.width) == (36, 48)
    links = link_static_points(views, small, generator=torch.Generator().manual_seed(0))
    shift = (links.target_xy - links.source_xy)[:, 0] * (links.target - links.source)
    assert shift.median() == pytest.approx(STEP, abs=0.3) and links.source_xy[:, 0].max() > 60


def test_pixel_pairs_know_where_they_go(views, flow):
    pairs = link_pixel_pairs(replace(views, depths=None), flow)
    drawn = pairs.draw([pairs.number(0, 2)], 500, torch.Generator().manual_seed(0), (H, W))
    used = drawn.weight[0] > 0
    assert used.float().mean() > 0.8
    start = torch.stack([drawn.first[0] % W, drawn.first[0] // W], 1) + 0.5
    moved = (drawn.target_first[0] - start)[used]
    on_patch = views.foreground[0].flatten()[drawn.first[0]][used]
    assert (moved[~on_patch] - torch.tensor([2.0 * STEP, 0.0])).norm(dim=1).quantile(0.9) < 0.5
    assert (moved[on_patch] - torch.tensor([0.0, 8.0])).norm(dim=1).quantile(0.9) < 0.7


def test_flow_is_kept_in_the_folder(views, tmp_path):
    first, _ = training_flow(video(views), FlowConfig(strides=(1,)), tmp_path / "flow")
    again, method = training_flow(video(views), FlowConfig(strides=(1,)), tmp_path / "flow")
    assert first.reused == 0 and again.reused == 2 * (N - 1) and "dis" in method
    assert torch.equal(first.get(0, 1), again.get(0, 1))


def test_unusable_weights_are_one_sentence(views, tmp_path):
    path = tmp_path / "raft.pth"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"raft\.pth"):
        training_flow(video(views), FlowConfig(estimator="raft-small", weights=path))


def test_flow_of_the_data_set_serves_the_training_views(views, flow):
    """Views at times 0, 2, 4, at half the size of the frames that the flow was computed for."""
    half = views.select([0, 2, 4])
    half = replace(half, **{n: getattr(half, n)[:, ::2, ::2] for n in ("images", "valid", "foreground", "depths")})
    chosen, method = training_flow(video(half, flow=flow), FlowConfig())
    assert "data set" in method and chosen.num_frames == 3 and chosen.strides() == (1,)
    assert torch.equal(chosen.get(1, 2), flow.get(2, 4))
    assert (chosen.image_height, chosen.image_width) == (H // 2, W // 2)


def test_flow_is_computed_anew_where_the_option_says_so_or_the_data_set_has_none_that_fits(views, flow):
    given = video(views, flow=flow)
    assert "dis" in training_flow(given, FlowConfig(source="compute", strides=(1,)))[1]
    ends = replace(given, train=views.select([0, 4]))  # no stride of 4 was computed
    assert "dis" in training_flow(ends, FlowConfig(strides=(1,)))[1]
    with pytest.raises(UserError, match=r"flow\.source"):
        training_flow(video(views), FlowConfig(source="dataset"))


def test_selected_flow_refuses_other_proportions_and_unknown_frames(flow):
    with pytest.raises(FlowError, match="proportions"):
        flow.select([0, 1], (H, 2 * W))
    for frames in ([0, 0], [0, N]):
        with pytest.raises(FlowError, match="different numbers"):
            flow.select(frames)
