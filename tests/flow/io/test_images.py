"""The one decoder of images: what each kind of file means, and one sentence about each that cannot be used."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from flow.errors import UserError
from flow.io.images import (
    decode_image,
    encode_image,
    has_alpha,
    image_size,
    list_images,
    read_image,
    read_map,
    read_mask,
    reduced_size,
    resize_map,
    write_image,
)

H, W = 6, 9


def colors(seed: int = 0, channels: int = 3, largest: int = 256, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, largest, (H, W, channels), dtype=dtype)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def png16(path, pixels):
    path.write_bytes(cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes())
    return path


def test_colors_are_rgb_whatever_the_file_holds(tmp_path):
    rgb, grey = colors(), colors()[..., 0]
    opacity = colors(1)[..., :1]
    assert (read_image(save(tmp_path / "rgb.png", rgb)) == rgb).all()
    assert (read_image(save(tmp_path / "grey.png", grey)) == grey[..., None]).all()
    assert (read_image(save(tmp_path / "la.png", np.stack([grey, opacity[..., 0]], -1))) == grey[..., None]).all()
    clear = save(tmp_path / "rgba.png", np.concatenate([rgb, opacity], -1))
    assert (read_image(clear) == rgb).all()
    assert (read_image(clear, alpha=True) == np.concatenate([rgb, opacity], -1)).all()
    assert read_image(tmp_path / "rgb.png", alpha=True).shape == (H, W, 3)
    assert [has_alpha(tmp_path / f"{name}.png") for name in ("rgb", "grey", "la", "rgba", "none")] == [
        False, False, True, True, False
    ]  # fmt: skip
    assert image_size(clear) == (H, W)


def test_16_bits_are_scaled_to_8(tmp_path):
    steps = colors(largest=65536, dtype=np.uint16)
    steps[0, 0] = (0, 65535, 257 * 100)
    image = read_image(png16(tmp_path / "rgb.png", steps))
    assert image[0, 0].tolist() == [0, 255, 100] and (image == (steps / 257).round()).all()
    assert (read_image(png16(tmp_path / "grey.png", steps[..., 0])) == (steps[..., :1] / 257).round()).all()
    assert (decode_image(tmp_path / "rgb.png") == steps).all()


def test_orientation_is_followed_where_it_is_asked_for(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = save(tmp_path / "a.png", colors(), exif=exif)
    assert read_image(path).shape == (H, W, 3) and (read_image(path) == colors()).all()
    assert (read_image(path, upright=True) == np.rot90(colors(), -1)).all()


def test_palettes_give_colors_or_indices(tmp_path):
    image = Image.fromarray(np.arange(H * W, dtype=np.uint8).reshape(H, W) % 3, mode="P")
    image.putpalette([0, 0, 0, 200, 10, 20, 0, 90, 0])
    image.save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png", raw=True).max() == 2
    assert read_image(tmp_path / "a.png")[0, 1].tolist() == [200, 10, 20]
    assert read_mask(tmp_path / "a.png")[0, :3].tolist() == [False, True, False]
    assert read_mask(tmp_path / "a.png", threshold=0)[0, :3].tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255, 255], [False, True, True]),
        ([0, 127, 128], [False, False, True]),
        ([0, 1, 1], [False, True, True]),
        ([0, 0, 0], [False, False, False]),
        ([1, 1, 1], [True, True, True]),
    ],
)
@pytest.mark.parametrize("kind", ["grey", "rgb", "alpha"])
def test_masks_are_above_the_threshold_or_0_and_1(tmp_path, values, expected, kind):
    grey = np.array([values], np.uint8)
    pixels = grey
    if kind == "rgb":
        pixels = np.stack([np.zeros_like(grey), np.zeros_like(grey), grey], -1)
    if kind == "alpha":
        pixels = np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)
    assert read_mask(save(tmp_path / "a.png", pixels)).tolist() == [expected]


def test_single_bits_are_masks(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[False, True]]


def test_masks_that_nobody_understands_are_refused(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 3, 100]], np.uint8))
    with pytest.raises(UserError, match=r"a\.png: this mask holds values up to 100, true is above 127"):
        read_mask(path)
    assert read_mask(path, threshold=0).tolist() == [[False, True, True]]
    # black is not exactly 0 in jpg files
    assert not read_mask(save(tmp_path / "a.jpg", np.full((8, 8), 3, np.uint8))).any()


def test_depth_of_one_channel_0_where_unknown(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[1.5], [np.nan]], [[np.inf], [0.0]]]))
    assert read_map(tmp_path / "a.npy").tolist() == [[1.5, 0], [0, 0]]
    path = png16(tmp_path / "a.png", np.array([[0, 2000, 65535]], np.uint16))
    assert read_map(path, 1e-3).tolist() == [[0, 2, np.float32(65.535)]]
    assert read_map(path, 1e-3, invalid=65535).tolist() == [[0, 2, 0]]
    np.save(tmp_path / "b.npy", np.array([[1.0, -1.0]]))
    with pytest.raises(UserError, match=r"b\.npy: this depth map holds negative values; write 0"):
        read_map(tmp_path / "b.npy")
    assert read_map(tmp_path / "b.npy", strict=False).tolist() == [[1, 0]]
    np.save(tmp_path / "c.npy", np.zeros((2, 2, 5)))
    with pytest.raises(UserError, match="one channel"):
        read_map(tmp_path / "c.npy")
    np.save(tmp_path / "d.npy", np.array([["far"]]))
    with pytest.raises(UserError, match="must hold numbers"):
        read_map(tmp_path / "d.npy")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_files_that_were_cut_off_are_refused(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=rf"a\{suffix}: this image (is cut off|cannot be decoded)"):
        read_image(path)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_text("text")
    for call in (read_image, image_size):
        with pytest.raises(UserError, match=r"a\.png: this image cannot be decoded"):
            call(tmp_path / "a.png")
        with pytest.raises(UserError, match=r"b\.png: this image is missing"):
            call(tmp_path / "b.png")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match="float32"):
        read_image(tmp_path / "a.tiff")


def test_pictures_are_written_and_refused(tmp_path):
    write_image(tmp_path / "new" / "a.png", colors())
    assert (read_image(tmp_path / "new" / "a.png") == colors()).all()
    write_image(tmp_path / "new" / "mask.png", colors()[..., 0] > 127)
    assert (read_mask(tmp_path / "new" / "mask.png") == (colors()[..., 0] > 127)).all()
    assert Image.open(io.BytesIO(encode_image(colors(), ".jpg", 50))).format == "JPEG"
    for path, pixels, message in (
        (tmp_path / "a.webp", colors(), r"a\.webp: pictures are written as"),
        (tmp_path / "a.png", colors() / 255, "uint8"),
        (tmp_path / "a.jpg", colors().astype(np.uint16), "uint8"),
        (tmp_path / "a.png", colors(channels=2), "shape"),
    ):
        with pytest.raises(UserError, match=message):
            write_image(path, pixels)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"a.png", "mask.png"}


def test_images_are_listed_in_natural_order(tmp_path):
    for name in ("img10.png", "img2.JPG", "b.jpeg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["b.jpeg", "img2.JPG", "img10.png"]
    assert list_images(tmp_path / "none") == []


def test_sizes():
    assert reduced_size((480, 854), 480) == (270, 480) and reduced_size((30, 40), None) == (30, 40)
    with pytest.raises(UserError, match="max_side"):
        reduced_size((30, 40), 0)
    assert resize_map(np.arange(6).reshape(2, 3), (1, 3)).tolist() == [[3, 4, 5]]
