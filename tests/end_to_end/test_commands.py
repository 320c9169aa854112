"""The real commands, as a user types them, on a small demo scene."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "data:demo --data.width 96 --data.height 54 --data.num-times 8 --data.held-out-times 2 --data.samples 1"
).split()
FAST = (
    "--device cpu --initialization.num-foreground 600 --initialization.num-background 2000 "
    "--training.steps 60 --training.batch-size 2 --training.log-every 10 --training.checkpoint-every 20 "
    "--training.tracks-per-view 128 --training.validations 1"
).split()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The demo's cache goes to a folder of the test run."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def command(environment):
    def run(script: str, *arguments: str, cwd: Path = ROOT, timeout: float = 240) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, arguments)],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory) -> Path:
    """A finished run: the folder that contains its work dir ``out``."""
    folder = tmp_path_factory.mktemp("run")
    done = command("run_training.py", "--work-dir", "out", *FAST, *TINY, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "step 60/60" in done.stderr and "PSNR" in done.stderr and "left" in done.stderr
    return folder


def test_work_dir_holds_what_is_promised(trained):
    out = trained / "out"
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "last.ckpt", "step_000020.ckpt", "step_000040.ckpt", "step_000060.ckpt"
    ]  # fmt: skip
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    train = [e for e in entries if e["kind"] == "train"]
    assert train[-1]["psnr"] > train[0]["psnr"] + 1
    assert (out / "config.yaml").is_file() and list((out / "logs").iterdir())


def test_scores_by_step_and_last_without_any_other_option(trained, command):
    done = command("run_val.py", "--model", "60", cwd=trained)
    assert done.returncode == 0, done.stderr
    results = trained / "out" / "val" / "step_000060"
    first = json.loads((results / "metrics.json").read_text())
    assert "PSNR" in done.stdout and str(Path("out/val/step_000060")) in done.stdout
    again = command("run_val.py", "--model", "last", "--evaluation.videos.kinds", cwd=trained)
    assert again.returncode == 0, again.stderr
    assert json.loads((results / "metrics.json").read_text())["summary"] == first["summary"]
    assert first["step"] == 60 and first["summary"]["psnr"] > 15 and "psnr_foreground" in first["summary"]
    for kind in ("train_view", "novel_view", "novel_view_depth", "tracks"):
        frames = iio.imread(results / f"{kind}.mp4")
        assert len(frames) == 8 and frames.std() > 5
    assert len(list((results / "side_by_side").glob("*.png"))) == 4


def test_scores_with_the_data_set_given(trained, command):
    options = ["--work-dir", "out", "--model", "60", "--output", "elsewhere", "--evaluation.videos.kinds"]
    done = command("run_val.py", *options, *TINY, "--data.is-train", "False", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert (trained / "elsewhere" / "metrics.json").is_file()


def test_finished_run_is_not_touched_and_other_settings_are_refused(trained, command):
    before = (trained / "out" / "checkpoints" / "last.ckpt").read_bytes()
    done = command("run_training.py", "--work-dir", "out", *FAST, *TINY, cwd=trained)
    assert done.returncode == 0 and "complete" in done.stderr
    other = command("run_training.py", "--work-dir", "out", "--seed", "4", *FAST, *TINY, cwd=trained)
    assert other.returncode == 2 and "seed: 0 -> 4" in other.stderr
    assert (trained / "out" / "checkpoints" / "last.ckpt").read_bytes() == before


def start(environment, folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_training.py"), *arguments],
        cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_and_resumed_ends_like_the_undisturbed_run(trained, environment, command, tmp_path, number):
    arguments = ["--work-dir", "out", *FAST, *TINY]
    process = start(environment, tmp_path, *arguments)
    wait_for(tmp_path / "out" / "checkpoints" / "step_000020.ckpt", process)
    process.send_signal(number)
    process.wait(60)
    stopped_at = load(tmp_path / "out" / "checkpoints" / "last.ckpt")["step"]
    if number == signal.SIGINT:
        assert process.returncode == 130 and f"saved after step {stopped_at}" in process.stderr.read()
    assert 20 <= stopped_at < 60
    done = command("run_training.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0 and f"after step {stopped_at}" in done.stderr, done.stderr
    a, b = (load(f / "out" / "checkpoints" / "last.ckpt")["scene"] for f in (trained, tmp_path))
    for part in ("foreground", "background", "motion_bases"):
        for name in a[part]:
            assert torch.equal(a[part][name], b[part][name]), (part, name)


@pytest.fixture(scope="module")
def native(trained, environment) -> Path:
    """The demo's own data set folder."""
    folders = [p.parent for p in Path(environment["XDG_CACHE_HOME"]).rglob("transforms.json")]
    assert len(folders) == 1
    return folders[0]


def _edit_json(folder: Path, change) -> None:
    path = folder / "transforms.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _first(folder: Path, kind: str) -> Path:
    return sorted((folder / kind).iterdir())[0]


def _wrong_size(path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, np.load(path)[:-3])
    else:
        iio.imwrite(path, iio.imread(path)[:-3])


