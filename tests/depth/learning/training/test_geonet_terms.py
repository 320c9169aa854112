"""Flow of depth and motion, and normals of depth, as terms of a training run."""

import dataclasses

import numpy as np
import pytest
import torch

from som.data.load import open_sequence
from som.data.memory import memory_sequence
from som.depth.errors import DepthError
from som.depth.learning.losses.geonet import rigid_flow
from som.depth.learning.training.annotations import Labels
from som.depth.learning.training.batches import collate
from som.depth.learning.training.build import make_dataset
from som.depth.learning.training.config import Augmentation
from som.depth.learning.training.metric import HeightState
from som.depth.learning.training.objective import TERMS, DepthObjective
from som.depth.networks import DepthModule, DepthOutput
from som.errors import UserError

OFF = {"photometric": 0.0, "geometry": 0.0, "smoothness": 0.0}
STILL = Augmentation(flip=0.0, max_zoom=1.0, jitter=0.0)
NAMES = ("rigid_flow", "flow_consistency", "normals", "tangent_plane")


def filled(clip):
    """Depth with the sky far away."""
    return torch.where(clip.depth > 0, clip.depth, 200.0)


@pytest.fixture(scope="module")
def flows(clip):
    """Exact flow of the static street between neighbouring frames, by (from, to)."""
    found = {}
    for t in range(len(clip.w2c)):
        for other in (t - 1, t + 1):
            if 0 <= other < len(clip.w2c):
                T = clip.w2c[other] @ torch.linalg.inv(clip.w2c[t])
                depth = filled(clip)[t][None, None]
                flow, _ = rigid_flow(depth, clip.Ks[t][None], clip.Ks[other][None], T[None])
                found[t, other] = flow[0].permute(1, 2, 0)
    return found


class GivenDepth(DepthModule):
    """Predicts the depth that it is given: of targets, then of sources."""

    def __init__(self, depth):
        super().__init__()
        self.depth = torch.nn.Parameter(depth)

    def settings(self):
        return {}

    def forward(self, images):
        depth = self.depth[: len(images)]
        return DepthOutput([depth], [1 / depth], None, None)


def value_of(name, sequence, clip, make_config, factor=1.0, labels=None, augmentation=STILL):
    """The term, and its gradient by depth, where depth is the truth times ``factor``."""
    config = make_config(weights={**OFF, name: 1.0}, augmentation=augmentation)
    dataset = make_dataset(config, [sequence], 10.0, labels)
    batch = collate([dataset[1], dataset[2]])
    truth = filled(clip)[batch["frames"]][:, :, None] * factor
    net = GivenDepth(torch.cat([truth[:, 0], truth[:, 1:].flatten(0, 1)]))
    values = DepthObjective(config, net, None)(batch, HeightState())
    values["loss"].backward()
    assert set(values) == {name, "loss"} and values["loss"] == values[name]
    return values[name].item(), net.depth.grad


def test_true_depth_causes_the_optical_flow_and_wrong_depth_another(clip, flows, make_config):
    sequence = memory_sequence(clip.images, clip.Ks, clip.w2c, flows=flows)
    exact, _ = value_of("rigid_flow", sequence, clip, make_config)
    near, gradient = value_of("rigid_flow", sequence, clip, make_config, 0.8)
    far, opposite = value_of("rigid_flow", sequence, clip, make_config, 1.25)
    assert exact < 1e-3 < 0.2 < min(near, far)
    assert float(gradient.sum()) < 0 < float(opposite.sum())


def test_flow_follows_a_flipped_and_enlarged_sample(clip, flows, make_config):
    sequence = memory_sequence(clip.images, clip.Ks, clip.w2c, flows=flows)
    config = make_config(weights={**OFF, "rigid_flow": 1.0}, augmentation=Augmentation(flip=1.0, max_zoom=1.5))
    labels = Labels([sequence], [clip.depth], [torch.ones_like(clip.depth)])
    sample = make_dataset(config, [sequence], 10.0, labels)[2]
    assert bool(sample["flipped"]) and sample["flow"].shape == (2, 2, 32, 64)
    depth = sample["label"].clamp(min=0.01).expand(2, 1, -1, -1)
    expected, exists = rigid_flow(depth, sample["K"][:1].expand(2, 3, 3), sample["K"][1:], sample["T_src_tgt"])
    use = (exists & (sample["label"] > 0))[:, 0]
    # nearest pixels are up to half a pixel off, of a flow that differs by some share of that
    error = (sample["flow"] - expected).norm(dim=1)[use]
    assert float(error.median()) < 0.05 and float(expected.norm(dim=1)[use].median()) > 0.5


