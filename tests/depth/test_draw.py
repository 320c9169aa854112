"""Pictures of depth and its errors."""

import numpy as np
import pytest
import torch

from som.depth.draw import (
    NO_TRUTH_RGB,
    NOT_PREDICTED_RGB,
    UNKNOWN_RGB,
    color_depth,
    color_error,
    disparity_range,
    sheet,
    to_bytes,
)
from som.errors import UserError
from som.files import read_image, write_image


def test_colours_are_linear_in_disparity_and_unknown_is_black():
    depth = torch.tensor([[1.0, 2.0, 4.0, 0.0, float("inf")]])
    picture = color_depth(depth, (1.0, 4.0))
    assert picture.shape == (1, 5, 3) and picture.dtype == np.uint8
    ramp = color_depth(1 / torch.linspace(0.25, 1, 256)[None], (1.0, 4.0))[0]
    assert (picture[0, 0] == ramp[255]).all() and (picture[0, 2] == ramp[0]).all()
    assert (picture[0, 1] == ramp[85]).all()  # disparity 0.5, a third of the way
    assert (picture[0, 3:] == UNKNOWN_RGB).all()


def test_one_range_makes_two_maps_comparable():
    near, far = torch.full((2, 2), 1.0), torch.full((2, 2), 5.0)
    assert (color_depth(near, (1, 10)) != color_depth(far, (1, 10))).any()


def test_the_range_ignores_outliers_and_survives_empty_and_flat_maps():
    depth = torch.full((100, 100), 2.0)
    depth[:50] = 4.0
    depth[0, 0], depth[0, 1] = 1e-4, 1e6
    assert disparity_range(depth) == pytest.approx((2.0, 4.0))
    assert (color_depth(torch.zeros(3, 3)) == UNKNOWN_RGB).all()
    assert color_depth(torch.ones(3, 3)).shape == (3, 3, 3)


def test_sparse_points_are_drawn_larger_with_the_nearest_on_top():
    depth = torch.zeros(7, 7)
    depth[3, 2], depth[3, 4] = 1.0, 2.0
    picture = color_depth(depth, (1.0, 2.0), point_size=3)
    near, far = color_depth(torch.tensor([[1.0, 2.0]]), (1.0, 2.0))[0]
    assert (picture[2:5, 1:4] == near).all() and (picture[2:5, 4:6] == far).all()
    assert (picture[0] == UNKNOWN_RGB).all()


def test_errors_saturate_and_say_what_is_missing():
    target = torch.tensor([[2.0, 2.0, 2.0, 0.0, 2.0]])
    pred = torch.tensor([[2.0, 2.6, 9.0, 1.0, 0.0]])
    picture = color_error(pred, target, largest=0.3)[0]
    assert (picture[1] == picture[2]).all() and (picture[0] != picture[1]).any()
    assert picture[0].sum() < picture[1].sum()
    assert tuple(picture[3]) == NO_TRUTH_RGB and tuple(picture[4]) == NOT_PREDICTED_RGB
    hidden = color_error(pred, target, torch.tensor([[False, True, True, True, True]]))
    assert tuple(hidden[0, 0]) == NO_TRUTH_RGB


def test_pictures_from_tensors_of_either_layout():
    image = torch.rand(3, 4, 5)
    assert (to_bytes(image) == to_bytes(image.permute(1, 2, 0))).all()
    assert to_bytes(torch.full((3, 4, 5), 2.0)).max() == 255
    with pytest.raises(ValueError, match="RGB"):
        to_bytes(torch.rand(4, 5))


def test_sheet_places_pictures_side_by_side():
    red, blue = (np.full((10, 20, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    canvas = sheet([[red, blue], [blue[:5, :10]]], ["a", "b"])
    assert canvas.shape == (22 + 10 + 4 + 10, 20 + 4 + 20, 3)
    assert (canvas[22:32, :20] == red).all() and (canvas[22:32, 24:] == blue).all()
    assert (canvas[36:, :20] == blue[0, 0]).all()  # enlarged to the first picture's height
    assert (canvas[22:, 20:24] == 255).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: color_depth(d, colormap="jet"), "colour map"),
        (lambda d: color_depth(d, (2.0, 1.0)), "near_far"),
        (lambda d: color_depth(d[None]), r"\(H,W\)"),
        (lambda d: color_error(d, d[:1]), "one shape"),
        (lambda d: color_error(d, d, largest=0), "largest"),
        (lambda d: sheet([]), "at least one picture"),
        (lambda d: sheet([[np.zeros((2, 2, 3), np.uint8)]], ["a", "b"]), "labels"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(2, 3))


def test_pictures_are_written_and_refused(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    write_image(tmp_path / "new" / "a.png", picture)
    assert (read_image(tmp_path / "new" / "a.png") == picture).all()
    with pytest.raises(UserError, match=r"a\.webp"):
        write_image(tmp_path / "a.webp", picture)
    with pytest.raises(UserError, match="uint8"):
        write_image(tmp_path / "b.png", picture / 255)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.png"]
