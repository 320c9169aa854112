"""One scoring run from its options: find the checkpoint and the data set, score, write images and videos, print."""

from __future__ import annotations

from som.data.load import load_dataset
from som.errors import UserError
from som.evaluation.evaluate import evaluate_scene
from som.evaluation.report import print_report
from som.evaluation.videos import render_videos
from som.run_config import ValidationRun, recorded_run
from som.runs.device import choose_device, set_up_process
from som.runs.progress import ProgressLine
from som.runs.work_dir import find_checkpoint
from som.scene.checkpoint import load_checkpoint


def evaluate(run: ValidationRun) -> int:
    """Scores a checkpoint and prints the table; returns the exit code.

    Raises:
        UserError: the work dir, the checkpoint, the data set or an option is wrong.
    """
    set_up_process(run.threads)
    device = choose_device(run.device)
    checkpoint = load_checkpoint(find_checkpoint(run.work_dir, run.model))
    data = run.data if run.data is not None else recorded_run(run.work_dir).data
    dataset = load_dataset(data)
    if dataset.num_times != checkpoint.scene.num_times:
        raise UserError(
            f"--model {run.model}: the scene has {checkpoint.scene.num_times} times but data set {dataset.name} has "
            f"{dataset.num_times}; score a scene against the data set (and frame range) it was trained on."
        )
    out_dir = run.out_dir or run.work_dir / "val" / f"step_{checkpoint.step:06d}"
    scene = checkpoint.scene.to(device).eval()
    with ProgressLine() as progress:
        report = evaluate_scene(scene, dataset, device, out_dir, run.evaluation, progress, checkpoint.step)
        videos = render_videos(scene, dataset, out_dir, run.evaluation, progress)
    print_report(report)
    print(f"images and numbers: {out_dir}")
    for path in videos.values():
        print(f"video: {path}")
    return 0
