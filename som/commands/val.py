"""som4d val: scores a trained scene, writes side-by-side images and videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from som.evaluation.config import EvaluationConfig
from som.runs.device import choose_device, set_up_process
from som.runs.work_dir import find_checkpoint
from som.settings.command_line import Command
from som.training.run_config import Data, recorded_run


@dataclass
class ValidationRun:
    """Settings of som4d val."""

    work_dir: Path = Path("out")
    """The run to score."""
    model: str = "last"
    """Which checkpoint: a step, ``last``, or a file."""
    data: Data | None = None
    """The data set to score against; by default the one recorded in the work dir."""
    output: Path | None = None
    """Where the results go; by default <work-dir>/val/step_XXXXXX."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: cuda if there is one."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is scored and written."""


def validate(run: ValidationRun) -> int:
    """Scores a checkpoint and prints the table; returns the exit code.

    Raises:
        UserError: the work dir, the checkpoint, the data set or an option is wrong.
    """
    from som.data.load import load_dataset  # torch and its kin, only after parsing
    from som.evaluation.evaluate import evaluate
    from som.evaluation.report import print_report
    from som.evaluation.videos import render_videos
    from som.runs.progress import shown_messages
    from som.scene.checkpoint import load_checkpoint

    set_up_process(run.threads)
    device = choose_device(run.device)
    checkpoint = load_checkpoint(find_checkpoint(run.work_dir, run.model))
    data = run.data if run.data is not None else recorded_run(run.work_dir).data
    output = run.output or run.work_dir / "val" / f"step_{checkpoint.step:06d}"
    scene = checkpoint.scene.to(device).eval()
    with shown_messages(COMMAND.render) as progress:
        dataset = load_dataset(data)
        report = evaluate(
            scene, dataset, output=output, config=run.evaluation, step=checkpoint.step, progress=progress
        )
        videos = render_videos(scene, dataset, output, run.evaluation, progress)
    print_report(report)
    print(f"images and numbers: {output}")
    for path in videos.values():
        print(f"video: {path}")
    return 0


COMMAND = Command(
    ValidationRun,
    "Score a trained scene on held-out views; write side-by-side images and videos.",
    (
        "work_dir",
        "model",
        "output",
        "device",
        "threads",
        "evaluation.lpips",
        "evaluation.max_views",
        "evaluation.save_images",
        "evaluation.videos.kinds",
        "evaluation.videos.path",
    ),
    validate,
)
