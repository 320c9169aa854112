"""The estimator around the network. Whether the flow is right cannot be tested without trained weights, not even for
pure translations; what is tested is that images reach the network, and its flow the caller, as they should."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from flow.errors import FlowError
from flow.factory import make_estimator
from flow.raft.estimator import RAFTEstimator, centred_padding


@pytest.fixture
def make_file(make_raft, tmp_path):
    """A weight file of a random network."""

    def make(variant: str, seed: int = 0):
        file = tmp_path / f"{variant}-{seed}.pth"
        torch.save(make_raft(variant, seed).state_dict(), file)
        return file

    return make


def frames(height: int, width: int, batch: int = 1, seed: int = 0):
    """Two batches of random images (B,H,W,3) uint8."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, batch, height, width, 3), generator=g, dtype=torch.uint8).unbind(0)


def unchanging(model):
    """Makes the network return its initial flow, each cell's to all of its pixels."""
    for parameter in model.update_block.flow_head.conv2.parameters():
        parameter.data.zero_()
    model.mask_predictor.conv.weight.data.zero_()
    model.mask_predictor.conv.bias.data = torch.zeros(9, 64).index_fill(0, torch.tensor([4]), 1000).flatten()
    return model


@pytest.mark.parametrize(
    ("size", "padding"),
    [(128, (0, 0)), (480, (0, 0)), (129, (3, 4)), (270, (1, 1)), (131, (2, 3)), (127, (0, 1)), (100, (14, 14))],
)
def test_padding_is_centred(size, padding):
    assert centred_padding(size) == padding


def test_flow_is_the_networks_on_padded_and_scaled_images(make_raft):
    model = make_raft("raft-small")
    images0, images1 = frames(130, 143, batch=2)
    flow = RAFTEstimator(model, "random", "0" * 64, iterations=3)(images0, images1)

    def prepared(images):
        rows = torch.arange(-3, 133).clamp(0, 129)
        columns = torch.arange(0, 144).clamp(0, 142)
        return (images[:, rows][:, :, columns].permute(0, 3, 1, 2).float() / 255) * 2 - 1

    with torch.no_grad():
        expected = model(prepared(images0), prepared(images1), 3)[:, :, 3:133, :143].permute(0, 2, 3, 1)
    assert flow.dtype == torch.float32
    torch.testing.assert_close(flow, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (97, 128), (128, 33), (145, 131)])
def test_any_size_gives_finite_flow_of_that_size(height, width, make_raft, variant):
    estimator = RAFTEstimator(make_raft(variant), "random", "0" * 64, iterations=2)
    images0, images1 = (images[0] for images in frames(height, width))
    flow = estimator(images0, images1)
    assert flow.shape == (height, width, 2)
    assert flow.isfinite().all()
    assert not flow.requires_grad


def test_initial_flow_reaches_its_cells_under_padding(make_raft):
    """Initial flow that is constant in each cell of the padded image comes back as it was."""
    estimator = RAFTEstimator(unchanging(make_raft("raft-large")), "random", "0" * 64, iterations=1)
    H, W = 130, 143  # padded by 3 rows above and 0 columns to the left, to 136 x 144
    rows, columns = (torch.arange(H) + 3) // 8, torch.arange(W) // 8
    cells = torch.randn(17, 18, 2, generator=torch.Generator().manual_seed(0)) * 20
    initial = cells[rows][:, columns]
    images0, images1 = (images[0] for images in frames(H, W))
    torch.testing.assert_close(estimator(images0, images1, initial), initial, rtol=0, atol=1e-4)
    assert not estimator(images0, images1).any()


def test_initial_flow_must_be_finite(make_raft):
    estimator = RAFTEstimator(make_raft("raft-small"), "random", "0" * 64)
    images0, images1 = (images[0] for images in frames(32, 32))
    with pytest.raises(FlowError, match="finite"):
        estimator(images0, images1, torch.full((32, 32, 2), torch.nan))


def test_a_batch_is_its_pairs_one_by_one(make_raft):
    estimator = RAFTEstimator(make_raft("raft-small"), "random", "0" * 64, iterations=2)
    images0, images1 = frames(128, 136, batch=3)
    initial = torch.randn(3, 128, 136, 2)
    together = estimator(images0, images1, initial)
    alone = [estimator(images0[b], images1[b], initial[b]) for b in range(3)]
    assert torch.equal(together, torch.stack(alone))
    assert estimator(images0[:0], images1[:0]).shape == (0, 128, 136, 2)


def test_threads_do_not_disturb_each_other(make_raft):
    estimator = RAFTEstimator(make_raft("raft-small"), "random", "0" * 64, iterations=2)
    pairs = [tuple(images[0] for images in frames(128, 128 + 8 * i, seed=i)) for i in range(4)]
    expected = [estimator(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: estimator(*pair), pairs))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


def test_by_name(make_file, variant):
    file = make_file(variant)
    images0, images1 = (images[0] for images in frames(128, 136))
    named = make_estimator(variant, weights=file, iterations=2)
    automatic = make_estimator("auto", weights=str(file), iterations=2, correlation="on_demand")
    assert named.name == automatic.name == variant
    torch.testing.assert_close(named(images0, images1), automatic(images0, images1), rtol=0, atol=1e-3)
    other = make_estimator(variant, weights=make_file(variant, seed=1), iterations=2)
    assert (other(images0, images1) - named(images0, images1)).abs().max() > 0.1


def test_provenance_differs_where_results_do(make_file):
    first, second = make_file("raft-small", 0), make_file("raft-small", 1)
    plain = RAFTEstimator.load(first).provenance()
    assert plain["method"] == "raft-small"
    assert plain["weights"] == "raft-small-0.pth"
    assert plain["iterations"] == RAFTEstimator.load(first).iterations
    assert plain == RAFTEstimator.load(first, correlation="full").provenance()
    assert plain != RAFTEstimator.load(first, iterations=7).provenance()
    second.replace(first)
    assert plain != RAFTEstimator.load(first).provenance()


def test_wrong_options(make_file, make_raft):
    file = make_file("raft-small")
    with pytest.raises(FlowError, match="raft-small, not raft-large"):
        make_estimator("raft-large", weights=file)
    with pytest.raises(FlowError, match="at least 1"):
        make_estimator("raft-small", weights=file, iterations=0)
    with pytest.raises(FlowError, match="sparse"):
        make_estimator("raft-small", weights=file, correlation="sparse")
    with pytest.raises(FlowError, match="CUDA"):
        make_estimator("raft-small", weights=file, mixed_precision=True)
    with pytest.raises(FlowError, match="toaster"):
        make_estimator("raft-small", weights=file, device="toaster")
    with pytest.raises(FlowError, match="evaluation mode"):
        RAFTEstimator(make_raft("raft-small").train(), "random", "0" * 64)
