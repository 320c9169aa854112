"""Folders of images: order, orientation, formats, and what is refused."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

from som.errors import UserError
from som.files import read_image
from som.preprocessing.frames.extract import extract_frames
from som.preprocessing.frames.images import list_recording, missing_numbers
from som.preprocessing.frames.options import FrameOptions


def frames(count: int = 10) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 200, (count, 24, 32, 3)).astype(np.uint8)
    images[:, :6, :8] = 255, 0, 0
    return images


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clip").mkdir()
    for i, image in enumerate(frames()):
        Image.fromarray(image).save(tmp_path / "clip" / f"shot {i + 1}.png")
    return tmp_path / "clip"


def test_images_are_taken_in_natural_order(folder, tmp_path):
    found = extract_frames(folder, tmp_path / "images", FrameOptions(image_fps=12))
    assert found.fps == pytest.approx(12) and found.names[-1] == "00009"
    assert np.array_equal(found.read(), frames())
    assert found.seconds == pytest.approx(np.arange(10) / 12, abs=1e-6)
    later = extract_frames(folder, tmp_path / "later", FrameOptions(image_fps=1, start=2, end=10))
    assert np.array_equal(later.read(), frames()[2:10])


def test_orientation_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise by a quarter
    Image.fromarray(frames()[0]).save(tmp_path / "turned.jpg", quality=100, exif=exif)
    image = read_image(tmp_path / "turned.jpg", upright=True)
    assert image.shape == (32, 24, 3)
    assert image[0, -1, 0] > 180 and image[0, -1, 1] < 90  # the red corner is now at the upper right


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_of_phones_are_upright(tmp_path, orientation):
    """HEIC stores the turn twice, for the decoder and in EXIF; it counts once."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    corner = np.full((48, 64, 3), 60, np.uint8)
    corner[:16, :16] = 255, 0, 0
    photo = Image.fromarray(corner)
    photo.save(tmp_path / "a.jpg", quality=98, exif=exif)
    photo.info["exif"] = exif.tobytes()
    photo.save(tmp_path / "a.HEIC", quality=98)
    turned, expected = (read_image(tmp_path / name, upright=True).astype(int) for name in ("a.HEIC", "a.jpg"))
    assert turned.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    assert np.abs(turned - expected).mean() < 3


def test_a_folder_of_photos_of_phones(tmp_path, monkeypatch):
    pytest.importorskip("pillow_heif").register_heif_opener()
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(frames()):
        Image.fromarray(image).save(tmp_path / "photos" / f"IMG_{412 + i:04d}.HEIC", quality=-1)
    found = extract_frames(tmp_path / "photos", tmp_path / "images", FrameOptions())
    assert found.original_names[1] == "IMG_0413.HEIC"
    assert np.abs(found.read()[:, :6, :8].astype(int) - (255, 0, 0)).mean() < 10
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r'IMG_0412\.HEIC: reading HEIC photos needs .* "som4d\[heic\]"'):
        extract_frames(tmp_path / "photos", tmp_path / "more", FrameOptions())


def test_original_names_and_places_are_kept(folder, tmp_path):
    options = FrameOptions(image_fps=1, start=1)
    found = extract_frames(folder, tmp_path / "images", options)
    assert found.original_names == [f"shot {i}.png" for i in range(2, 11)] and found.source_indices == list(range(9))
    assert found.recording_names == [f"shot {i}.png" for i in range(1, 11)]
    assert found.naming == extract_frames(folder, tmp_path / "images", options).naming
    assert found.naming.indices == list(range(9)) and found.naming.num_recorded == 9


def test_every_kind_of_pixel_becomes_rgb(tmp_path):
    rgb = frames()[0]
    alpha = np.dstack([rgb, np.full(rgb.shape[:2], 90, np.uint8)])
    grey = rgb[..., 1]
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    Image.fromarray(alpha).save(tmp_path / "alpha.webp", lossless=True, exact=True)
    Image.fromarray(rgb).save(tmp_path / "rgb.bmp")
    Image.fromarray(rgb).save(tmp_path / "rgb.tif")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    Image.fromarray(rgb).quantize(256).save(tmp_path / "palette.png")
    for name in ("alpha.png", "alpha.webp", "rgb.bmp", "rgb.tif"):
        assert np.array_equal(read_image(tmp_path / name), rgb), name
    for name in ("grey.png", "sixteen.png"):
        assert np.array_equal(read_image(tmp_path / name), np.repeat(grey[..., None], 3, 2)), name
    assert np.array_equal(read_image(tmp_path / "bits.png")[..., 0], (grey > 100) * np.uint8(255))
    assert np.array_equal(
        read_image(tmp_path / "palette.png"), np.array(Image.open(tmp_path / "palette.png").convert("RGB"))
    )


def test_cmyk_is_not_taken_for_transparency(tmp_path):
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "print.jpg")[3, 4].astype(int) - (254, 0, 0)).max() < 12


def test_what_does_not_belong_is_named(folder, tmp_path):
    Image.fromarray(frames()[0][:20]).save(folder / "shot 4.png")
    with pytest.raises(UserError, match=re.escape("9 of 32x24, 1 of 32x20; for example shot 4.png")):
        extract_frames(folder, tmp_path / "images", FrameOptions())
    (folder / "shot 4.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"shot 4\.png: this image cannot be decoded"):
        extract_frames(folder, tmp_path / "images", FrameOptions())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.mov").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no image .* found \.mov"):
        list_recording(tmp_path / "other")


def test_gaps_in_the_numbers_are_reported(folder, tmp_path):
    (folder / "shot 4.png").unlink()
    assert missing_numbers(list_recording(folder)) == [4]
    found = extract_frames(folder, tmp_path / "images", FrameOptions())
    assert found.findings["missing_numbers"] == [4] and "skips 1 numbers (4)" in found.warnings[0]
    for names in (["a.png", "b.png"], ["0.png", "5.png", "10.png"], ["1.png", "2.png", "b3.png"], ["7.png"]):
        paths = [tmp_path / name for name in names]
        assert missing_numbers(paths) == []
