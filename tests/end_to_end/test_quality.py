"""Golden thresholds: short runs of the default CPU preset must reach what they are known to reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
YARD = ROOT.parent / "shared" / "data" / "blender_yard"

pytestmark = pytest.mark.slow


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def scores_after(steps: int, work_dir: Path, *data: object) -> dict[str, float]:
    """Trains and scores; returns the summary."""
    options = ["--work-dir", work_dir, "--config", "cpu", "--device", "cpu", "--training.steps", steps]
    run("run_training.py", *options, *data)
    run("run_val.py", "--work-dir", work_dir, "--device", "cpu", "--evaluation.videos.kinds")
    return json.loads((work_dir / "val" / f"step_{steps:06d}" / "metrics.json").read_text())["summary"]


def test_demo(tmp_path):
    scores = scores_after(500, tmp_path, "data:demo")
    assert scores["psnr"] > 27 and scores["psnr_foreground"] > 22.5
    assert scores["mask_iou"] > 0.93 and scores["depth_abs_rel"] < 0.01
    assert scores["tracks_3d_epe_moving"] < 0.05


@pytest.mark.skipif(not YARD.is_dir(), reason="the rendered yard is not here")
def test_yard_keeps_the_ball_whole(tmp_path):
    run("scripts/convert_blender_yard.py", YARD, tmp_path / "yard")
    scores = scores_after(500, tmp_path / "out", "data:custom", "--data.root-dir", tmp_path / "yard")
    assert scores["psnr_covisible"] > 27.5 and scores["psnr_foreground"] > 23.5
    assert scores["mask_iou"] > 0.94 and scores["tracks_3d_epe_moving"] < 0.12
