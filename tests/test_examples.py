"""The scripts in examples/ run as their first lines say."""

import runpy
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest

import som
from som.data.config import DemoData

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run(monkeypatch):
    """Runs an example with the arguments of a command line."""

    def run_example(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run_example


def test_render_from_a_checkpoint(run, work_dir, tmp_path):
    run("01_render_from_a_checkpoint.py", work_dir, tmp_path / "film.mp4", "--frames", 5)
    run("01_render_from_a_checkpoint.py", work_dir, tmp_path / "frozen.mp4", "--frames", 3, "--freeze", 1.5)
    for name, count in (("film", 5), ("frozen", 3)):
        assert iio.imread(tmp_path / f"{name}.mp4").shape == (count, 32, 48, 3)


def test_own_loss(run, folder, preset, tmp_path, capsys):
    run("02_own_loss.py", tmp_path / "out", "--data", folder, "--steps", 4, "--preset", preset)
    out = capsys.readouterr().out
    assert "step 4: PSNR" in out and "faint_foreground 0." in out and "psnr" in out.splitlines()[-1]


def test_own_depth_provider(run, tmp_path, capsys):
    size = {"width": 96, "height": 64, "num_times": 8, "held_out_times": 1, "samples": 1}
    frames = som.load_dataset(DemoData(cache_dir=tmp_path / "cache", **size)).train.images
    (tmp_path / "clip").mkdir()
    for i, image in enumerate(frames):
        iio.imwrite(tmp_path / "clip" / f"{i:03d}.png", image.numpy())
    run("03_own_depth_provider.py", tmp_path / "clip", tmp_path / "data", "--max-side", 96)
    assert "depth: lower is nearer" in capsys.readouterr().out
    data = som.load_dataset(tmp_path / "data")
    assert data.depth_kind == "relative" and (data.train.depths[:, -1] > 0).all()


def test_all_examples_are_short_and_say_how_they_are_called():
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 3
    for script in scripts:
        text = script.read_text()
        assert len(text.splitlines()) <= 60 and f"python examples/{script.name} " in text, script
