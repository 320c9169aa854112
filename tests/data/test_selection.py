from pathlib import Path

import numpy as np
import pytest
import torch

from som.data.config import CustomData
from som.data.folder import write_native
from som.data.load import load_dataset
from som.data.selection import erode_masks, hold_out, select_times
from som.errors import UserError


def test_select_times_renumbers_views_and_tracks(toy_dataset):
    chosen = select_times(toy_dataset, 1, None, 2)
    assert chosen.num_times == 2 and chosen.train.names == ["b", "d"]
    assert chosen.train.times.tolist() == [0, 1]
    assert chosen.val is None  # the held-out view is at time 2
    assert chosen.tracks.query_times.tolist() == [0, 1]
    assert torch.equal(chosen.tracks.xy, toy_dataset.tracks.xy[[2, 4]][:, [1, 3]])
    assert torch.equal(chosen.ground_truth_tracks.xyz, toy_dataset.ground_truth_tracks.xyz[[2, 4]][:, [1, 3]])
    assert chosen.fps == toy_dataset.fps / 2


@pytest.mark.parametrize("options", [(0, 1, 1), (3, None, 1), (-1, None, 1), (0, None, 0)])
def test_select_times_refuses(toy_dataset, options):
    with pytest.raises(UserError, match=r"`data\.start`"):
        select_times(toy_dataset, *options)


def test_hold_out_hides_the_held_times_from_tracks(toy_dataset):
    held = hold_out(toy_dataset, 2)
    assert held.train.names == ["b", "d"] and held.train.times.tolist() == [1, 3]
    assert held.val.times.tolist() == [0, 2, 2]
    assert not held.tracks.visible[:, [0, 2]].any() and not held.tracks.confidence[:, [0, 2]].any()
    assert held.tracks.query_times.tolist() == [1, 3]
    with pytest.raises(UserError):
        hold_out(toy_dataset, 1)


def test_erosion_makes_a_band_invalid_and_leaves_the_border_of_the_image(toy_dataset):
    toy_dataset.train.valid[:] = True
    valid = erode_masks(toy_dataset, 3).train.valid[0]
    expected = np.ones((24, 32), bool)
    expected[7:17, 9:21] = False
    expected[9:15, 11:19] = True
    assert np.array_equal(valid.numpy(), expected)
    assert toy_dataset.train.valid.all()  # the input is not changed


@pytest.mark.parametrize("nested", [False, True])
def test_options_through_load_dataset(toy_dataset, tmp_path, nested):
    root = tmp_path / "toy" if nested else tmp_path
    write_native(toy_dataset, root)
    config = CustomData(seq_name="toy", root_dir=Path(tmp_path), start=1, max_side=16, mask_erosion=3, is_train=False)
    dataset = load_dataset(config)
    assert dataset.num_times == 3 and dataset.train.width == 16 and len(dataset.val) == 1
    assert not dataset.train.valid.all()
