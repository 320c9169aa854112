"""Recordings of every kind become the same numbered images; what cannot be used is refused in one sentence."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest

from som.errors import UserError
from som.preprocessing.frames import extract
from som.preprocessing.frames.extract import extract_frames
from som.preprocessing.frames.options import FrameOptions

ALL = FrameOptions()


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-hide_banner", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True)


def moving_frames(count: int = 12, height: int = 36, width: int = 64) -> np.ndarray:
    """A smooth pattern that moves by one pixel a frame; the upper left corner is red."""
    y, x = np.mgrid[:height, : width + count].astype(float)
    scene = np.stack([128 + 100 * np.sin(x / 5 + c) * np.cos(y / 4 - c) for c in range(3)], -1).astype(np.uint8)
    frames = np.stack([scene[:, t : t + width] for t in range(count)])
    frames[:, : height // 4, : width // 4] = 255, 0, 0
    return frames


def encode(path: Path, frames: np.ndarray, rate: float = 10, *options: object) -> Path:
    """Lossless unless the options say otherwise."""
    height, width = frames.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += [
        "-s",
        f"{width}x{height}",
        "-r",
        str(rate),
        "-i",
        "-",
        *map(str, options or ("-c:v", "ffv1")),
        str(path),
    ]
    subprocess.run(command, input=frames.tobytes(), check=True)
    return path


@pytest.fixture
def video(tmp_path) -> Path:
    return encode(tmp_path / "clip.mkv", moving_frames())


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_error(source: Path, folder: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        extract_frames(source, folder, replace(ALL, **options))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_a_video_becomes_numbered_images(video, tmp_path):
    frames = extract_frames(video, tmp_path / "images", ALL)
    assert frames.names == [f"{i:05d}" for i in range(12)]
    assert [path.name for path in frames.paths] == [f"{i:05d}.png" for i in range(12)]
    assert frames.size == (36, 64) and frames.fps == pytest.approx(10) and frames.num_source_frames == 12
    assert frames.seconds == pytest.approx(np.arange(12) / 10)
    assert frames.warnings == [] and not frames.reused
    assert np.abs(frames.read().astype(int) - moving_frames()).max() <= 2


@pytest.mark.parametrize("size", [(36, 65), (37, 64)])
def test_odd_sizes_stay(tmp_path, size):
    frames = extract_frames(encode(tmp_path / "odd.mkv", moving_frames(12, *size)), tmp_path / "images", ALL)
    assert frames.size == size and frames.read().shape == (12, *size, 3)


@pytest.mark.parametrize(("turn", "corner"), [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1))])
def test_rotation_is_honoured(tmp_path, turn, corner):
    encode(tmp_path / "flat.mp4", moving_frames(), 10, "-c:v", "libx264", "-crf", 1, "-pix_fmt", "yuv420p")
    ffmpeg("-display_rotation", turn, "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "turned.mp4")
    frames = extract_frames(tmp_path / "turned.mp4", tmp_path / "images", ALL)
    assert frames.size == ((36, 64) if turn == 180 else (64, 36))
    red = frames.read()[0][corner[0], corner[1]].astype(int)
    assert red[0] > 200 and red[1:].max() < 60


def test_pixels_become_square(tmp_path):
    for name, aspect, size in (("wide", "2/1", (36, 128)), ("high", "1/2", (72, 64))):
        encode(tmp_path / f"{name}.mkv", moving_frames(), 10, "-c:v", "ffv1", "-vf", f"setsar={aspect}")
        assert extract_frames(tmp_path / f"{name}.mkv", tmp_path / name, ALL).size == size


def test_ten_bits_and_high_dynamic_range_become_eight_bits(tmp_path):
    plain = encode(tmp_path / "ten.mkv", moving_frames(), 10, "-c:v", "ffv1", "-pix_fmt", "yuv444p10le")
    images = extract_frames(plain, tmp_path / "ten", ALL).read()
    assert np.abs(images.astype(int) - moving_frames()).max() <= 4
    ramp = moving_frames()
    ramp[:, 12:] = np.linspace(0, 255, 64).astype(np.uint8)[:, None]
    tags = "format=yuv444p10le,setparams=color_trc={}:color_primaries=bt2020:colorspace=bt2020nc"
    for name, transfer in (("hlg", "arib-std-b67"), ("pq", "smpte2084")):
        encode(tmp_path / f"{name}.mkv", ramp, 10, "-c:v", "ffv1", "-vf", tags.format(transfer))
        frames = extract_frames(tmp_path / f"{name}.mkv", tmp_path / name, ALL)
        image = frames.read()[0].astype(int)
        assert frames.findings["hdr"] and image[4, 4, 0] > 200 and image[4, 4, 1:].max() < 60
        grey = image[20]
        assert np.ptp(grey, axis=1).max() <= 2 and (np.diff(grey[:, 0]) >= 0).all()
        assert grey[0, 0] == 0 and grey[-1, 0] > 240 and 70 < grey[28, 0] < 180


def test_rate_part_and_number_of_frames(tmp_path):
    video = encode(tmp_path / "clip.mkv", moving_frames(40), 20)
    for options, seconds, fps in (
        (dict(fps=5), np.arange(0, 2, 0.2), 5),
        (dict(fps=8), np.arange(0, 2, 0.125), 8),
        (dict(every=3), np.arange(0, 2, 0.15), 20 / 3),
        (dict(start=0.5, end=1.25), np.arange(0.5, 1.25, 0.05), 20),
        (dict(max_frames=20), np.arange(0, 2, 0.1), 10),
        (dict(max_frames=15, start=1.0), np.arange(1, 2, 0.1), 10),
        (dict(fps=60), np.arange(0, 2, 0.05), 20),
    ):
        frames = extract_frames(video, tmp_path / "images", replace(ALL, **options))
        assert frames.seconds == pytest.approx(seconds, abs=0.026 if options.get("fps") == 8 else 1e-6), options
        assert frames.fps == pytest.approx(fps), options
        expected = moving_frames(40)[np.round(np.array(frames.seconds) * 20).astype(int)]
        assert np.abs(frames.read().astype(int) - expected).max() <= 2
        assert len(list((tmp_path / "images").glob("*.png"))) == len(seconds)
        assert bool(frames.warnings) == ("max_frames" in options or options.get("fps") == 60)


def test_images_are_reduced_by_area(tmp_path):
    frames = np.zeros((10, 40, 80, 3), np.uint8)
    frames[:, ::2] = 200  # rows of 200 and 0: their mean is 100
    frames[np.arange(10), :, np.arange(10) * 6] = 255
    video = encode(tmp_path / "clip.mkv", frames)
    small = extract_frames(video, tmp_path / "images", replace(ALL, max_side=40))
    assert small.size == (20, 40)
    assert np.abs(small.read()[0, :, 20:].astype(int) - 100).max() <= 3


def test_a_variable_rate_becomes_constant(tmp_path):
    times = "setpts='round(if(lt(N,10),N/20,0.5+(N-10)/10)/TB)'"
    options = ("-vf", times, "-fps_mode", "passthrough", "-enc_time_base", "1/1000", "-c:v", "ffv1")
    encode(tmp_path / "vfr.mkv", moving_frames(20), 20, *options)
    frames = extract_frames(tmp_path / "vfr.mkv", tmp_path / "images", replace(ALL, fps=10))
    assert np.diff(frames.seconds) == pytest.approx(0.1, abs=1e-3)
    assert frames.findings["variable_rate"] and "varies between 10 and 20" in frames.warnings[0]


def test_repeats_are_left_out_and_can_be_kept(tmp_path):
    doubled = moving_frames(48, 90, 160)[::4][np.repeat(np.arange(12), 2)]
    video = encode(tmp_path / "clip.mp4", doubled, 20, "-c:v", "libx264", "-crf", 20, "-pix_fmt", "yuv420p")
    frames = extract_frames(video, tmp_path / "images", ALL)
    assert len(frames.names) == 12 and frames.fps == pytest.approx(10)
    assert "12 of 24 frames repeat" in frames.warnings[0]
    kept = extract_frames(video, tmp_path / "images", replace(ALL, keep_repeats=True))
    assert len(kept.names) == 24 and kept.warnings == []


def test_a_small_thing_before_a_still_camera_is_no_repeat(tmp_path):
    frames = np.repeat(moving_frames(1, 180, 320), 20, 0)
    for t in range(20):
        frames[t, 100:108, 40 + 2 * t : 48 + 2 * t] = 255
    video = encode(tmp_path / "clip.mp4", frames, 10, "-c:v", "libx264", "-pix_fmt", "yuv420p")
    assert len(extract_frames(video, tmp_path / "images", ALL).names) == 20


def test_a_cut_and_blurred_frames_are_reported(tmp_path):
    other = 255 - moving_frames(24, 72, 128)[:, :, ::-1]
    both = np.concatenate([moving_frames(12, 72, 128), other[:12]])
    both[[4, 5, 17, 18]] = [cv2.GaussianBlur(image, (0, 0), 5) for image in both[[4, 5, 17, 18]]]
    frames = extract_frames(encode(tmp_path / "clip.mkv", both), tmp_path / "images", ALL)
    assert frames.findings["cuts"] == ["00012"] and frames.findings["blurred"] == ["00004", "00005", "00017", "00018"]
    assert any("at once at 1.20 s" in text for text in frames.warnings)
    assert any("4 of 24 frames are much more blurred" in text for text in frames.warnings)
    assert len(frames.names) == 24


def test_an_interrupted_call_goes_on_and_ends_the_same(video, tmp_path, monkeypatch):
    whole = extract_frames(video, tmp_path / "whole", ALL)
    write, count = extract.write_image, []

    def failing(path: Path, image: np.ndarray) -> None:
        count.append(path)
        if len(count) == 6:
            path.with_name(f".{path.name}.1.1.tmp").write_bytes(b"half a file")
            raise KeyboardInterrupt
        write(path, image)

    monkeypatch.setattr(extract, "write_image", failing)
    with pytest.raises(KeyboardInterrupt):
        extract_frames(video, tmp_path / "images", ALL)
    monkeypatch.setattr(extract, "write_image", write)
    assert len(list((tmp_path / "images").glob("*.png"))) == 5
    before = (tmp_path / "images" / "00002.png").stat().st_mtime_ns
    again = extract_frames(video, tmp_path / "images", ALL)
    assert written(tmp_path / "images") == written(tmp_path / "whole")
    assert (tmp_path / "images" / "00002.png").stat().st_mtime_ns == before
    assert replace(again, folder=whole.folder) == whole


def test_a_second_call_reuses_and_other_options_or_sources_replace(video, tmp_path):
    folder = tmp_path / "images"
    first = extract_frames(video, folder, ALL)
    second = extract_frames(video, folder, ALL)
    assert second.reused and replace(second, reused=False) == first
    assert len(extract_frames(video, folder, replace(ALL, start=0.2)).names) == 10
    assert len(list(folder.glob("*.png"))) == 10
    other = encode(tmp_path / "other.mkv", moving_frames(9)[:, ::-1])
    assert not extract_frames(other, folder, ALL).reused
    assert np.abs(extract_frames(other, folder, ALL).read() - moving_frames(9)[:, ::-1].astype(int)).max() <= 2


def test_a_record_of_the_former_format_is_completed(video, tmp_path):
    """Format 1 did not say where in the recording the frames were; the images of it are good."""
    folder = tmp_path / "images"
    first = extract_frames(video, folder, replace(ALL, start=0.1))
    path, record = folder / "frames.json", json.loads((folder / "frames.json").read_text())
    assert record["format"] == 2
    for key in ("source_indices", "original_names", "recording_names"):
        del record["frames"][key]
    path.write_text(json.dumps({**record, "format": 1}))
    before = {image.name: image.stat().st_mtime_ns for image in folder.glob("*.png")}
    again = extract_frames(video, folder, replace(ALL, start=0.1))
    assert again == first and not again.reused and again.source_indices == list(range(11))
    assert {image.name: image.stat().st_mtime_ns for image in folder.glob("*.png")} == before
    assert extract_frames(video, folder, replace(ALL, start=0.1)).reused
    path.write_text(json.dumps({**record, "format": 3}))
    assert "is no record of this version" in read_error(video, folder)


def test_the_place_in_the_recording_is_kept(tmp_path):
    """Of frames that repeat, are thinned out, or lie before the chosen part."""
    shown = moving_frames(30)[[*range(12), 11, *range(12, 30)]]
    found = extract_frames(encode(tmp_path / "a.mkv", shown), tmp_path / "images", replace(ALL, start=0.5, every=3))
    assert found.num_source_frames == 26 and found.source_indices == [0, 3, 6, 10, 13, 16, 19, 22, 25]
    expected = shown[5:][found.source_indices]
    assert np.abs(found.read().astype(int) - expected).max() <= 2
    assert found.original_names is None and found.recording_names is None


def test_images_of_another_origin_are_left_alone(video, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.jpg").write_bytes(b"precious")
    assert "holds images of another origin" in read_error(video, tmp_path / "images")
    assert (tmp_path / "images" / "mine.jpg").read_bytes() == b"precious"


def test_progress_rises_to_one(video, tmp_path):
    seen = []
    extract_frames(video, tmp_path / "images", ALL, lambda text, share: seen.append((text, share)))
    shares = [share for text, share in seen if text == "writing images"]
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_unusable_videos_are_refused_in_one_sentence(video, tmp_path):
    out = tmp_path / "images"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.m4a")
    cover = tmp_path / "cover.png"
    iio.imwrite(cover, moving_frames(1)[0])
    pictured = ("-map", 0, "-map", 1, "-c:v", "copy", "-disposition:v", "attached_pic")
    ffmpeg("-i", tmp_path / "sound.m4a", "-i", cover, *pictured, tmp_path / "pictured.m4a")
    (tmp_path / "junk.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("Film the dog.\n" * 400)
    still = encode(tmp_path / "still.mp4", np.repeat(moving_frames(1, 90, 160), 20, 0), 10, "-c:v", "libx264")
    one = encode(tmp_path / "one.mkv", moving_frames(1))
    few = encode(tmp_path / "few.mkv", moving_frames(5))
    for source, options, words in (
        (tmp_path / "none.mp4", {}, "does not exist"),
        (tmp_path / "sound.m4a", {}, "holds no video"),
        (tmp_path / "pictured.m4a", {}, "holds no video"),
        (tmp_path / "notes.txt", {}, "holds no video"),
        (tmp_path / "junk.mp4", {}, "damaged, incomplete or no video"),
        (tmp_path / "empty.mp4", {}, "is empty"),
        (still, {}, "nothing moves, all 20 frames"),
        (one, {}, "has 1 frame "),
        (few, {}, "has 5 different frames"),
        (cover, {}, "is one image"),
        (video, {"fps": 4.0}, r"use `frames.fps` 7.3 or more"),
        (video, {"every": 4}, "lower `frames.every`"),
        (video, {"start": 9.0}, "lies beyond the end"),
        (video, {"start": 0.9}, "between `frames.start` and `frames.end`"),
        (video, {"start": 1.0, "end": 0.5}, "must lie after `frames.start`"),
        (video, {"max_side": 16}, "less than 16 pixels"),
        (video, {"fps": -1.0}, "must be positive"),
        (tmp_path, {"start": 100.0}, "lies beyond the end"),
    ):
        message = read_error(source, out, **options)
        assert words in message, message
    assert not out.exists()


def test_a_video_that_changes_its_shape_is_refused(tmp_path):
    for name, size in (("a", (36, 64)), ("b", (64, 36))):
        options = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bsf:v", "h264_mp4toannexb")
        encode(tmp_path / f"{name}.h264", moving_frames(10, *size), 10, *options)
    joined = tmp_path / "joined.h264"
    joined.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    assert "changes from 64x36 to 36x64" in read_error(joined, tmp_path / "images")


def test_the_suggested_rate_is_enough(video, tmp_path):
    assert len(extract_frames(video, tmp_path / "images", replace(ALL, fps=7.3)).names) >= 8


def test_of_an_incomplete_video_what_is_there_is_used(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (40, 36, 64, 3)).astype(np.uint8)
    options = ("-c:v", "libx264", "-g", 5, "-pix_fmt", "yuv420p", "-movflags", "+faststart")
    data = encode(tmp_path / "clip.mp4", frames, 10, *options).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) // 2])
    found = extract_frames(cut, tmp_path / "images", ALL)
    assert 10 <= len(found.names) <= 25
    assert "should last 4.00 s but can be decoded up to" in found.warnings[0]
    cut.write_bytes(data[: len(data) // 10])
    assert "is incomplete, only" in read_error(cut, tmp_path / "few")


def test_a_folder_that_cannot_be_written_is_named(video, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in read_error(video, tmp_path / "file" / "images")
    assert "folder that the frames are written to" in read_error(tmp_path, tmp_path)
