"""What the objective does to a batch: other units, moving pixels, the depth of sources."""

import pytest
import torch

from som.cameras.geometry import invert_se3, reproject
from som.depth.learning.multiview.build import make_multiview_trainer
from som.depth.learning.multiview.objective import random_factors, rescaled
from som.depth.learning.training.batches import collate
from som.depth.learning.training.config import Augmentation, LossWeights
from som.depth.learning.training.metric import HeightState
from tests.depth.learning.multiview.conftest import SIDE, plane_clip


@pytest.fixture
def run(make_config):
    """A trainer on one clip and a batch of two of its samples, without augmentation."""

    def make(moving=None, **changes):
        config = make_config(augmentation=Augmentation(flip=0.0, max_zoom=1.0, jitter=0.0, rescale=1.0), **changes)
        trainer = make_multiview_trainer(config, [plane_clip(0, moving=moving)])
        return trainer, collate([trainer.dataset[1], trainer.dataset[2]])

    return make


def test_rescaled_samples_show_the_same_points(run):
    """Every target pixel falls on the same source pixel, so that the images stay right."""
    _, batch = run()
    changed = rescaled(batch, torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(changed["depth"], batch["depth"] * torch.tensor([0.5, 3.0]).view(2, 1, 1, 1))
    for b in (batch, changed):
        b["at"] = reproject(b["depth"], b["K"][:, 0], b["K"][:, 1], b["T_src_tgt"][:, 0])[0]
    torch.testing.assert_close(changed["at"], batch["at"], atol=1e-3, rtol=0)
    assert torch.equal(changed["images"], batch["images"])
    torch.testing.assert_close(changed["w2c"][..., :3, :3], batch["w2c"][..., :3, :3])


def test_random_factors_stay_in_their_range_and_follow_the_seed():
    torch.manual_seed(1)
    factors = random_factors(2000, 1.5)
    torch.manual_seed(1)
    assert torch.equal(factors, random_factors(2000, 1.5))
    assert float(factors.min()) >= 1 / 1.5 - 1e-6
    assert float(factors.max()) <= 1.5 + 1e-6
    assert float(factors.log().mean()) == pytest.approx(0.0, abs=0.02)
    assert torch.equal(random_factors(5, 1.0), torch.ones(5))


def test_depth_of_what_moves_teaches_nothing(run):
    moving = torch.zeros(5, SIDE, SIDE, dtype=torch.bool)
    moving[:, 20:40, 20:40] = True
    trainer, batch = run(moving)
    objective = trainer.objective.eval()
    wrong = {**batch, "depth": torch.where(batch["moving"][:, :1], 99.0, batch["depth"])}
    with torch.no_grad():
        losses = [float(objective(b, HeightState())["loss"]) for b in (batch, wrong)]
        everywhere = float(objective({**batch, "depth": batch["depth"] * 2}, HeightState())["loss"])
    assert losses[0] == losses[1]
    assert everywhere != losses[0]


def test_sources_are_matched_with_all_other_views(run):
    trainer, batch = run(weights=LossWeights(photometric=1.0, geometry=0.5))
    objective = trainer.objective.eval()
    with torch.no_grad():
        output, sources = objective._depth(batch, True)
        alone, none = objective._depth(batch, False)
        images, K, T = batch["inputs"], batch["K"], batch["T_src_tgt"]
        back = invert_se3(T[:, 1])
        relative = torch.stack([back, T[:, 0] @ back], dim=1)  # of target and first source, from the second source
        expected = trainer.objective.depth_net(images[:, [2, 0, 1]], K[:, [2, 0, 1]], relative).depths[0]
    assert none is None
    assert sources.shape == (2, 2, 1, SIDE, SIDE)
    torch.testing.assert_close(output.depths[0], alone.depths[0])
    torch.testing.assert_close(sources[:, 1], expected, rtol=1e-4, atol=1e-4)
