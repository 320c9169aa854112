"""Which entry belongs to which frame: by name, by original name, by place in the recording, by order; never a guess."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flow.track_files import write_tracks
from flow.tracks import PointTracks
from som.errors import UserError
from som.preprocessing.frames.extract import extract_frames
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.frames.options import FrameOptions
from som.preprocessing.importing.depth import import_depth
from som.preprocessing.importing.frames import Match, frame_name, match_count, match_names, match_stamps
from som.preprocessing.importing.masks import import_masks
from som.preprocessing.importing.tracks import import_tracks
from tests.preprocessing.frames.test_extract import encode, ffmpeg, moving_frames
from tests.preprocessing.importing.known_cameras import QUAT_C2W_WXYZ, make_c2w, read
from tests.preprocessing.importing.test_import_camera_models import write_colmap

HERE = Path("prior")


def folder(pattern: str, count: int, first: int = 0, step: int = 1) -> FrameNames:
    """Every ``step``-th of a folder of images called by ``pattern`` from ``first`` on."""
    recorded, kept = [pattern.format(first + i) for i in range(count)], range(0, count, step)
    return FrameNames(_ours(len(kept)), [recorded[i] for i in kept], recorded, list(kept), count)


def video(count: int, step: int = 1) -> FrameNames:
    kept = list(range(0, count, step))
    return FrameNames(_ours(len(kept)), source_indices=kept, num_source_frames=count)


def _ours(count: int) -> list[str]:
    return [f"{i:05d}" for i in range(count)]


def numbered(pattern: str, first: int, last: int) -> list[str]:
    return [pattern.format(i) for i in range(first, last + 1)]


def test_names_lose_folder_and_endings_only():
    assert frame_name("images/a.b.png") == "a.b" and frame_name("take.2") == "take.2" and frame_name("x.JPG") == "x"
    assert frame_name("masks/IMG_1.HEIC.png") == "IMG_1"  # as COLMAP names masks


PHOTOS, HALF = folder("IMG_{:04d}.jpg", 6, 412), folder("IMG_{:04d}.jpg", 6, 412, step=2)
FROM_0, FROM_1 = folder("{:05d}.png", 6), folder("{:05d}.png", 6, 1)
EVEN, EVEN_JPG = folder("{:05d}.png", 6, step=2), folder("{:05d}.jpg", 6, step=2)
CASES = [
    # recording, names given, whether frames may lack an entry, entry of each frame, how
    (PHOTOS, ["00002.png", "images/00000.png"], True, [1, None, 0, None, None, None], "name"),
    (PHOTOS, ["IMG_0414.jpg", "sub/IMG_0412.jpg"], True, [1, None, 0, None, None, None], "original name"),
    (PHOTOS, ["x", *reversed(numbered("IMG_{:04d}.png", 412, 417))], False, [6, 5, 4, 3, 2, 1], "original name"),
    (HALF, numbered("IMG_{:04d}.png", 412, 417), False, [0, 2, 4], "original name"),
    (HALF, numbered("IMG_{:04d}.jpg", 413, 416), True, [None, 1, 3], "original name"),
    (HALF, ["f2", "f10", "f1"], False, [2, 0, 1], "order"),
    (HALF, numbered("f{}", 7, 12), True, [0, 2, 4], "source index"),
    (video(6, 2), numbered("frame_{:04d}.png", 1, 6), True, [0, 2, 4], "source index"),
    (video(6, 2), numbered("frame_{:04d}.png", 1, 3), False, [0, 1, 2], "order"),
    # all frames of the video, numbered from 0: the first three have the names of ours, but all six are explained so
    (video(6, 2), numbered("{:05d}.png", 0, 5), False, [0, 2, 4], "source index"),
    (video(6, 2), numbered("{:05d}.png", 0, 6), False, [0, 1, 2], "name"),
    # a program that counts from 1, and a recording that does
    (FROM_0, numbered("{:05d}.png", 1, 6), False, [0, 1, 2, 3, 4, 5], "order"),
    (FROM_1, numbered("{:05d}.png", 1, 6), True, [0, 1, 2, 3, 4, 5], "original name"),
    (FROM_1, numbered("{:05d}.png", 0, 5), True, [0, 1, 2, 3, 4, 5], "name"),
    # the same numbers for other pictures: all of one naming, or the ending, distinguishes them
    (EVEN, numbered("{:05d}.png", 0, 5), False, [0, 2, 4], "original name"),
    (EVEN, numbered("{:05d}.png", 0, 5), True, [0, 2, 4], "original name"),
    (EVEN, numbered("{:05d}.png", 0, 2), True, [0, 1, 2], "name"),
    (EVEN_JPG, numbered("{:05d}.jpg", 1, 2), True, [None, 1, None], "original name"),
    (EVEN_JPG, numbered("{:05d}.png", 1, 2), True, [None, 0, 1], "name"),
    (FROM_0, numbered("{:05d}.png", 1, 2), True, [None, 0, 1, None, None, None], "name"),
]


@pytest.mark.parametrize(("frames", "found", "partial", "entries", "by"), CASES)
def test_names_are_told_to_frames(frames, found, partial, entries, by):
    match = match_names(HERE, found, frames, "things", partial=partial)
    assert (match.entries, match.by) == (entries, by)
    assert bool(match.warnings) == (by in ("order", "source index"))
    assert match.frames == [i for i, e in enumerate(entries) if e is not None]
    assert [entries[i] for i in match.frames] == match.chosen


REFUSED = [
    (EVEN, numbered("{:05d}.png", 1, 2), True, r"mean different pictures \(images/00001\.png was 00002\.png\)"),
    (EVEN, numbered("{:05d}", 1, 2), True, "mean different pictures"),
    (FROM_1, numbered("{:05d}.png", 0, 6), False, r"mean different pictures \(images/00000\.png was 00001\.png\)"),
    (PHOTOS, ["00000", "00007"], True, r"holds 2 things for 6 frames, and 00007 is no name .*00000, .*IMG_0412"),
    (PHOTOS, ["a", "b", "c", "d", "e", "f", "g"], True, "holds 7 things for 6 frames"),
    (PHOTOS, [], True, "holds 0 things for 6 frames"),
    (PHOTOS, ["IMG_0412", "IMG_0414"], False, r"4 of 6 frames have no things \(IMG_0413, IMG_0415"),
    (PHOTOS, _ours(5), False, r"1 of 6 frames have no things \(00005\)"),
    (PHOTOS, ["a", "b"], False, "holds 2 things for 6 frames, none under the name"),
    (video(6, 2), numbered("f{}", 1, 5), True, "holds 5 things for 3 frames of 6 in the recording"),
    (PHOTOS, ["left/00000.png", "right/00000.png"], True, "several things are called 00000"),
    # as many as frames, but by their names they are other pictures of the recording
    (HALF, ["IMG_0413", "IMG_0415", "IMG_0417"], False, "holds 3 things for 3 frames of 6 .* none under the name"),
    (HALF, ["IMG_0413", "IMG_0415", "IMG_0417"], True, "holds 3 things for 3 frames of 6 .* none under the name"),
    (EVEN, numbered("{:05d}", 1, 3), False, "1 of 3 frames of 6 in the recording have no things"),
]


@pytest.mark.parametrize(("frames", "found", "partial", "words"), REFUSED)
def test_what_is_not_certain_is_refused_in_one_sentence(frames, found, partial, words):
    with pytest.raises(UserError, match=words) as caught:
        match_names(HERE, found, frames, "things", partial=partial)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("prior: ") and str(caught.value).endswith(".")


def test_a_name_that_two_images_of_the_recording_share_tells_nothing():
    frames = FrameNames(_ours(3), ["a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "b.jpg", "b.png", "c.jpg"], [0, 1, 3], 4)
    with pytest.raises(UserError, match="b is no name of a frame"):
        match_names(HERE, ["a.jpg", "b.jpg"], frames, "cameras", partial=True)
    assert match_names(HERE, ["a.jpg", "c.jpg"], frames, "cameras", partial=True).entries == [0, None, 1]


def test_counts():
    assert match_count(HERE, 3, HALF, "maps") == Match([0, 1, 2], "order")
    assert match_count(HERE, 6, HALF, "maps").entries == [0, 2, 4]
    assert "place" in match_count(HERE, 6, HALF, "maps").warnings[0]
    with pytest.raises(UserError, match="holds 5 maps for 3 frames of 6 in the recording"):
        match_count(HERE, 5, HALF, "maps")


def test_stamps_are_frame_numbers_only_where_these_mean_one_thing():
    stamps = lambda values, frames: match_stamps(HERE, values, frames, "poses")  # noqa: E731
    assert stamps([0.1, 0.2, 0.3], HALF) == Match([0, 1, 2], "order")
    assert stamps([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], HALF).entries == [0, 2, 4]
    assert stamps([0.0, 5.0], PHOTOS) == Match([0, None, None, None, None, 1], "frame number")
    assert stamps([0.0, 4.0], HALF).entries == [0, None, 1] and stamps([0.0, 4.0], HALF).by == "source index"
    with pytest.raises(UserError, match="numbers of the 3 frames or of the 6 in the recording"):
        stamps([0.0, 2.0], HALF)
    with pytest.raises(UserError, match="no frame numbers from 0 to 5"):
        stamps([0.0, 6.0], HALF)


SUBSAMPLED = folder("IMG_{:04d}.jpg", 7, 412, step=2)
"""Four of seven recorded images."""


def same_cameras(one, other) -> bool:
    seen = [
        np.array_equal(getattr(one.observations, k), getattr(other.observations, k)) for k in ("frame", "xy", "depth")
    ]
    return all(seen) and all(np.array_equal(getattr(one, k), getattr(other, k)) for k in ("w2c", "K", "registered"))


def test_colmap_on_the_original_images_gives_the_cameras_of_ours(tmp_path):
    """All five images are in the model of the recording, in any order; three of them are our frames."""
    frames = folder("IMG_{:04d}.jpg", 5, 412, step=2)
    ours = write_colmap(tmp_path / "ours", [f"{i // 2:05d}.png" for i in range(5)], order=[0, 2, 4])
    theirs = write_colmap(tmp_path / "theirs", frames.recording_names, order=[3, 0, 1, 4, 2])
    expected, found = read(ours, frames=frames), read(theirs, frames=frames)
    assert np.allclose(np.linalg.inv(found.w2c), make_c2w(5)[::2])
    assert same_cameras(expected, found) and found.registered.all() and not found.warnings
    assert (expected.source["matched_by"], found.source["matched_by"]) == ("name", "original name")
    gaps = read(write_colmap(tmp_path / "gaps", frames.recording_names, order=[0, 1, 3, 4]), frames=frames)
    assert gaps.registered.tolist() == [True, False, True] and "00001" in gaps.warnings[0]


def test_trajectories_and_arrays_of_the_whole_recording(tmp_path):
    w, x, y, z = QUAT_C2W_WXYZ
    rows = np.array([(1 + i, 2, 3, x, y, z, w) for i in range(7)])
    np.save(tmp_path / "droid.npy", rows)
    (tmp_path / "tum.txt").write_text("\n".join(" ".join(map(str, (i / 30, *row))) for i, row in enumerate(rows)))
    (tmp_path / "monst3r").mkdir()
    reordered = rows[:, [0, 1, 2, 6, 3, 4, 5]]
    text = "\n".join(" ".join(map(str, (float(i), *row))) for i, row in enumerate(reordered))
    (tmp_path / "monst3r/pred_traj.txt").write_text(text)
    (tmp_path / "monst3r/pred_intrinsics.txt").write_text("480 0 256 0 480 144 0 0 1\n" * 7)
    w2c, K, depth = np.linalg.inv(make_c2w(7)), np.eye(3) * (300, 300, 1), np.arange(1.0, 8)[:, None, None]
    depth = depth * np.ones((1, 180, 320))
    np.savez(tmp_path / "da3.npz", extrinsics=w2c, intrinsics=np.tile(K, (7, 1, 1)), depth=depth)
    for name, options in (("droid.npy", {"focal": 300}), ("tum.txt", {"focal": 300}), ("monst3r", {}), ("da3.npz", {})):
        found = read(tmp_path / name, frames=SUBSAMPLED, **options)
        assert np.allclose(np.linalg.inv(found.w2c), make_c2w(7)[::2], atol=1e-6), name
        assert found.source["matched_by"] == "source index" and "place" in found.warnings[0]
    assert found.depth[:, 5, 5].tolist() == [1, 3, 5, 7]
    given = import_depth(tmp_path / "da3.npz", frames=SUBSAMPLED, size=(180, 320))
    assert given.depth[:, 5, 5].tolist() == [1, 3, 5, 7] and "place" in given.warnings[0]


def test_masks_and_depth_under_original_names(tmp_path):
    size, frames = (6, 8), folder("IMG_{:04d}.HEIC", 7, 412, step=2)
    for i, name in enumerate(frames.recording_names):
        mask, stem = np.zeros(size, np.uint8), Path(name).stem
        mask[:, i] = 255
        for path in (f"masks/{stem}.png", f"colmap/{name}.png", f"objects/001/{stem}.png"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(tmp_path / path)
        (tmp_path / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / "depth" / f"{stem}_raw_depth_meter.npy", np.full(size, 1.0 + i, np.float32))
    for folder_name in ("masks", "colmap", "objects"):
        found = import_masks(tmp_path / folder_name, frames=frames, size=size)
        assert found.foreground[:, 0].int().argmax(1).tolist() == [0, 2, 4, 6]
        assert found.source["matched_by"] == "original name" and not found.warnings
    depth = import_depth(tmp_path / "depth", frames=frames, size=size)
    assert depth.depth[:, 0, 0].tolist() == [1, 3, 5, 7] and depth.source["matched_by"] == "original name"
    (tmp_path / "masks/IMG_0414.png").unlink()
    with pytest.raises(UserError, match=r"1 of 4 frames of 7 in the recording have no masks \(IMG_0414\)"):
        import_masks(tmp_path / "masks", frames=frames, size=size)


def test_tracks_of_the_whole_recording(tmp_path):
    xy = torch.rand(3, 7, 2) * 90
    visible = torch.ones(3, 7, dtype=torch.bool)
    visible[1, [0, 2, 4, 6]] = False  # seen in frames that were left out only
    visible[2, :4] = False
    query = torch.tensor([3, 1, 5])
    write_tracks(tmp_path / "tracks.npz", PointTracks(query, xy, visible, visible.float(), torch.zeros(3, 7)))
    found = import_tracks(tmp_path / "tracks.npz", frames=SUBSAMPLED, size=(90, 160))
    assert torch.equal(found.tracks.xy, xy[[0, 2]][:, ::2]) and "place" in found.warnings[0]
    assert found.tracks.visible.tolist() == [[True] * 4, [False, False, True, True]]
    assert found.tracks.query_frames.tolist() == [1, 2]  # recorded frame 2 is nearest to 3, 4 to 5
    for q in range(7):
        for t in range(7):
            stems = [Path(SUBSAMPLED.recording_names[i]).stem for i in (q, t)]
            np.save(tmp_path / f"{stems[0]}_{stems[1]}.npy", np.array([[10 * q, 5 * t, -10, -10]], np.float32))
    (tmp_path / "tracks.npz").unlink()
    pairs = import_tracks(tmp_path, frames=SUBSAMPLED, size=(90, 160))
    assert pairs.source["matched_by"] == "original name" and len(pairs.tracks) == 4
    assert np.allclose(pairs.tracks.xy[3].numpy(), [[60.5, 0.5], [60.5, 10.5], [60.5, 20.5], [60.5, 30.5]])


def bright(image: np.ndarray) -> np.ndarray:
    return image[..., 1] > 128


def test_frames_that_ffmpeg_extracted_from_the_video_are_matched_by_their_place(tmp_path):
    """Masks of all frames of a video; ours are every second of those that do not repeat the one before."""
    shown = moving_frames(20)[[0, 1, 2, 2, *range(3, 20)]]
    clip = encode(tmp_path / "clip.mkv", shown)
    ours = extract_frames(clip, tmp_path / "images", FrameOptions(every=2))
    assert ours.source_indices == [0, 2, 5, 7, 9, 11, 13, 15, 17, 19] and ours.num_source_frames == 21
    (tmp_path / "all").mkdir()
    ffmpeg("-i", clip, tmp_path / "all" / "frame_%04d.png")
    for path in (tmp_path / "all").iterdir():
        Image.fromarray(bright(np.array(Image.open(path)))).save(path)
    found = import_masks(tmp_path / "all", frames=ours.naming, size=ours.size)
    assert np.array_equal(found.foreground.numpy(), bright(ours.read()))
    assert "as many as the recording has" in found.warnings[0]
    (tmp_path / "all" / "frame_0021.png").unlink()
    with pytest.raises(UserError, match="holds 20 masks for 10 frames of 21 in the recording"):
        import_masks(tmp_path / "all", frames=ours.naming, size=ours.size)


def test_masks_named_as_the_photos_that_the_clip_is_made_of(tmp_path):
    """Part of a folder, every second image of it."""
    for kind in ("photos", "masks"):
        (tmp_path / kind).mkdir()
    for i, image in enumerate(moving_frames(24)):
        Image.fromarray(image).save(tmp_path / "photos" / f"IMG_{9990 + i}.png")  # goes on with IMG_10000
        Image.fromarray(bright(image)).save(tmp_path / "masks" / f"IMG_{9990 + i}.png")
    options = FrameOptions(image_fps=1, start=3, end=20, every=2)
    ours = extract_frames(tmp_path / "photos", tmp_path / "images", options)
    assert ours.original_names[:2] == ["IMG_9993.png", "IMG_9995.png"] and ours.original_names[-1] == "IMG_10009.png"
    found = import_masks(tmp_path / "masks", frames=ours.naming, size=ours.size)
    assert np.array_equal(found.foreground.numpy(), bright(ours.read())) and len(found.foreground) == 9