BREAK = {
    "missing folder": lambda d: shutil.rmtree(d),
    "mask of wrong size": lambda d: _wrong_size(_first(d, "foreground")),
    "NaN pose": lambda d: _edit_json(
        d, lambda c: c["frames"][0]["transform_matrix"][0].__setitem__(3, float("nan"))
    ),
    "truncated image": lambda d: _first(d, "images").write_bytes(_first(d, "images").read_bytes()[:200]),
    "empty tracks": lambda d: np.savez(
        d / "tracks.npz", query_frame=np.zeros(0, int), xy=np.zeros((0, 8, 2), np.float32),
        visible=np.zeros((0, 8), bool), confidence=np.zeros((0, 8), np.float32),
    ),
    "zero frames": lambda d: _edit_json(d, lambda c: c.__setitem__("frames", [])),
    "one frame": lambda d: _edit_json(d, lambda c: c.__setitem__("frames", c["frames"][:1])),
    "depth of another size": lambda d: _wrong_size(_first(d, "depth")),
    "broken json": lambda d: (d / "transforms.json").write_text("{"),
}  # fmt: skip


def assert_one_clear_error(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and "error: " in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("what", BREAK)
def test_broken_data_sets_give_a_clear_error(what, native, command, tmp_path):
    folder = tmp_path / "scene"
    shutil.copytree(native, folder)
    BREAK[what](folder)
    options = ["data:custom", "--data.seq-name", "scene", "--data.root-dir", str(folder)]
    done = command("run_training.py", "--work-dir", "w", *FAST, *options, cwd=tmp_path)
    assert_one_clear_error(done, "scene")
    assert not (tmp_path / "w").exists()


def test_wrong_models_give_a_clear_error(trained, command, tmp_path):
    assert_one_clear_error(command("run_val.py", "--model", "7", cwd=trained), "--model 7", "20, 40, 60")
    assert_one_clear_error(command("run_val.py", "--model", "nothing.ckpt", cwd=trained), "nothing.ckpt")
    assert_one_clear_error(command("run_val.py", cwd=tmp_path), "out holds no checkpoint")
    corrupt = tmp_path / "corrupt.ckpt"
    corrupt.write_bytes((trained / "out" / "checkpoints" / "last.ckpt").read_bytes()[:5000])
    assert_one_clear_error(command("run_val.py", "--model", corrupt, cwd=trained), "corrupt.ckpt")


def test_overwriting_with_a_wrong_data_set_loses_nothing(trained, command, tmp_path):
    shutil.copytree(trained / "out", tmp_path / "out")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    options = ["--overwrite", "True", *FAST, "data:custom", "--data.seq-name", "mistyped"]
    done = command("run_training.py", "--work-dir", "out", *options, cwd=tmp_path)
    assert_one_clear_error(done, "mistyped")
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


def test_corrupt_last_checkpoint_stops_a_resume(trained, command, tmp_path):
    shutil.copytree(trained / "out", tmp_path / "out")
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[:5000])
    done = command("run_training.py", "--work-dir", "out", *FAST, *TINY, cwd=tmp_path)
    assert_one_clear_error(done, "last.ckpt", "damaged")


def test_options_that_cannot_be_met(command, tmp_path):
    for options, words in (
        (["--threads", "-1"], "--threads"),
        (["--training.steps", "0"], "--training.steps"),
        (["--config", "nonsense"], "cpu, ordinal, quality"),
    ):
        assert_one_clear_error(
            command("run_training.py", "--work-dir", "w", *FAST, *options, *TINY, cwd=tmp_path), words
        )
    if not torch.cuda.is_available():
        done = command("run_training.py", "--work-dir", "w", "--device", "cuda", *TINY, cwd=tmp_path)
        assert_one_clear_error(done, "--device cuda")
    assert command("run_training.py", cwd=tmp_path).returncode == 2
    assert not (tmp_path / "w").exists()


def test_work_dir_that_is_a_file(command, tmp_path):
    (tmp_path / "w").write_text("")
    assert_one_clear_error(command("run_training.py", "--work-dir", "w", *FAST, *TINY, cwd=tmp_path), "--work-dir")


def test_relative_depth_is_aligned_and_ordered(native, command, tmp_path):
    """Every frame's prior has a scale of its own; flow brings it to the cameras and links the pairs that order it."""
    folder = tmp_path / "scene"
    shutil.copytree(native, folder)
    content = json.loads((folder / "transforms.json").read_text())
    for i, entry in enumerate(e for e in content["frames"] if e["split"] == "train"):
        path = folder / entry["depth_file_path"]
        np.save(path, np.load(path) * np.float32(1 + i % 3))
    content["depth_kind"] = "relative"
    (folder / "transforms.json").write_text(json.dumps(content))
    options = ["--config", "auto,ablation/pearson_order", "--training.depth-order.pairs", "512"]
    data = ["data:custom", "--data.seq-name", "scene", "--data.root-dir", str(folder)]
    done = command("run_training.py", "--work-dir", "out", *FAST, *options, *data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "method dis" not in done.stderr and "optical flow between training views: dis" in done.stderr
    aligned = float(done.stderr.split("depths of linked frames ")[1].split(" %")[0])
    assert aligned < 5  # they were up to 3 times apart
    entries = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    last = [e for e in entries if e["kind"] == "train"][-1]
    assert {"pearson", "pearson_patch", "ordinal", "order_across_frames"} <= last.keys()
    assert last["discordance"] < 0.2
    assert (tmp_path / "out" / "flow" / "flow.json").is_file()
    left = command("run_training.py", "--work-dir", "raw", "--align-depth", "no", *FAST, *data, cwd=tmp_path)
    assert left.returncode == 0 and "used as it is" in left.stderr
