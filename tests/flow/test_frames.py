"""Reading the frames of a video."""

import cv2
import numpy as np
import pytest
import torch

from flow.errors import FlowError, UserError
from flow.frames import read_frames, reduce_image
from flow.io.images import reduced_size


def write(path, value=(255, 0, 0), size=(24, 32)):
    """An image of one RGB colour."""
    cv2.imwrite(str(path), np.full((*size, 3), value[::-1], np.uint8))


@pytest.fixture
def folder(tmp_path):
    for i in (0, 2, 10, 1):
        write(tmp_path / f"img{i}.png", (10 * i, 100, 200))
    (tmp_path / "notes.txt").write_text("not a frame")
    return tmp_path


def test_a_folder_in_natural_order_in_rgb(folder):
    frames, names = read_frames(folder)
    assert names == ["img0", "img1", "img2", "img10"]
    assert frames.shape == (4, 24, 32, 3) and frames.dtype == torch.uint8
    assert frames[:, 0, 0].tolist() == [[0, 100, 200], [10, 100, 200], [20, 100, 200], [100, 100, 200]]


def test_start_stop_and_every(folder):
    assert read_frames(folder, start=1)[1] == ["img1", "img2", "img10"]
    assert read_frames(folder, end=3, every=2)[1] == ["img0", "img2"]
    assert read_frames(str(folder), start=1, end=99, every=2)[1] == ["img1", "img10"]


def test_a_list_of_images_keeps_its_order(folder):
    frames, names = read_frames([folder / "img10.png", folder / "img0.png"])
    assert names == ["img10", "img0"] and frames[0, 0, 0, 0] == 100


def test_a_video_file(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write a video")
    for i in range(10):
        writer.write(np.full((48, 64, 3), (0, 0, 20 * i + 20), np.uint8))  # BGR: ever brighter red
    writer.release()
    frames, names = read_frames(path, start=1, end=8, every=3)
    assert names == ["00001", "00004", "00007"] and frames.shape == (3, 48, 64, 3)
    red = frames[:, 24, 32]
    assert torch.allclose(red[:, 0].float(), torch.tensor([40.0, 100.0, 160.0]), atol=12)
    assert (red[:, 1:] < 30).all()
    assert len(read_frames(path)[1]) == 10
    with pytest.raises(FlowError, match="no frame"):
        read_frames(path, start=10)


def test_reduction_averages_areas_and_never_enlarges(folder):
    assert read_frames(folder, max_side=16)[0].shape == (4, 12, 16, 3)
    assert read_frames(folder, max_side=500)[0].shape == (4, 24, 32, 3)
    image = np.zeros((4, 8, 3), np.uint8)
    image[::2, ::2] = 200
    assert (reduce_image(image, 4) == 50).all()
    assert reduced_size((480, 854), 480) == (270, 480) and reduced_size((854, 480), 480) == (480, 270)
    assert reduced_size((1, 1000), 10) == (1, 10) and reduced_size((30, 40), None) == (30, 40)


def test_bad_sources_are_named(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    (tmp_path / "sizes").mkdir()
    write(tmp_path / "sizes" / "a.png")
    write(tmp_path / "sizes" / "b.png", size=(24, 30))
    for call, words in (
        (lambda: read_frames(empty), "empty: holds no"),
        (lambda: read_frames(tmp_path / "nowhere"), "nowhere: this video is missing"),
        (lambda: read_frames(tmp_path / "broken.mp4"), "broken.mp4: no frame can be decoded"),
        (lambda: read_frames(tmp_path / "bad"), "a.png: this image cannot be decoded"),
        (lambda: read_frames(tmp_path / "sizes"), "frame b is 30x24 but frame a is 32x24"),
        (lambda: read_frames([folder / "gone.png"]), "gone.png: this image is missing"),
        (lambda: read_frames([]), "no frame"),
        (lambda: read_frames(folder / "img0.png"), "is one image"),
        (lambda: read_frames(folder, start=4), "no frame in 4:"),
        (lambda: read_frames(folder, start=2, end=2), "start < end"),
        (lambda: read_frames(folder, every=0), "every >= 1"),
        (lambda: read_frames(folder, max_side=0), "max_side"),
    ):
        with pytest.raises(UserError, match=words):
            call()
