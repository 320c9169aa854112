"""Every subcommand of som4d depth on a tiny generated street."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from som.commands.main import dispatch
from som.data.load import open_sequence
from som.depth.learning.synthetic import RoadClip, RoadClipConfig, make_road_clip

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--training.width", "64", "--training.height", "32", "--training.batch-size", "2", "--threads", "1"]
CLIP = ["--clip.student-side", "64", "--clip.student.steps", "4", "--clip.student.batch-size", "4", "--threads", "1"]


@pytest.fixture(scope="module")
def clip() -> RoadClip:
    return make_road_clip(RoadClipConfig(frames=8, width=96, height=64))


@pytest.fixture(scope="module")
def original(clip: RoadClip, tmp_path_factory) -> Path:
    """A data set folder with poses and no depth, and the same with true depth beside it."""
    root = tmp_path_factory.mktemp("street")
    write_folder(root / "street", clip, with_depth=False)
    write_folder(root / "truth", clip, with_depth=True)
    return root


def write_folder(root: Path, clip: RoadClip, with_depth: bool) -> None:
    (root / "images").mkdir(parents=True)
    (root / "depth").mkdir()
    frames = []
    for t, (image, w2c) in enumerate(zip(clip.images, clip.w2c, strict=True)):
        picture = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        cv2.imwrite(str(root / f"images/{t:03d}.png"), picture[..., ::-1])
        c2w = torch.linalg.inv(w2c.double()) @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
        frames.append({"file_path": f"images/{t:03d}.png", "time": t, "transform_matrix": c2w.tolist()})
        if with_depth:
            np.save(root / f"depth/{t:03d}.npy", clip.depth[t].numpy())
            frames[-1]["depth_file_path"] = f"depth/{t:03d}.npy"
    K, (height, width) = clip.Ks[0], clip.images.shape[-2:]
    header = {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
    header |= {"w": width, "h": height, "fps": 10, "world_scale": "metric", "frames": frames}
    (root / "transforms.json").write_text(json.dumps(header))


@pytest.fixture
def street(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original / "street", tmp_path / "street")
    return tmp_path / "street"


@pytest.fixture
def run(capsys):
    """Runs the command in this process; returns (exit code, standard output, standard error)."""

    def call(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        threads = torch.get_num_threads()
        try:
            code = dispatch(["depth", *map(str, arguments)])
        finally:
            torch.set_num_threads(threads)
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def trained(original: Path, tmp_path_factory) -> Path:
    """The work dir of a run of a few steps; its network is biased to the scene's depth, but hardly trained."""
    work_dir = tmp_path_factory.mktemp("run") / "out"
    options = [
        "--training.steps",
        "4",
        "--training.checkpoint-every",
        "2",
        "--training.collapse.min-depth-variation",
        "0",
    ]
    command = ["depth", "train", "--data", str(original / "street"), "--work-dir", str(work_dir), *SMALL, *options]
    assert dispatch(command) == 0
    return work_dir


def test_help_answers_at_once_and_without_torch():
    began = time.monotonic()
    code = "import sys; from som.commands.main import dispatch\ntry: dispatch(['depth', 'predict', '--help'])\n"
    code += "except SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0 and b"--budget-s" in done.stdout
    assert time.monotonic() - began < 60  # a hang, not slowness


def test_train_writes_a_run_and_knows_when_it_is_complete(run, original, trained):
    names = sorted(p.name for p in (trained / "checkpoints").iterdir())
    assert names == ["last.ckpt", "step_000002.ckpt", "step_000004.ckpt"]
    assert yaml.safe_load((trained / "config.yaml").read_text())["training"]["steps"] == 4
    again = ["train", "--data", original / "street", "--work-dir", trained, *SMALL, "--training.checkpoint-every", "2"]
    again += ["--training.collapse.min-depth-variation", "0"]
    code, _, error = run(*again, "--training.steps", "4")
    assert code == 0 and "this run is complete (4 steps)" in error
    code, _, error = run(*again, "--training.steps", "5")
    assert code == 2 and "holds a run with other settings (training.steps: 4 -> 5)" in error


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(run, original, tmp_path, monkeypatch):
    from som.commands.depth import train

    def command(name):
        options = ["--training.steps", "4", "--training.log-every", "2", "--training.collapse.min-depth-variation", "0"]
        return ["train", "--data", original / "street", "--work-dir", tmp_path / name, *SMALL, *options]

    assert run(*command("whole"))[0] == 0
    say = train.say
    stop = lambda text: os.kill(os.getpid(), signal.SIGTERM) if text.startswith("step 2/4") else say(text)  # noqa: E731
    monkeypatch.setattr(train, "say", stop)
    code, _, error = run(*command("stopped"))
    assert code == 128 + signal.SIGTERM and "saved after step 2; the same command resumes the run" in error
    monkeypatch.setattr(train, "say", say)
    code, _, error = run(*command("stopped"))
    assert code == 0 and "resuming" in error and "done: 4 steps" in error
    a, b = (torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "stopped"))
    assert all(torch.equal(a["depth_net"][key], b["depth_net"][key]) for key in a["depth_net"])


