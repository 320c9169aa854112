import numpy as np
import pytest
import torch

from som.depth.metric_scale.statistics import group_extreme, group_quantile, masked_quantile


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_quantiles_agree_with_numpy(quantile):
    g = torch.Generator().manual_seed(0)
    values = torch.randn(3, 40, generator=g, dtype=torch.float64)
    mask = torch.rand(3, 40, generator=g) > 0.4
    mask[1] = False
    got = masked_quantile(values, mask, quantile)
    assert got[1].isnan()
    for k in (0, 2):
        assert got[k] == pytest.approx(np.quantile(values[k][mask[k]].numpy(), quantile))
    groups = torch.randint(0, 4, (120,), generator=g)
    groups[groups == 2] = 3
    got = group_quantile(values.flatten(), groups, 5, quantile)
    assert got[2].isnan() and got[4].isnan()
    for k in (0, 1, 3):
        assert got[k] == pytest.approx(np.quantile(values.flatten()[groups == k].numpy(), quantile))


def test_extremes_by_hand():
    values, groups = torch.tensor([3.0, -1, 7, 2]), torch.tensor([0, 2, 0, 2])
    assert group_extreme(values, groups, 4, True).tolist() == pytest.approx([7, torch.nan, 2, torch.nan], nan_ok=True)
    assert group_extreme(values, groups, 4, False).tolist() == pytest.approx([3, torch.nan, -1, torch.nan], nan_ok=True)


def test_nothing_at_all_is_nan():
    empty = torch.zeros(0)
    assert group_quantile(empty, empty.long(), 2).isnan().all()
    assert masked_quantile(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)).isnan().all()
