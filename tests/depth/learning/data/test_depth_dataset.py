"""Training samples: what they hold, how they are drawn, and which frames are left out."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from som.data.load import open_sequence
from som.data.recording import FrameRecord, Recording
from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.data.augmentation import NO_AUGMENTATION, AugmentationConfig
from som.depth.learning.data.dataset import DepthDataset, Neighbors, epoch_order
from som.depth.learning.data.subsampling import changed_share, moving_frames

SIZE = (24, 40)


class Picture:
    """Gives a picture; can be sent to worker processes."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __call__(self):
        return self.pixels


def video(make, count=5, *, size=SIZE, posed=True, masked=True, name="walk"):
    frames = []
    for i in range(count):
        frame = FrameRecord(f"{i:05d}", Picture(make.picture(i, *size)), f"{i}", size, timestamp=i / 10)
        frame.K = np.array([[30.0, 0, 19], [0, 33, 13], [0, 0, 1]])
        frame.w2c = np.linalg.inv(make.poses(count)[i]) if posed else None
        if masked:
            mask = np.zeros(size, bool)
            mask[:, : 5 * (i + 1)] = True
            frame.moving = Picture(mask)
        if i == 2:
            frame.depth = Picture(np.full((48, 80), 2.5, np.float32))
        frames.append(frame)
    return DepthSequence(Recording(name, "folder", frames))


def test_a_plain_sample(make):
    sequence = video(make)
    dataset = DepthDataset(sequence, augmentation=NO_AUGMENTATION, with_depth=True)
    assert len(dataset) == 3  # the first and the last frame lack a neighbour
    sample = dataset[1]
    assert sample["frames"].tolist() == [2, 1, 3] and sample["sequence"] == 0 and not sample["flipped"]
    assert torch.equal(sample["images"], sequence.images([2, 1, 3])) and torch.equal(sample["inputs"], sample["images"])
    assert torch.equal(sample["K"], sequence.Ks[[2, 1, 3]]) and torch.equal(sample["w2c"], sequence.w2cs[[2, 1, 3]])
    expected = sequence.w2cs[[1, 3]] @ torch.linalg.inv(sequence.w2cs[2])
    torch.testing.assert_close(sample["T_src_tgt"], expected)
    assert sample["moving"].sum((1, 2)).tolist() == [24 * 15, 24 * 10, 24 * 20]
    assert sample["depth"].unique().tolist() == [2.5] and dataset[0]["depth"].sum() == 0
    assert sample["timestamps"].tolist() == pytest.approx([0.2, 0.1, 0.3])
    assert "speeds" not in sample and "valid" not in sample


def test_a_mirrored_sample(make):
    sequence = video(make)
    sample = DepthDataset(sequence, augmentation=AugmentationConfig(1, 1, 0), with_depth=True)[1]
    assert sample["flipped"]
    assert torch.equal(sample["images"], sequence.images([2, 1, 3]).flip(-1))
    assert sample["K"][0, 0].tolist() == [30, 0, 40 - 19]
    assert sample["moving"][0, 0].tolist() == [False] * 25 + [True] * 15
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    plain = sequence.w2cs[[1, 3]] @ torch.linalg.inv(sequence.w2cs[2])
    torch.testing.assert_close(sample["T_src_tgt"], mirror @ plain @ mirror)
    torch.testing.assert_close(sample["T_src_tgt"], sample["w2c"][1:] @ torch.linalg.inv(sample["w2c"][:1]))


def test_jitter_touches_only_the_networks_inputs_and_all_frames_alike(make):
    same = [FrameRecord(name, Picture(make.picture(0)), name, SIZE) for name in "abc"]
    sequence = DepthSequence(Recording("still", "folder", same))
    sample = DepthDataset(sequence, augmentation=AugmentationConfig(0, 1, 1))[0]
    assert torch.equal(sample["images"], sequence.images())
    assert not torch.allclose(sample["inputs"], sample["images"], atol=0.02)
    assert torch.equal(sample["inputs"][0], sample["inputs"][1])
    assert sample["inputs"].min() >= 0 and sample["inputs"].max() <= 1