def test_a_flat_network_is_reported_and_its_depth_not_written(run, original, tmp_path):
    options = [
        "--training.steps",
        "1",
        "--training.learning-rate",
        "1e-9",
        "--training.collapse.min-depth-variation",
        "0.5",
    ]
    work_dir = tmp_path / "flat"
    code, _, error = run("train", "--data", original / "street", "--work-dir", work_dir, *SMALL, *options)
    assert code == 1 and "this network is no result: depth is flat" in error


def test_predict_by_a_trained_network_and_score_it(run, original, trained, tmp_path):
    output = tmp_path / "depth"
    model = ["--model", trained, "--threads", "1"]
    code, _, error = run("predict", "--data", original / "street", "--output", output, *model)
    if "depth is flat" in error:  # which four steps may leave it
        assert code == 1 and not output.exists()
    else:
        assert code == 0 and len(list((output / "depth").iterdir())) == 8
    code, table, _ = run("score", "--data", original / "truth", *model, "--output", tmp_path / "scores")
    assert code == 0 and "| scale none | plain | none |" in table and "| scale median |" in table
    scores = json.loads((tmp_path / "scores/scores.json").read_text())
    assert scores["scale none"]["metrics"]["abs_rel"] > scores["scale median"]["metrics"]["abs_rel"] * 0.5
    assert len(list((tmp_path / "scores/errors").iterdir())) == 8


def test_predict_into_the_data_set_folder_by_sweep_and_its_own_network(run, clip, street):
    code, out, error = run("predict", "--data", street, *CLIP)
    assert code == 0 and "wrote 8 depth maps (metric)" in error and json.loads(out)["units"] == "metric"
    header = json.loads((street / "transforms.json").read_text())
    assert header["depth_kind"] == "metric" and header["source"]["depth"]["method"] == "plane sweep and network"
    sequence = open_sequence(street)
    assert all(sequence.has_depth) and sequence.confidence(0) is not None
    depth, sure = sequence.depth(3)[0], sequence.confidence(3) > 0.5
    sure &= clip.depth[3] > 0
    assert float(((depth - clip.depth[3]).abs() / clip.depth[3])[sure].median()) < 0.03
    code, _, error = run("predict", "--data", street, *CLIP)
    assert code == 2 and "--overwrite" in error


def test_sweep_score_and_fuse(run, original, tmp_path):
    output = tmp_path / "sweep"
    code, out, _ = run("sweep", "--data", original / "street", "--output", output, "--threads", "1")
    assert code == 0 and 0.2 < json.loads(out)["coverage"] < 1
    assert len(list((output / "pictures").iterdir())) == 8
    code, table, _ = run("score", "--data", original / "truth", "--depth", output, "--scales", "none")
    assert code == 0
    abs_rel = float(table.splitlines()[2].split("|")[4])
    assert abs_rel < 0.05
    cloud = tmp_path / "cloud.ply"
    code, _, error = run("fuse", "--data", original / "street", "--depth", output, "--output", cloud)
    assert code == 0 and "points" in error
    assert cloud.read_bytes().startswith(b"ply")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--data", "nowhere"], "nowhere: does not exist"),
        (["predict", "--data", "{images}"], "is no data set folder to write depth into; name a folder with --output"),
        (["predict", "--data", "{images}", "--output", "{tmp}/o"], "intrinsics are not known; give --intrinsics or"),
        (["predict", "--data", "{street}", "--intrinsics", "1", "1", "1", "1"], "brings its own intrinsics"),
        (["predict", "--data", "{street}", "--model", "{tmp}/none.ckpt"], "none.ckpt: no such checkpoint"),
        (["predict", "--data", "{street}", "--road", "r.npz"], "--road and --objects belong together"),
        (["score", "--data", "{street}"], "give --depth with a folder"),
        (["score", "--data", "{truth}", "--depth", "{tmp}"], "depth.json: does not exist"),
        (["sweep", "--data", "{images}", "--fov", "60"], "camera poses are not known"),
        (["fuse", "--data", "{street}"], "has no depth"),
        (["train", "--data", "{images}"], "intrinsics are not known"),
        (["train", "--data", "{street}", "--training.steps", "0"], "steps must be at least 1, got 0"),
        (["predict", "--data", "{street}", "--reader.fps", "-1"], "--reader.fps: must be positive, got -1"),
        (["sweep", "--data", "{street}", "--reader.depth-unit", "0"], "--reader.depth-unit: must be positive, got 0"),
        (["train", "--data", "{street}", "--reader.camera", "2"], "layout native has no option 'camera'"),
        (["train", "--data", "{street}", "--stop", "4"], "--stop: this option is called --end now"),
        (["train", "--data", "{street}", "--training.weights.supervised", "1"], "needs known depth"),
    ],
)
def test_problems_are_one_clear_sentence(run, original, street, tmp_path, arguments, message):
    names = {"images": street / "images", "street": street, "truth": original / "truth", "tmp": tmp_path}
    where = ["--work-dir", tmp_path / "out"] if arguments[0] == "train" else []
    code, _, error = run(*[a.format(**names) for a in arguments], *where)
    assert code == 2 and message in error, error
    assert error.splitlines()[-1].startswith("error: ")
