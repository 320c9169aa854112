"""The colour code of flow."""

import itertools
import math

import pytest
import torch

from flow.color import color_wheel, flow_to_rgb
from flow.errors import FlowError


def hue_of(u, v):
    """Direction of one vector as a hue in degrees (red 0, yellow 60, green 120, cyan 180, blue 240)."""
    r, g, b = (flow_to_rgb(torch.tensor([[[float(u), float(v)]]]))[0, 0] / 255.0).tolist()
    return math.degrees(math.atan2(math.sqrt(3) * (g - b), 2 * r - g - b)) % 360


def test_the_wheel_has_the_published_corners():
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    corners = {0: (1, 0, 0), 15: (1, 1, 0), 21: (0, 1, 0), 25: (0, 1, 1), 36: (0, 0, 1), 49: (1, 0, 1)}
    for index, corner in corners.items():
        assert wheel[index].tolist() == list(corner)
    # and each stretch is a straight line: 5 of 15 steps from red to yellow
    assert torch.allclose(wheel[5], torch.tensor([1, 5 / 15, 0]))


def test_key_directions():
    assert flow_to_rgb(torch.tensor([[[1.0, 0.0]]]))[0, 0].tolist() == [255, 0, 0]
    # A quarter turn is 13.5 of the 54 steps: 13.5 / 15 of the way from red to yellow, 255 * 0.9 = 229.
    assert flow_to_rgb(torch.tensor([[[0.0, 1.0]]]))[0, 0].tolist() == [255, 229, 0]
    # Half a turn is step 27, two of eleven from cyan to blue: 255 * 9 / 11 = 208.
    assert flow_to_rgb(torch.tensor([[[-1.0, 0.0]]]))[0, 0].tolist() == [0, 208, 255]
    # Three quarters are step 40.5, 4.5 of 13 from blue to magenta: 255 * 4.5 / 13 = 88.
    assert flow_to_rgb(torch.tensor([[[0.0, -1.0]]]))[0, 0].tolist() == [88, 0, 255]


def test_hue_goes_round_once_without_a_jump():
    hues = [hue_of(math.cos(a), math.sin(a)) for a in torch.linspace(0, 2 * math.pi, 721).tolist()]
    steps = [(b - a + 180) % 360 - 180 for a, b in itertools.pairwise(hues)]
    # the published code joins the ends by the step from the last colour to the first, 255 * 1/6 of blue: 10 degrees
    assert sum(steps) == pytest.approx(360, abs=11)
    assert max(map(abs, steps)) < 11


def test_length_is_saturation_up_to_the_largest():
    flow = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]])
    assert flow_to_rgb(flow)[0].tolist() == [[255, 255, 255], [255, 127, 127], [255, 0, 0]]
    assert flow_to_rgb(flow, max_magnitude=4.0)[0].tolist() == [[255, 255, 255], [255, 191, 191], [255, 127, 127]]
    # beyond the largest length colours are darker, so that they can be distinguished
    assert flow_to_rgb(flow, max_magnitude=1.0)[0, 2].tolist() == [191, 0, 0]


def test_invalid_pixels_are_black_and_do_not_set_the_scale():
    flow = torch.tensor([[[1.0, 0.0], [1e10, 0.0], [torch.nan, 0.0]]])
    valid = torch.tensor([[True, False, True]])
    assert flow_to_rgb(flow, valid)[0].tolist() == [[255, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_batches_still_fields_and_bad_input():
    assert (flow_to_rgb(torch.zeros(2, 3, 4, 2)) == 255).all()
    assert flow_to_rgb(torch.zeros(2, 3, 4, 2)).shape == (2, 3, 4, 3)
    for call in (
        lambda: flow_to_rgb(torch.zeros(4, 4, 3)),
        lambda: flow_to_rgb(torch.zeros(4, 4, 2), torch.ones(4, 3, dtype=torch.bool)),
        lambda: flow_to_rgb(torch.zeros(4, 4, 2), max_magnitude=0.0),
    ):
        with pytest.raises(FlowError):
            call()
