"""Flow carried into the next frame."""

import pytest
import torch

from flow.errors import FlowError
from flow.raft.warm_start import forward_interpolate


def arrivals(flow):
    """Distances (H*W,N) from all pixel centres to the N places inside where vectors arrive, and these vectors."""
    H, W = flow.shape[:2]
    centres = torch.stack(torch.meshgrid(torch.arange(W), torch.arange(H), indexing="xy"), dim=-1) + 0.5
    ends = (centres + flow).reshape(-1, 2)
    inside = ((ends > 0) & (ends < torch.tensor([W, H]))).all(-1)
    return torch.cdist(centres.reshape(-1, 2).double(), ends[inside].double()), flow.reshape(-1, 2)[inside]


def test_no_motion_and_uniform_motion_stay():
    assert not forward_interpolate(torch.zeros(5, 7, 2)).any()
    flow = torch.tensor([3.4, -1.2]).expand(20, 30, 2)
    assert torch.equal(forward_interpolate(flow), flow)


def test_a_moving_square_takes_its_flow_along():
    flow = torch.zeros(20, 30, 2)
    flow[5:10, 4:12] = torch.tensor([6.0, 3.0])
    carried = forward_interpolate(flow)
    assert torch.equal(carried[8:13, 10:18], flow[5:10, 4:12])
    assert not carried[:5].any()
    assert not carried[:, :4].any()
    # Uncovered pixels take what is nearest: the background 2 px away, or the square 1 px away.
    assert not carried[6, 5].any()
    assert torch.equal(carried[7, 11], flow[5, 4])


def test_of_several_vectors_in_a_pixel_the_nearest_to_its_centre_wins():
    flow = torch.zeros(3, 8, 2)
    flow[1, 2, 0] = 2.3
    assert torch.equal(forward_interpolate(flow)[1, 4], torch.zeros(2))
    flow[1, 4, 0] = 0.4
    assert forward_interpolate(flow)[1, 4].tolist() == pytest.approx([2.3, 0])


def test_close_to_the_exact_search():
    """The published definition is the vector that arrives nearest to each centre; ours is hardly farther away."""
    coarse = 12 * torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    flow = torch.nn.functional.interpolate(coarse, size=(40, 56), mode="bicubic")[0].permute(1, 2, 0)
    distances, vectors = arrivals(flow)
    chosen = (forward_interpolate(flow).reshape(-1, 1, 2) == vectors).all(-1)
    assert chosen.any(dim=1).all()
    excess = distances.where(chosen, torch.inf).amin(dim=1) - distances.amin(dim=1)
    assert excess.max() < 1.5
    assert excess.mean() < 0.1


def test_where_nothing_arrives_is_zero():
    assert not forward_interpolate(torch.full((4, 5, 2), 100.0)).any()


@pytest.mark.parametrize("flow", [torch.zeros(4, 5, 3), torch.zeros(1, 4, 5, 2), torch.full((4, 5, 2), torch.inf)])
def test_bad_flow_is_refused(flow):
    with pytest.raises(FlowError):
        forward_interpolate(flow)
