"""run_preprocess.py from a folder of images to a data set folder, whole and in pieces."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from som.data.load import read_native
from som.errors import UserError
from som.preprocessing.config import (
    CameraSettings,
    DepthSettings,
    FlowSettings,
    MaskSettings,
    PreprocessRun,
    StageName,
    TrackSettings,
)
from som.preprocessing.pipeline import check_run, preprocess
from som.preprocessing.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]


def options(clip: Path, output: Path, **changes) -> PreprocessRun:
    """Everything small and quick; cameras from the given file where ``changes`` name one."""
    quick = PreprocessRun(
        source=clip,
        output=output,
        flow=FlowSettings(strides=(1, 2, 4)),
        tracks=TrackSettings(num_tracks=300),
        depth=DepthSettings(provider="layout"),
    )
    return replace(quick, **changes)


@pytest.fixture(scope="module")
def true_cameras(clip_truth, tmp_path_factory) -> Path:
    """transforms.json of the true cameras, named as the frames of the clip are."""
    from som.data.folder import write_native

    folder = tmp_path_factory.mktemp("cameras")
    names = [f"{i:05d}" for i in range(len(clip_truth.train))]
    bare = replace(clip_truth.train, names=names, depths=None, foreground=None)
    write_native(replace(clip_truth, train=bare, val=None, tracks=None, ground_truth_tracks=None), folder)
    return folder / "transforms.json"


@pytest.fixture(scope="module")
def made(clip, true_cameras, tmp_path_factory) -> Path:
    """A data set folder made with true cameras, masks from motion and a guessed layout."""
    output = tmp_path_factory.mktemp("made") / "data"
    assert preprocess(options(clip, output, cameras=CameraSettings(given=true_cameras))).ok
    return output


def stages_of(folder: Path) -> dict[str, dict]:
    return {stage["name"]: stage for stage in json.loads((folder / "preprocessing.json").read_text())["stages"]}


NAMES = tuple(stage.name for stage in STAGES)


def test_every_stage_needs_only_earlier_ones():
    assert all(NAMES.index(need) < NAMES.index(stage.name) for stage in STAGES for need in stage.needs)


def test_settings_follow_from_the_stages():
    assert get_args(StageName) == NAMES
    hints = get_type_hints(PreprocessRun)
    assert {stage.name: stage.settings for stage in STAGES if stage.settings} == {
        name: hints[name] for name in NAMES if name in hints
    }


def test_images_become_a_data_set(made, clip_truth):
    dataset = read_native(made)
    truth = clip_truth.train
    assert dataset.num_times == len(dataset.train) == len(truth)
    assert (dataset.train.images == truth.images).all()
    assert dataset.train.cameras.K.numpy() == pytest.approx(truth.cameras.K.numpy(), abs=1e-3)
    assert dataset.tracks is not None and len(dataset.tracks.query_times) > 100
    assert dataset.flow is not None and dataset.flow.strides() == (1, 2, 4)
    assert (dataset.train.depths > 0).all() and dataset.train.depth_confidence.max() <= 0.2 + 1e-3
    found = dataset.train.foreground
    assert (found & truth.foreground).sum() > 0.8 * truth.foreground.sum() and found.float().mean() < 0.4
    assert (made / "report.html").stat().st_size > 10_000
    assert {name: stage["state"] for name, stage in stages_of(made).items()} == dict.fromkeys(NAMES, "done") | {
        "cameras": "given",
        "motion": "skipped",
    }


def test_a_second_call_does_nothing_again(made, clip, true_cameras):
    before = {p: p.stat().st_mtime_ns for p in made.rglob("*") if p.is_file()}
    assert preprocess(options(clip, made, cameras=CameraSettings(given=true_cameras))).ok
    assert {p: p.stat().st_mtime_ns for p in made.rglob("*") if p.is_file()} == before


def test_an_interruption_costs_only_its_stage(made, clip, true_cameras, tmp_path, monkeypatch):
    """Stopped in every stage in turn, the result is that of one call."""
    run = options(clip, tmp_path / "data", cameras=CameraSettings(given=true_cameras))
    calls = []
    for stage in STAGES:

        def stop_once(work, progress, name=stage.name, run_stage=stage.run):
            calls.append(name)
            if calls.count(name) == 1:
                raise KeyboardInterrupt
            return run_stage(work, progress)

        monkeypatch.setattr(stage, "run", stop_once)
    for _ in STAGES:
        with pytest.raises(KeyboardInterrupt):
            preprocess(run)
    assert preprocess(run).ok
    assert [calls.count(name) for name in NAMES] == [2] * len(STAGES)
    one, other = read_native(tmp_path / "data"), read_native(made)
    for part in ("images", "foreground", "depths"):
        assert (getattr(one.train, part) == getattr(other.train, part)).all(), part
    assert (one.train.cameras.w2c == other.train.cameras.w2c).all()
    assert (one.tracks.xy == other.tracks.xy).all()


def test_changed_options_redo_what_depends_on_them(made, clip, true_cameras, tmp_path):
    import shutil

    folder = tmp_path / "data"
    shutil.copytree(made, folder)
    before = stages_of(folder)
    run = options(clip, folder, cameras=CameraSettings(given=true_cameras), tracks=TrackSettings(num_tracks=100))
    assert preprocess(run).ok
    after = stages_of(folder)
    kept = [name for name in NAMES if before[name]["fingerprint"] == after[name]["fingerprint"]]
    assert kept == ["frames", "flow", "motion", "cameras", "masks"]
    assert len(read_native(folder).tracks.query_times) <= 100


def test_skipped_stages_leave_nothing_of_earlier_runs(made, clip, true_cameras, tmp_path):
    import shutil

    folder = tmp_path / "data"
    shutil.copytree(made, folder)
    run = options(clip, folder, cameras=CameraSettings(given=true_cameras), skip=("masks", "tracks", "depth"))
    assert preprocess(run).ok
    dataset = read_native(folder)
    assert dataset.train.foreground is None and dataset.tracks is None and dataset.train.depths is None


def test_given_metric_depth_makes_the_scene_metric(clip_truth, clip, tmp_path):
    """Cameras from the flow have an arbitrary unit; true depth in metres gives them theirs."""
    depth = tmp_path / "depth"
    depth.mkdir()
    for i, z in enumerate(clip_truth.train.depths.numpy()):
        np.save(depth / f"{i:05d}.npy", z)
    focal = float(clip_truth.train.cameras.K[0, 0, 0])
    run = options(
        clip,
        tmp_path / "data",
        cameras=CameraSettings(focal=focal),
        depth=DepthSettings(given=depth, given_kind="metric", given_values="depth"),
    )
    assert preprocess(run).ok
    dataset = read_native(tmp_path / "data")
    assert dataset.world_scale == "metric" and dataset.depth_kind == "metric"
    centers, true = (np.linalg.inv(d.train.cameras.w2c.double().numpy())[:, :3, 3] for d in (dataset, clip_truth))
    path, true_path = (np.linalg.norm(c[-1] - c[0]) for c in (centers, true))
    assert path == pytest.approx(true_path, rel=0.1)
    assert (dataset.train.depths.numpy() == clip_truth.train.depths.numpy()).all()


def test_a_failing_stage_says_why_and_leaves_a_report(clip, tmp_path):
    bad = tmp_path / "cameras.txt"
    bad.write_text("no trajectory\n")
    run = options(clip, tmp_path / "data", cameras=CameraSettings(given=bad, given_kind="tum"))
    with pytest.raises(UserError, match=r"cameras\.txt"):
        preprocess(run)
    assert stages_of(tmp_path / "data")["cameras"]["state"] == "failed"
    assert (tmp_path / "data" / "report.html").is_file()


def test_stopping_after_a_stage(clip, tmp_path):
    assert preprocess(options(clip, tmp_path / "data", stop_after="flow")).ok
    assert list(stages_of(tmp_path / "data")) == ["frames", "flow"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flow": FlowSettings(strides=(2,))}, "`flow.strides`"),
        ({"depth": DepthSettings(max_side=10)}, "`depth.max_side`"),
        ({"depth": DepthSettings(given_unit=-1.0)}, "`depth.given_unit`"),
        ({"threads": -3}, "`threads`"),
        ({"tracks": TrackSettings(foreground_share=2)}, "`tracks.foreground_share`"),
        ({"masks": MaskSettings(given=Path("nowhere"))}, "`masks.given` nowhere"),
        ({"flow": FlowSettings(weights=Path("nowhere.pth"))}, "`flow.weights`"),
        ({"depth": DepthSettings(given=Path("/")), "skip": ("depth",)}, "contradict"),
    ],
)
def test_options_that_cannot_work(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        check_run(options(tmp_path, tmp_path, **changes))


def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "run_preprocess.py", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_command_checks_a_folder(made, tmp_path):
    good = command("check", made)
    assert good.returncode == 0 and "can be used" in good.stdout
    bad = command("check", tmp_path)
    assert bad.returncode == 1 and "1 problem" in bad.stdout


def test_command_refuses_what_is_no_video(tmp_path):
    done = command(tmp_path / "clip.mp4", "--output", tmp_path / "data")
    assert done.returncode == 2 and done.stderr.count("\n") <= 3 and "clip.mp4" in done.stderr


@pytest.mark.slow
def test_demo_from_its_images_alone(tmp_path):
    """Cameras, masks and depth that the command finds in the built-in scene, against the truth."""
    from som.data.config import DemoData
    from som.data.demo import load_demo
    from som.files import write_image
    from som.preprocessing.cameras.alignment import align_cameras, focal_error, trajectory_error

    truth = load_demo(DemoData()).train
    for i, image in enumerate(truth.images.numpy()):
        write_image(tmp_path / "images" / f"{i:03d}.png", image)
    done = command(tmp_path / "images", "--output", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    found = read_native(tmp_path / "data").train
    w2c, true_w2c = found.cameras.w2c.double().numpy(), truth.cameras.w2c.double().numpy()
    assert trajectory_error(w2c, true_w2c).ate_share < 0.015
    assert abs(focal_error(found.cameras.K[0].numpy(), truth.cameras.K[0].numpy())) < 0.04
    both, either = (found.foreground & truth.foreground).sum(), (found.foreground | truth.foreground).sum()
    assert both / either > 0.6
    static = ~truth.foreground & (truth.depths > 0)
    scaled = found.depths * align_cameras(w2c, true_w2c).scale
    assert (scaled / truth.depths.clamp(min=1e-6) - 1).abs()[static].mean() < 0.08
