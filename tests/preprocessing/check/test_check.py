"""run_preprocess.py check: every problem of every layout, and facts and doubts where there is none."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from som.data.folder import write_flow, write_native
from som.data.layouts import recognise
from som.preprocessing.check import check_folder, render_check
from som.preprocessing.facts import facts_at_size
from tests.preprocessing.check.scenes import H, T, W, wall_dataset, write_exact_flow


@pytest.fixture
def root(tmp_path):
    write_native(wall_dataset(), tmp_path / "wall")
    return tmp_path / "wall"


def test_a_good_data_set_is_described(root):
    write_exact_flow(root / "flow")
    result = check_folder(root)
    assert result.ok and result.warnings == [] and result.layout == "native"
    facts = result.facts
    assert facts["frames"] == {"train": T, "held_out": 0, "times": T, "fps": 12.0, "width": W, "height": H}
    assert facts["cameras"]["focal"] == pytest.approx(60) and not facts["cameras"]["varying_focal"]
    assert facts["cameras"]["fov"] == pytest.approx(np.degrees(2 * np.arctan(32 / 60)))
    assert facts["cameras"]["turn"] == pytest.approx(np.degrees(0.01 * (T - 1)), rel=1e-3)
    assert facts["foreground"]["mean"] == pytest.approx(16 * 16 / (H * W))
    assert facts["tracks"]["count"] == 350 and facts["tracks"]["moving"] >= 150
    assert facts["depth"]["coverage"] == 1 and facts["depth"]["kind"] == "metric"
    assert facts["flow"]["strides"] == [1, 4] and facts["flow"]["fields"] == 2 * (T - 1 + T - 4)
    assert facts["agreement"]["error"] < 0.05
    json.dumps(facts, allow_nan=False)
    text = render_check(result)
    assert "can be used" in text and "doubtful" not in text
    for words in (f"{T} for training", f"{W}x{H}", "60 px", "8.3% of the pixels", "350, ", "over 1, 4 frames"):
        assert words in text, words


def test_all_problems_are_listed_at_once(root):
    (root / "images" / "003.png").unlink()
    (root / "depth" / "005.npy").write_bytes(b"broken")
    cv2.imwrite(str(root / "foreground" / "007.png"), np.zeros((5, 5), np.uint8))
    result = check_folder(root)
    assert not result.ok and result.facts == {}
    assert len(result.problems) >= 3
    text = render_check(result)
    for name in ("003.png", "005.npy", "007.png"):
        assert name in text
    assert f"{len(result.problems)} problems" in text and "can be used" not in text


def test_doubts_are_part_of_the_text(root):
    header = json.loads((root / "transforms.json").read_text())
    for frame in header["frames"]:
        frame["fl_x"] = frame["fl_y"] = 600.0
    (root / "transforms.json").write_text(json.dumps(header))
    result = check_folder(root)
    assert result.ok and result.warnings
    assert "doubtful" in render_check(result) and all(warning in render_check(result) for warning in result.warnings)


def test_facts_of_a_reduced_data_set_are_scaled_back(root):
    full, reduced = check_folder(root).facts, check_folder(root, max_side=32).facts
    assert reduced["frames"]["width"] == 32
    scaled = facts_at_size(reduced, (H, W))
    assert scaled["frames"] == full["frames"]
    assert scaled["cameras"]["focal"] == pytest.approx(full["cameras"]["focal"])
    assert scaled["agreement"]["parallax"] == pytest.approx(full["agreement"]["parallax"], rel=0.05)


def test_flow_of_other_frames_is_reported(root):
    write_exact_flow(root / "flow")
    record = json.loads((root / "flow" / "flow.json").read_text())
    (root / "flow" / "flow.json").write_text(json.dumps({**record, "num_frames": T - 1}))
    assert any(f"{T - 1} frames" in problem for problem in check_folder(root).problems)
    (root / "flow" / "flow.json").write_text(json.dumps({**record, "size": [H, H]}))
    assert any("another shape" in warning for warning in check_folder(root).warnings)
    (root / "flow" / "flow.json").unlink()
    assert check_folder(root).facts["flow"]["strides"] == [1, 4]
    (root / "flow" / "00000_00001.npz").write_bytes(b"broken")
    assert any("00000_00001.npz" in warning for warning in check_folder(root).warnings)
    write_flow(root, T, T + 1, np.zeros((H, W, 2), np.float32), np.ones((H, W), bool))
    assert any("flow beyond" in warning for warning in check_folder(root).warnings)


def test_layouts_are_told_apart(root, tmp_path):
    def folder(name: str, *files: str):
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(b"")
        return tmp_path / name

    def layout(path):
        return recognise(path).title

    assert layout(root) == "native"
    assert layout(folder("endo", "poses_bounds.npy", "images/a.png")) == "EndoNeRF"
    assert layout(folder("colmap", "sparse/0/images.txt", "images/a.png")) == "COLMAP"
    assert layout(folder("phone", "splits/train.json", "rgb/1x/a.png")) == "iPhone"
    assert layout(folder("davis", "JPEGImages/480p/bear/a.jpg")) == "DAVIS"
    assert layout(folder("som", "images/walk/a.png")) == "Shape-of-Motion"
    folder("som", "images/run/a.png")
    for path, words in (
        (tmp_path / "som", r"several sequences \(run, walk\)"),
        (tmp_path / "none", "no such folder"),
        (folder("plain", "images/a.png"), "has images but no cameras"),
        (folder("half", "preprocessing.json", "images/a.png"), "has not ended"),
        (folder("other", "a.txt"), "not recognised"),
    ):
        result = check_folder(path)
        assert not result.ok and len(result.problems) == 1
        assert re.search(words, result.problems[0])


@pytest.mark.parametrize("name", ["endo", "colmap", "phone", "davis", "som"])
def test_empty_folders_of_every_layout_give_problems(name, tmp_path):
    marker = {
        "endo": "poses_bounds.npy",
        "colmap": "sparse/0/images.txt",
        "phone": "splits/train.json",
        "davis": "JPEGImages/480p/bear/a.jpg",
        "som": "images/walk/a.png",
    }[name]
    for file in (marker, "images/a.png" if name in ("endo", "colmap") else marker, "rgb/1x/a.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    result = check_folder(tmp_path)
    assert result.problems and result.layout != "unknown"


def test_a_static_camera_is_said_to_stand_still(tmp_path):
    wall = wall_dataset()
    wall.train.cameras.w2c[:] = wall.train.cameras.w2c[0]
    write_native(replace(wall, tracks=None), tmp_path)
    result = check_folder(tmp_path)
    assert result.ok and "standing still" in render_check(result)
    assert not any("agreement" in label for label in result.facts)
    assert torch.equal(wall.train.cameras.w2c[0], wall.train.cameras.w2c[-1])
