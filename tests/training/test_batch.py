import torch

from som.training.sampling import BatchSampler


def sampler(dataset, **changes):
    options = dict(batch_size=4, track_targets=2, tracks_per_view=16, seed=3, device=torch.device("cpu"))
    return BatchSampler(dataset, **{**options, **changes})


def test_every_view_once_per_epoch(dataset):
    s = sampler(dataset)
    drawn = [i for step in range(6) for i in s.view_indices(step)]  # 24 = 4 epochs of 6
    for epoch in range(4):
        assert sorted(drawn[epoch * 6 : epoch * 6 + 6]) == list(range(6))
    assert drawn[:6] != drawn[6:12]


def test_a_step_is_a_function_of_seed_and_step(dataset):
    a, b = sampler(dataset), sampler(dataset)
    for _ in range(3):
        a.sample(0)
    x, y = a.sample(5), b.sample(5)
    assert torch.equal(x.times, y.times) and torch.equal(x.targets.times, y.targets.times)
    assert torch.equal(x.targets.tracks.source_xy, y.targets.tracks.source_xy)
    assert not torch.equal(sampler(dataset, seed=4).sample(5).targets.tracks.source_xy, x.targets.tracks.source_xy)


def test_batch_contents(dataset):
    s = sampler(dataset)
    batch = s.sample(0)
    assert batch.images.shape == (4, 24, 32, 3) and batch.images.min() >= 0 and batch.images.max() <= 1
    assert batch.targets.times.shape == (4, 2) and batch.targets.tracks.target_xy.shape == (4, 2, 16, 2)
    assert (batch.targets.times != batch.times[:, None]).all()
    for b, t in enumerate(batch.times):
        assert torch.equal(batch.cameras.w2c[b], dataset.train.cameras.w2c[t])
        for p in range(16):  # source and target belong to the same track
            q = (dataset.tracks.xy[:, t] - batch.targets.tracks.source_xy[b, p]).norm(dim=-1).argmin()
            for n, other in enumerate(batch.targets.times[b]):
                assert torch.equal(batch.targets.tracks.target_xy[b, n, p], dataset.tracks.xy[q, other])


def test_invisible_targets_have_no_weight_and_unseen_views_no_tracks(dataset):
    dataset.tracks.visible[:, 2] = False
    s = sampler(dataset)
    for step in range(6):
        batch = s.sample(step)
        weight = batch.targets.tracks.weight
        assert (weight[batch.times == 2] == 0).all()
        assert (weight.transpose(1, 2)[(batch.targets.times == 2)[:, None, :].expand(-1, 16, -1)] == 0).all()
        assert weight.max() == 1


def test_few_views_and_no_tracks(dataset):
    dataset.tracks = None
    assert sampler(dataset).sample(0).targets is None
    from dataclasses import replace

    small = replace(dataset, train=dataset.train.select([0, 1]))
    assert sampler(small, batch_size=3).sample(0).images.shape[0] == 3
