"""Instances, their clean-up, and priors."""

import json

import numpy as np
import pytest
import torch

from som.depth.errors import DepthError
from som.depth.metric_scale import (
    DEFAULT_PRIORS,
    HeightPrior,
    Instances,
    instances_from_masks,
    read_priors,
    remove_fragments,
)


def box(h, w, rows, columns):
    mask = np.zeros((h, w), bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def test_masks_become_numbers_of_their_frame_and_the_later_one_wins():
    frames = [
        [("person", box(6, 8, (1, 4), (1, 4))), ("car", box(6, 8, (3, 6), (3, 8)))],
        [],
        [("car", box(6, 8, (2, 3), (2, 3))), ("car", box(6, 8, (0, 6), (0, 8)))],  # the first is covered
    ]
    got = instances_from_masks(frames, 6, 8)
    assert got.classes == ("car", "person")
    assert got.labels.tolist() == [[1, 0], [-1, -1], [0, -1]]
    assert got.ids[0, 3, 3] == 2 and got.ids[0, 1, 1] == 1 and got.ids[0, 0, 0] == 0
    assert got.ids[1].max() == 0 and bool((got.ids[2] == 1).all())


def test_heights_come_from_the_object_else_from_its_class():
    labels = torch.tensor([[0, 1, 2], [0, -1, -1]])
    ids = torch.zeros(2, 4, 4, dtype=torch.int32)
    plain = Instances(ids, labels, ("car", "person", "tram"))
    mean, std = plain.class_heights({"car": HeightPrior(1.5, 0.1), "person": HeightPrior(1.7, 0.2)})
    assert mean.tolist() == [pytest.approx([1.5, 1.7, 0]), pytest.approx([1.5, 0, 0])]
    assert std.tolist() == [pytest.approx([0.1, 0.2, 0]), pytest.approx([0.1, 0, 0])]
    own = Instances(ids, labels, plain.classes, heights=torch.tensor([[0, 1.9, 3.4], [1.4, 0, 0]]))
    assert own.class_heights(DEFAULT_PRIORS)[0].tolist() == [
        pytest.approx([1.526, 1.9, 3.4]),
        pytest.approx([1.4, 0, 0]),
    ]


def test_resizing_takes_the_pixel_under_each_new_centre_and_frames_are_chosen_together():
    ids = torch.arange(2 * 4 * 6, dtype=torch.int32).view(2, 4, 6)
    instances = Instances(ids, torch.zeros(2, 48, dtype=torch.long), ("car",), torch.ones(2, 48))
    small = instances.resized(2, 3)
    assert small.ids[0].tolist() == [[7, 9, 11], [19, 21, 23]]
    large = instances.resized(8, 12)
    assert torch.equal(large.ids, ids.repeat_interleave(2, 1).repeat_interleave(2, 2))
    last = instances.frames(slice(1, 2))
    assert torch.equal(last.ids, ids[1:]) and last.labels.shape == last.heights.shape == (1, 48)


def test_stray_fragments_go_and_large_parts_stay():
    ids = torch.zeros(1, 30, 40, dtype=torch.int32)
    ids[0, 10:20, 5:15] = 1
    ids[0, 10:20, 17:22] = 1  # behind a pole: half as large
    ids[0, 1, 38] = 1  # stray
    ids[0, 25:28, 30:33] = 2
    ids[0, 28, 33] = 2  # touches by a corner
    got = remove_fragments(Instances(ids, torch.zeros(1, 2, dtype=torch.long), ("car",)))
    expected = ids.clone()
    expected[0, 1, 38] = 0
    assert torch.equal(got.ids, expected)


def test_inconsistent_instances_raise():
    ids, labels = torch.zeros(2, 4, 4, dtype=torch.int32), torch.zeros(2, 1, dtype=torch.long)
    for wrong, message in (
        (dict(ids=ids[0]), "ids"),
        (dict(ids=ids + 2), "ids of instances must lie"),
        (dict(labels=labels + 1), "labels"),
        (dict(heights=torch.zeros(2, 2)), "heights"),
        (dict(heights=torch.full((2, 1), torch.nan)), "finite"),
    ):
        with pytest.raises(DepthError, match=message):
            Instances(**{"ids": ids, "labels": labels, "classes": ("car",), **wrong})
    with pytest.raises(DepthError, match="frame 0: a mask"):
        instances_from_masks([[("car", box(3, 3, (0, 1), (0, 1)))]], 4, 4)
    with pytest.raises(DepthError, match="'tram'"):
        instances_from_masks([[("tram", box(4, 4, (0, 1), (0, 1)))]], 4, 4, classes=["car"])


def test_priors_are_read_from_a_file(tmp_path):
    path = tmp_path / "priors.json"
    path.write_text('{"car": {"mean": 1.45, "std": 0.1}, "bus": {"mean": 3, "std": 0.3}}')
    assert read_priors(path) == {"car": HeightPrior(1.45, 0.1), "bus": HeightPrior(3, 0.3)}


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "no JSON"),
        ("[]", "no classes"),
        ({"car": 1.5}, "'car'"),
        ({"car": {"mean": 1.5}}, "'car'"),
        ({"car": {"mean": "1.5", "std": 0.1}}, "'car'"),
        ({"car": {"mean": -1.5, "std": 0.1}}, "mean > 0"),
        ({"car": {"mean": 1.5, "std": -0.1}}, "std >= 0"),
    ],
)
def test_unusable_prior_files_are_named(tmp_path, content, message):
    path = tmp_path / "priors.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DepthError, match=message) as error:
        read_priors(path)
    assert "priors.json" in str(error.value)


def test_a_missing_prior_file_is_named(tmp_path):
    with pytest.raises(DepthError, match=r"cannot read the height priors .*none\.json"):
        read_priors(tmp_path / "none.json")
