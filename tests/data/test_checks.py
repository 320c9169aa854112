"""Every way in which a data set can be broken is one sentence that names the file; all are reported at once."""

import json

import cv2
import numpy as np
import pytest

from som.data.checks import DatasetError
from som.data.config import CustomData
from som.data.folder import write_native
from som.data.load import load_dataset, read_native
from som.errors import UserError


@pytest.fixture
def root(toy_dataset, tmp_path):
    write_native(toy_dataset, tmp_path)
    return tmp_path


def problems(root) -> list[str]:
    with pytest.raises(DatasetError) as caught:
        read_native(root)
    assert isinstance(caught.value, UserError)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def edit(root, change) -> None:
    path = root / "transforms.json"
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))


def edit_tracks(root, **changes) -> None:
    path = root / "tracks.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{k: changes[k](v) if k in changes else v for k, v in arrays.items()})


def frame(header, index=1):
    return header["frames"][index]


def set_pose(row, column, value):
    def change(header):
        frame(header)["transform_matrix"][row][column] = value

    return change


def mirror(header):
    pose = np.array(frame(header)["transform_matrix"])
    frame(header)["transform_matrix"] = (pose @ np.diag([-1, 1, 1, 1])).tolist()


def drop_last(header, count):
    header["frames"] = [f for f in header["frames"] if f["split"] == "train"][:count]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_pose(0, 3, float("nan")), "training view b: the pose holds NaN"),
        (set_pose(0, 0, 3.0), "training view b: the pose is not rigid"),
        (mirror, "training view b: the pose is not rigid"),
        (lambda h: frame(h).update(transform_matrix=[[0] * 4] * 4), "training view b"),
        (lambda h: frame(h).update(transform_matrix=[[1, 2]]), "transform_matrix must be 4x4"),
        (lambda h: frame(h).update(fl_x=float("inf")), "training view b: the intrinsics must be finite"),
        (lambda h: frame(h).update(fl_x="wide"), "missing or not a number"),
        (lambda h: frame(h).pop("fl_x"), "missing or not a number ('fl_x')"),
        (lambda h: frame(h).update(k1=0.1), "undistort"),
        (lambda h: frame(h).update(file_path="images/none.png"), "images/none.png: this image is missing"),
        (lambda h: frame(h).update(depth_file_path="depth/none.npy"), "depth/none.npy: this depth map is missing"),
        (lambda h: frame(h).pop("foreground_path"), "images/b.png: has no foreground map"),
        (lambda h: frame(h).update(time=0), "several training views at time 0"),
        (lambda h: frame(h).update(time=99), "time 99 lies outside [0, 4)"),
        (lambda h: frame(h).update(time="soon"), '"time" must be a number below'),
        (lambda h: frame(h).update(split="test"), 'split must be "train" or "val"'),
        (lambda h: frame(h).update(w=31), "its w and h say 31x24"),
        (lambda h: frame(h).update(name="a"), "share the names a"),
        (lambda h: h.update(frames=[]), "no training view"),
        (lambda h: drop_last(h, 1), "only one training view"),
        (lambda h: h.update(frames=3), 'a list "frames"'),
        (lambda h: h.update(fps=-1), "fps must be a positive number"),
        (lambda h: h.update(depth_kind="deep"), "depth_kind must be one of"),
    ],
)
def test_bad_transforms(root, change, expected):
    edit(root, change)
    assert any(expected in problem for problem in problems(root)), problems(root)


def truncate(path):
    path.write_bytes(path.read_bytes()[:900])


def resize(path, size):
    cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda r: resize(r / "foreground/b.png", (10, 10)), "foreground/b.png: this foreground map is 10x10"),
        (lambda r: resize(r / "images/b.png", (10, 10)), "images/b.png"),
        (lambda r: np.save(r / "depth/b.npy", np.zeros((3, 5))), "depth/b.npy: this depth map is 5x3, expected 32x24"),
        (lambda r: np.save(r / "depth/b.npy", np.zeros((24, 32, 5))), "must have one channel"),
        (lambda r: np.save(r / "depth/b.npy", np.full((24, 32), -1.0)), "negative"),
        (lambda r: (r / "depth/b.npy").write_bytes(b"nothing"), "depth/b.npy: this depth map cannot be read"),
        (lambda r: truncate(r / "images/b.png"), "images/b.png: this image is cut off"),
        (lambda r: (r / "images/b.png").write_text("text"), "images/b.png: this image cannot be decoded"),
        (lambda r: (r / "images/b.png").unlink(), "images/b.png: this image is missing"),
        (lambda r: (r / "transforms.json").write_text("{"), "transforms.json: the list of frames is no valid JSON"),
        (lambda r: (r / "transforms.json").unlink(), "transforms.json: the list of frames is missing"),
        (lambda r: (r / "tracks.npz").write_bytes(b"no"), "tracks.npz: the tracks cannot be read"),
        (lambda r: np.savez(r / "tracks.npz", xy=np.zeros(3)), "lacks query_frame, visible"),
    ],
)
def test_bad_files(root, break_it, expected):
    break_it(root)
    assert any(expected in problem for problem in problems(root)), problems(root)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({k: lambda v: v[:0] for k in ("query_frame", "xy", "visible", "confidence")}, "holds no track"),
        ({k: lambda v: v[:, :3] for k in ("xy", "visible", "confidence")}, "xy must have shape (5, 4, 2)"),
        ({"visible": lambda v: v & False}, "no track is visible"),
        ({"query_frame": lambda v: v + 7}, "query_frame must lie in [0, 4)"),
        ({"xy": lambda v: v * np.nan}, "xy holds NaN"),
        ({"confidence": lambda v: v * 9}, "confidence must lie in [0, 1]"),
    ],
)
def test_bad_tracks(root, changes, expected):
    edit_tracks(root, **changes)
    assert any("tracks.npz" in problem and expected in problem for problem in problems(root)), problems(root)


def test_everything_foreground_needs_foreground(root):
    edit(root, lambda h: h.update(has_background=False))
    for path in (root / "foreground").iterdir():
        resize(path, (24, 32))
    assert any("no pixel is foreground" in problem for problem in problems(root))


def test_all_problems_at_once(root):
    edit(root, set_pose(0, 3, float("nan")))
    edit(root, lambda header: header.update(fps=0))
    (root / "images/c.png").write_text("text")
    np.save(root / "depth/d.npy", np.zeros((3, 5)))
    edit_tracks(root, confidence=lambda v: v * 9)
    found = problems(root)
    for part in ("fps must be", "training view b", "images/c.png", "depth/d.npy", "confidence must lie"):
        assert any(part in problem for problem in found), (part, found)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CustomData(), "`data.seq_name` or `data.root_dir`"),
        (CustomData(seq_name="nowhere"), "nowhere: no such folder"),
        (CustomData(seq_name="x", max_side=0), "`data.max_side`"),
    ],
)
def test_options_that_name_no_data_set(config, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=expected):
        load_dataset(config)


def test_unknown_layout_names_the_markers(tmp_path):
    with pytest.raises(DatasetError, match=r"transforms\.json"):
        load_dataset(CustomData(root_dir=tmp_path))