def test_randomness_follows_from_seed_epoch_and_index_alone(make):
    sequence = video(make, 8)
    dataset = DepthDataset(sequence, seed=3)
    again = DepthDataset(sequence, seed=3)
    for index in (4, 0, 4):
        first, second = dataset[index], again[0, index]
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(dataset[0, 2]["inputs"], dataset[1, 2]["inputs"])
    assert not torch.equal(dataset[2]["inputs"], DepthDataset(sequence, seed=4)[2]["inputs"])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_for_any_number_of_workers(make, workers):
    dataset = DepthDataset(video(make, 8), seed=1)
    order = epoch_order(len(dataset), seed=1, epoch=2)
    loaded = DataLoader(dataset, batch_size=2, sampler=order, num_workers=workers)
    got = torch.cat([batch["inputs"] for batch in loaded])
    assert torch.equal(got, torch.stack([dataset[index]["inputs"] for index in order]))


def test_the_order_of_an_epoch(make):
    order = epoch_order(50, seed=0, epoch=3)
    assert sorted(order) == [(3, i) for i in range(50)]
    assert order == epoch_order(50, seed=0, epoch=3) != epoch_order(50, seed=1, epoch=3)
    assert [i for _, i in order] != [i for _, i in epoch_order(50, seed=0, epoch=4)]
    assert epoch_order(3, 0, 1, shuffle=False) == [(1, 0), (1, 1), (1, 2)]


def test_iteration_ends(make):
    dataset = DepthDataset(video(make))
    assert len(list(dataset)) == 3
    with pytest.raises(IndexError):
        dataset[3]


def test_any_rule_may_choose_the_sources(make):
    def rule(sequence, target):
        return [0, len(sequence) - 1] if 0 < target < len(sequence) - 1 else None

    assert DepthDataset(video(make, 6), rule)[2]["frames"].tolist() == [3, 0, 5]
    assert DepthDataset(video(make), Neighbors((-2,)))[0]["frames"].tolist() == [2, 0]


def test_targets_of_several_sequences(make):
    dataset = DepthDataset([video(make), video(make, name="run")], targets=[(1, 3), (0, 1)])
    assert [(int(s["sequence"]), int(s["frames"][0])) for s in dataset] == [(1, 3), (0, 1)]


def test_annotations_are_augmented_with_the_picture(make):
    def annotate(sequence, frame):
        road = torch.zeros(sequence.size, dtype=torch.bool)
        road[:, :frame] = True
        return {"road": road, "boxes": torch.tensor([[1.0, 2, 5, 6]]), "heights": torch.tensor([1.5])}

    sample = DepthDataset(video(make), augmentation=AugmentationConfig(1, 1, 0), annotate=annotate)[1]
    assert sample["road"][0].tolist() == [False] * 38 + [True] * 2
    assert sample["boxes"].tolist() == [[35, 2, 39, 6]] and sample["heights"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda make: DepthDataset([]), "at least one sequence"),
        (lambda make: DepthDataset(video(make, 2)), "give longer videos"),
        (lambda make: DepthDataset([video(make), video(make, size=(20, 40))]), "need one image size"),
        (lambda make: DepthDataset([video(make), video(make, posed=False)]), "walk has poses but walk has none"),
        (lambda make: DepthDataset([video(make, masked=False), video(make)]), "has masks of moving objects"),
        (lambda make: DepthDataset(video(make), targets=[(0, 0)]), "frame 00000 is a target but has no source"),
        (lambda make: DepthDataset(video(make), lambda s, t: [t]), "source frames must be others"),
        (lambda make: DepthDataset(video(make), lambda s, t: [9]), "source frames must be others"),
        (lambda make: DepthDataset(video(make), lambda s, t: [0, 1][: t - 1] if t > 1 else None), "same number"),
        (lambda make: Neighbors((0,)), "not 0"),
    ],
)
def test_bad_data_sets_are_named(make, build, message):
    with pytest.raises(DepthError, match=message):
        build(make)


def test_frames_without_motion_are_dropped(tmp_path, make):
    """Grey 20; a patch over half of the picture is brightened by 6 levels a frame."""
    for i in range(7):
        picture = np.full((20, 20, 3), 20, np.uint8)
        picture[:, :10] += 6 * i
        make.write(tmp_path / f"{i}.png", picture)
    sequence = open_sequence(tmp_path)
    # 10 levels are exceeded after two frames each
    assert moving_frames(sequence) == [0, 2, 4, 6]
    assert moving_frames(sequence, min_share=0.51) == [0]
    assert moving_frames(sequence, levels=12) == [0, 3, 6]
    assert moving_frames(sequence, indices=[1, 2, 5]) == [1, 5]
    assert sequence.select(moving_frames(sequence)).names == ["0", "2", "4", "6"]
    with pytest.raises(DepthError, match="min_share"):
        moving_frames(sequence, min_share=2)
    with pytest.raises(ValueError, match="differ in size"):
        changed_share(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8))
