"""Where cropped and resized images lie."""

from pathlib import Path

import numpy as np
import pytest

from som.errors import UserError
from som.preprocessing.importing.windows import Window, droid_image, dust3r_image, whole_image

HERE = Path("prior")


def test_resizing_scales_rows_of_K_and_nothing_else():
    K = np.array([[100.0, 0, 31], [0, 90, 17], [0, 0, 1]])
    window = whole_image(HERE, (40, 60), (80, 180 * 2 // 3))
    assert np.allclose(window.intrinsics(K), [[200, 0, 62], [0, 180, 34], [0, 0, 1]])


def test_place_keeps_the_centre_of_every_pixel():
    """Each of ours shows the pixel of the program's image that its centre falls into."""
    small = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(Window((2, 2)).place(small, (6, 8)), small.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(Window((0.5, 1)).place(small, (3, 2)), small[:, 1::2])
    assert Window((1.0, 1.0)).place(small, (3, 4)) is small


def test_place_leaves_zero_where_the_crop_took_the_image_away():
    middle = np.ones((2, 2), int)
    placed = Window((1.0, 1.0), offset=(1.0, 2.0)).place(middle, (5, 4))
    expected = np.zeros((5, 4), int)
    expected[2:4, 1:3] = 1
    assert np.array_equal(placed, expected)


def test_place_and_intrinsics_agree():
    """A point's depth is found under its projection, before and after."""
    K = np.array([[50.0, 0, 31.5], [0, 50, 22.5], [0, 0, 1]])
    window = Window((2.5, 2.5), offset=(3.0, 1.0))
    x, y, _ = K @ [0.2, -0.1, 1.0]
    small = np.zeros((45, 63))
    small[int(y), int(x)] = 7
    X, Y, _ = window.intrinsics(K) @ [0.2, -0.1, 1.0]
    assert window.place(small, (115, 172))[int(Y), int(X)] == 7


def test_droid_crop():
    # 640x360: int(360 * .92376) = 332, int(640 * .92376) = 591; multiples of 8: 328, 584
    window = droid_image(HERE, (328, 584), (360, 640))
    assert np.allclose(window.scale, (640 / 591, 360 / 332)) and window.offset == (0, 0)
    assert droid_image(HERE, (360, 640), (720, 1280)).scale == (2, 2)  # was not reduced at all
    with pytest.raises(UserError, match="aspect ratio"):
        droid_image(HERE, (328, 400), (360, 640))


def test_dust3r_crop():
    # 640x390 -> 512x312, of which the middle 304 rows are kept
    window = dust3r_image(HERE, (304, 512), (390, 640))
    assert window.scale == (1.25, 1.25) and window.offset == (0, 4)
    # square images are cropped to 4:3
    assert dust3r_image(HERE, (384, 512), (256, 256)) == Window((0.5, 0.5), (0.0, 64.0))
    with pytest.raises(UserError, match="become 512x304 there"):
        dust3r_image(HERE, (320, 512), (390, 640))
