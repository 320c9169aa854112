"""One scoring run from its options: find the checkpoint and the data set, score, write images and videos, print."""

from __future__ import annotations

import sys
from pathlib import Path

from som.data.load import load_dataset
from som.device import choose_device
from som.errors import UserError
from som.evaluation.evaluate import evaluate_scene
from som.evaluation.report import print_report
from som.evaluation.videos import render_videos
from som.run_config import ValidationRun, recorded_run
from som.scene.checkpoint import checkpoint_path, load_checkpoint


def find_checkpoint(work_dir: Path, model: str) -> Path:
    """The file that ``--model`` means: a step of the run, ``last``, or a path.

    Raises:
        UserError: there is no such checkpoint; names those that exist.
    """
    if model == "last":
        path = checkpoint_path(work_dir)
    elif model.isdigit():
        path = checkpoint_path(work_dir, int(model))
    else:
        path = Path(model)
    if path.is_file():
        return path
    steps = sorted(int(p.stem.removeprefix("step_")) for p in (work_dir / "checkpoints").glob("step_*.ckpt"))
    known = (
        f"the run in {work_dir} has steps {', '.join(map(str, steps))}" if steps else f"{work_dir} holds no checkpoint"
    )
    raise UserError(f"--model {model}: {path} does not exist; {known}.")


class StageProgress:
    """Prints the start of every stage and, on a terminal, how far it is."""

    def __init__(self):
        self.stage, self.live = None, sys.stderr.isatty()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage and not self.live:
            print(f"{stage} ({total})", file=sys.stderr, flush=True)
        self.stage = stage
        if self.live:
            print(f"\r{stage} {done}/{total} ", end="\n" if done >= total else "", file=sys.stderr, flush=True)


def evaluate(run: ValidationRun) -> int:
    """Scores a checkpoint and prints the table; returns the exit code.

    Raises:
        UserError: the work dir, the checkpoint, the data set or an option is wrong.
    """
    device = choose_device(run.device, run.threads)
    checkpoint = load_checkpoint(find_checkpoint(run.work_dir, run.model))
    data = run.data if run.data is not None else recorded_run(run.work_dir).data
    dataset = load_dataset(data)
    if dataset.num_times != checkpoint.scene.num_times:
        raise UserError(
            f"--model {run.model}: the scene has {checkpoint.scene.num_times} times but data set {dataset.name} has "
            f"{dataset.num_times}; score a scene against the data set (and frame range) it was trained on."
        )
    out_dir = run.out_dir or run.work_dir / "val" / f"step_{checkpoint.step:06d}"
    scene, progress = checkpoint.scene.to(device).eval(), StageProgress()
    report = evaluate_scene(scene, dataset, device, out_dir, run.evaluation, progress, checkpoint.step)
    videos = render_videos(scene, dataset, out_dir, run.evaluation, progress)
    print_report(report)
    print(f"images and numbers: {out_dir}")
    for path in videos.values():
        print(f"video: {path}")
    return 0
