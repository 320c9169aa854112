"""The public interface as a user would write it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import som

ROOT = Path(__file__).parent.parent


def test_load_train_render_evaluate(folder, preset, tmp_path, capfd):
    data = som.load_dataset(str(folder))
    assert isinstance(data, som.VideoDataset) and data.num_times == 4
    steps = []
    run = som.train(
        data, work_dir=tmp_path / "out", steps=4, preset=preset, callback=lambda report: steps.append(report.step)
    )
    assert steps == [2, 4] and run.values["psnr"] > 0 and run.work_dir == tmp_path / "out"

    scene = som.load_scene(tmp_path / "out")
    assert isinstance(scene, som.DynamicScene) and scene.device == run.scene.device
    camera = data.train.cameras[0]
    picture = scene.render(camera, time=1.5, track_times=[0, 3])
    assert isinstance(picture, som.Picture)
    assert picture.rgb.shape == (32, 48, 3) and picture.tracks.shape == (2, 32, 48, 3)
    assert not picture.rgb.requires_grad
    same = run.scene.render(camera, time=1.5)
    assert torch.equal(picture.rgb, same.rgb)

    report = som.evaluate(scene, data, lpips="off", max_views=1)
    assert report.num_views == 1 and report.summary["psnr"] > 0
    assert capfd.readouterr() == ("", ""), "the library prints nothing"


def test_world_cameras_see_what_the_data_set_has(work_dir, folder):
    """World poses, not scene poses: depth comes out in the data set's unit."""
    data, scene = som.load_dataset(folder), som.load_scene(work_dir, device="cpu")
    film = scene.render(data.train.cameras, data.train.times)
    known = (data.train.depths > 0) & (film.alpha > 0.5)
    assert known.float().mean() > 0.5
    ratio = (film.depth[known] / data.train.depths[known]).median()
    assert 0.8 < ratio < 1.25


def test_the_scene_is_found_by_step_and_by_file(work_dir):
    file = work_dir / "checkpoints" / "step_000004.ckpt"
    scenes = [som.load_scene(where) for where in (str(work_dir), file)] + [som.load_scene(work_dir, step=4)]
    for scene in scenes[1:]:
        assert torch.equal(scene.background.means, scenes[0].background.means)
    assert not any(parameter.requires_grad for parameter in scenes[0].parameters())


def test_own_losses_count_and_are_reported(folder, preset, tmp_path):
    def pull(context):
        return context.scene.background.opacities.mean()

    settings = {"steps": 4, "preset": preset, "device": "cpu"}
    data = som.load_dataset(folder)
    plain = som.train(data, work_dir=tmp_path / "a", **settings)
    own = som.train(data, work_dir=tmp_path / "b", **settings, extra_losses={"pull": pull})
    assert 0 < own.values["pull"] < 1 and "pull" not in plain.values
    assert own.scene.background.opacities.mean() < plain.scene.background.opacities.mean()
    with pytest.raises(som.UserError, match="rgb is a name of training's own"):
        som.train(data, work_dir=tmp_path / "c", **settings, extra_losses={"rgb": pull})


def test_what_is_wrong_is_said_in_one_sentence(folder, work_dir, preset, tmp_path):
    data, scene = som.load_dataset(folder), som.load_scene(work_dir)
    camera = som.Camera.from_fov(60, 48, 32)
    wrong = {
        "no such folder": lambda: som.load_dataset(tmp_path / "nothing"),
        "no option max_sid of data sets": lambda: som.load_dataset(folder, max_sid=3),
        "no such work dir": lambda: som.load_scene(tmp_path / "nothing"),
        "has steps 4": lambda: som.load_scene(work_dir, step=3),
        "holds one step": lambda: som.load_scene(work_dir / "checkpoints" / "last.ckpt", step=4),
        "holds no checkpoint": lambda: som.load_scene(tmp_path),
        "no such preset": lambda: som.train(data, work_dir=tmp_path / "x", preset="fastest"),
        "other settings": lambda: som.train(data, work_dir=work_dir, steps=5, preset=preset),
        "`time` must lie between 0 and 3": lambda: scene.render(camera, 4),
        "has 2 frames but the scene 4": lambda: som.evaluate(scene, som.load_dataset(folder, end=2)),
        "named by its folder": lambda: som.load_dataset(3),
        "`device` must be auto, cpu or cuda": lambda: som.load_scene(work_dir, device="tpu"),
        "`dataset` must be what som.load_dataset gives": lambda: som.train(str(folder), work_dir=tmp_path / "x"),
        "is a file; name a folder": lambda: som.evaluate(scene, data, output=work_dir / "config.yaml"),
        "`evaluation.max_views`: must be 0": lambda: som.evaluate(scene, data, max_views=-1),
        "remove its scale": lambda: scene.render(som.Camera(camera.K, 2 * camera.w2c, 48, 32), 0),
        "holds the recording itself": lambda: som.preprocess(tmp_path, tmp_path),
        "`output` is missing": lambda: som.preprocess(tmp_path / "video.mp4"),
    }
    for message, call in wrong.items():
        with pytest.raises(som.UserError, match=message) as error:
            call()
        assert "--" not in str(error.value), "the library does not speak command line"


def test_rasterize_is_the_renderer():
    from som.rendering import rasterize

    assert som.rasterize is rasterize


def test_names_are_there_before_they_are_used():
    assert set(som.__all__) <= set(dir(som)) and {"rendering", "cameras", "losses"} <= set(dir(som))
    for name in som.__all__:
        assert getattr(som, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'rendring'"):
        som.rendring  # noqa: B018


def python(code: str, *options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *options, "-c", code], cwd=cwd, capture_output=True, text=True)


def test_import_is_fast_and_changes_nothing():
    code = """
import os, sys, time
before, began = dict(os.environ), time.perf_counter()
import som
took = time.perf_counter() - began
assert dict(os.environ) == before
assert not {"torch", "numpy", "tyro", "flow"} & set(sys.modules), "loaded too early"
som.rendering, som.cameras  # sub-packages are attributes
print(took)
"""
    runs = [python(code) for _ in range(3)]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert min(float(run.stdout) for run in runs) < 0.3


@pytest.mark.parametrize("hides", ["flow.py", "flow/__init__.py"])
def test_another_module_called_flow_is_named(hides, tmp_path):
    path = tmp_path / hides
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    code = f"import sys; sys.path.append({str(ROOT)!r}); import som"
    run = python(code, cwd=tmp_path)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: som needs its package `flow`") and str(path) in last


def test_type_checkers_see_the_same_names():
    """The imports under TYPE_CHECKING and the table of lazy ones say the same."""
    source = Path(importlib.util.find_spec("som").origin).read_text()
    for name, module in som._MODULES.items():
        assert re.search(rf"    from {re.escape(module)} import .*\b{name}\b", source), name
    assert sorted(som._MODULES) == sorted(som.__all__)