def test_flow_there_and_back_agrees_for_true_depth_alone(clip, sequence, make_config):
    exact, _ = value_of("flow_consistency", sequence, clip, make_config)
    config = make_config(weights={**OFF, "flow_consistency": 1.0}, augmentation=STILL)
    batch = collate([make_dataset(config, [sequence], 10.0)[2]])
    truth = filled(clip)[batch["frames"][0]][:, None]
    wrong = truth.clone()
    wrong[1:] *= 1.5  # the sources' depth no longer fits the target's
    bad = float(DepthObjective(config, GivenDepth(wrong), None)(batch, HeightState())["flow_consistency"].detach())
    assert exact < 0.1 and bad > 1.5 * exact


def test_normals_do_not_depend_on_scale_but_on_shape(clip, sequence, make_config):
    labels = Labels([sequence], [clip.depth], [torch.ones_like(clip.depth)])
    exact, _ = value_of("normals", sequence, clip, make_config, labels=labels)
    scaled, _ = value_of("normals", sequence, clip, make_config, 3.0, labels)
    rows = 1 + 0.5 * torch.linspace(-1, 1, 32)[:, None]
    bent, gradient = value_of("normals", sequence, clip, make_config, rows, labels)
    assert exact == pytest.approx(0, abs=1e-5) and scaled == pytest.approx(0, abs=1e-5) and bent > 0.01
    assert bool(gradient.isfinite().all()) and float(gradient.abs().sum()) > 0


def test_tangent_planes_leave_planes_alone_and_flatten_bumps(clip, sequence, make_config):
    generator = torch.Generator().manual_seed(0)
    bumps = 1 + 0.02 * torch.randn(32, 64, generator=generator)
    smooth, _ = value_of("tangent_plane", sequence, clip, make_config)
    rough, gradient = value_of("tangent_plane", sequence, clip, make_config, bumps)
    assert rough > 1.5 * smooth and bool(gradient.isfinite().all())


def test_what_the_data_lacks_is_said_in_one_sentence(sequence, make_config, make_trainer):
    with pytest.raises(DepthError, match=r"clip: weights\.rigid_flow needs optical flow, .* python -m flow video"):
        make_trainer(make_config(weights={**OFF, "rigid_flow": 1.0}))
    with pytest.raises(DepthError, match="needs known depth"):
        make_trainer(make_config(weights={**OFF, "normals": 1.0})).train()


@pytest.mark.parametrize("name", NAMES)
def test_every_term_trains(name, clip, flows, make_config):
    from som.depth.learning.training.build import make_networks, network_config, resolve_pose
    from som.depth.learning.training.trainer import DepthTrainer

    sequence = memory_sequence(clip.images, clip.Ks, clip.w2c, flows=flows)
    labels = Labels([sequence], [clip.depth], [torch.ones_like(clip.depth)])
    config = make_config(weights={**OFF, name: 1.0}, steps=2)
    network = network_config(config, [sequence], resolve_pose(config, [sequence]), clip.depth[clip.depth > 0])
    net, _ = make_networks(config, network, "given")
    before = [p.clone() for p in net.parameters()]
    DepthTrainer(config, net, make_dataset(config, [sequence], 10.0, labels)).train()
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_each_weight_is_a_term(make_config):
    handled = {*TERMS, "photometric", "geometry", "rough_height", "camera_height"}
    assert {f.name for f in dataclasses.fields(make_config().weights)} == handled


def test_a_data_set_folder_tells_its_flow(tmp_path, clip, flows):
    import json

    import cv2

    (tmp_path / "images").mkdir()
    (tmp_path / "flow").mkdir()
    frames = []
    for t in range(3):
        cv2.imwrite(str(tmp_path / f"images/{t:05d}.png"), (clip.images[t] * 255).byte().permute(1, 2, 0).numpy())
        frames.append({"file_path": f"images/{t:05d}.png", "transform_matrix": np.eye(4).tolist(), "time": t})
    header = {"fl_x": 50, "fl_y": 50, "cx": 32, "cy": 16, "w": 64, "h": 32, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(header))
    half = flows[1, 2].numpy()[::2, ::2] / 2  # flow at half the images' size, in its own pixels
    right = np.ones((16, 32), bool)
    right[:4] = False
    steps = np.round(half * 256).astype(np.int16)
    np.savez(tmp_path / "flow/00001_00002.npz", flow=steps, step=np.float32(1 / 256), consistent=right)
    sequence = open_sequence(tmp_path)
    flow, known = sequence.flow(1, 2)
    torch.testing.assert_close(flow[:, ::2, ::2], flows[1, 2].permute(2, 0, 1)[:, ::2, ::2], atol=0.01, rtol=0)
    assert sequence.has_flow and not known[:8].any() and known[8:].all()
    assert not sequence.flow(0, 1)[1].any()
    assert not sequence.select([1, 2]).flow(1, 0)[1].any() and sequence.select([1, 2]).flow(0, 1)[1].any()
    (tmp_path / "flow/00000_00001.npz").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"00000_00001.npz is not a readable flow file"):
        sequence.flow(0, 1)
