import pytest
import torch

from som.data.memory import memory_sequence
from som.depth.errors import DepthError
from som.depth.learning.training.build import known_depth, make_networks, network_config, resolve_pose
from som.depth.learning.training.config import DepthTrainingConfig, LossWeights, NetworkOptions
from som.depth.learning.training.sources import _filled, source_frames, time_offsets


@pytest.fixture(scope="module")
def unposed(clip):
    return memory_sequence(clip.images, clip.Ks)


def test_offsets_alternate_before_and_after():
    assert time_offsets(4, 3) == (-3, 3, -6, 6)


def test_ends_of_a_video_take_sources_from_the_other_side(sequence):
    config = DepthTrainingConfig(sources="consecutive", num_sources=2)
    assert source_frames(config, sequence, None).tolist() == [[1, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 4]]
    config = DepthTrainingConfig(sources="offset", source_offset=2, num_sources=4)
    assert source_frames(config, sequence, None)[0].tolist() == [2, 4, 2, 4]


def test_missing_sources_are_replaced_by_spare_then_by_repeated_ones():
    chosen = torch.tensor([[-1, 3], [-1, -1], [1, 2]])
    spare = torch.tensor([[5, -1], [-1, -1], [4, 4]])
    assert _filled(chosen, spare).tolist() == [[3, 5], [-1, -1], [1, 2]]


def test_rules_by_camera_need_what_they_look_at(sequence, unposed):
    with pytest.raises(DepthError, match="need the depth of the scene"):
        source_frames(DepthTrainingConfig(sources="overlap"), sequence, None)
    with pytest.raises(DepthError, match=r"set network\.initial_depth"):
        source_frames(DepthTrainingConfig(sources="baseline"), sequence, None)
    with pytest.raises(DepthError, match="need poses"):
        source_frames(DepthTrainingConfig(sources="overlap"), unposed, 5.0)


@pytest.mark.parametrize(
    ("changes", "posed", "expected"),
    [
        ({}, True, "given"),
        ({}, False, "resnet18"),
        ({"pose": "cnn"}, True, "cnn"),
        ({"weights": LossWeights(0, 0, 0, supervised=1)}, False, "given"),
    ],
)
def test_poses_come_from_the_data_where_it_has_them(sequence, unposed, changes, posed, expected):
    assert resolve_pose(DepthTrainingConfig(**changes), [sequence if posed else unposed]) == expected


def test_poses_that_are_missing_or_contradict_are_named(sequence, unposed):
    with pytest.raises(DepthError, match="has no camera poses; learn them"):
        resolve_pose(DepthTrainingConfig(pose="given"), [unposed])
    velocity = LossWeights(velocity=0.1)
    with pytest.raises(DepthError, match="poses are given"):
        resolve_pose(DepthTrainingConfig(weights=velocity), [sequence])
    with pytest.raises(DepthError, match="speeds and timestamps"):
        resolve_pose(DepthTrainingConfig(weights=velocity), [unposed])
    assert resolve_pose(DepthTrainingConfig(weights=velocity, pose="cnn"), [sequence]) == "cnn"


def test_the_network_brackets_known_depth(sequence):
    depth = torch.linspace(2, 8, 1001)
    config = DepthTrainingConfig()
    network = network_config(config, [sequence], "given", depth)
    assert network.initial_depth == pytest.approx(5, abs=0.01)
    assert network.depth_range == pytest.approx((2.06 / 2, 7.94 * 2), rel=1e-3)
    # a learned pose has a scale of its own
    free = network_config(config, [sequence], "resnet18", depth)
    assert free.initial_depth is None and free.depth_range == (0.1, 100.0)


def test_without_known_depth_a_coarse_sweep_brackets_the_scene(sequence, clip):
    network = network_config(DepthTrainingConfig(), [sequence], "given", torch.zeros(0))
    low, high = network.depth_range
    known = clip.depth[clip.depth > 0]
    inside = (known > low) & (known < high)
    assert float(inside.float().mean()) > 0.95
    assert float(known.quantile(0.02)) < network.initial_depth < float(known.quantile(0.98))


def test_a_camera_that_stands_still_teaches_nothing(clip):
    still = memory_sequence(clip.images, clip.Ks, clip.w2c[:1].expand(6, 4, 4))
    with pytest.raises(DepthError, match=r"camera does not move|no parallax"):
        network_config(DepthTrainingConfig(), [still], "given", torch.zeros(0))


def test_own_choices_are_kept_and_an_impossible_start_is_moved_inside(sequence):
    options = NetworkOptions(depth_range=(1.0, 4.0), initial_depth=9.0)
    network = network_config(DepthTrainingConfig(network=options), [sequence], "given", torch.zeros(0))
    assert network.depth_range == (1.0, 4.0) and network.initial_depth == pytest.approx(2.0)


def test_known_depth_is_a_teachers_or_the_data_sets(sequence, clip):
    assert len(known_depth([sequence])) == 0
    values = known_depth([sequence], [clip.depth])
    assert len(values) == int((clip.depth > 0).sum())


def test_networks_do_not_touch_torchs_generator(sequence):
    config = DepthTrainingConfig()
    network = network_config(config, [sequence], "cnn", torch.zeros(0))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    make_networks(config, network, "cnn")
    assert torch.equal(torch.rand(1), expected)
