"""som4d depth score"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from som.commands.depth.common import open_inputs, read_depth_folder, spread
from som.commands.depth.model import LoadedModel, load_model
from som.commands.depth.options import ScoreCommand
from som.data.sequence import DepthSequence
from som.depth.draw import color_depth, color_error, disparity_range, sheet, to_bytes
from som.depth.errors import DepthError
from som.depth.evaluation import DepthEvaluation, markdown_table
from som.depth.learning.multiview import MultiViewNet, predict_views
from som.depth.metrics import average_flipped, resize_by_disparity
from som.depth.records import write_scores
from som.files import write_image
from som.runs.device import choose_device, set_up_process
from som.runs.progress import ProgressLine, say


def score(command: ScoreCommand) -> int:
    """Prints the table, writes JSON and error maps.

    Raises:
        DepthError: something in the options or the data is wrong, or there is nothing to score.
    """
    set_up_process(command.threads)
    device = choose_device(command.device)
    model = load_model(command.model, device)
    if (model is None) == (command.depth is None):
        raise DepthError("give --depth with a folder of depth maps, or a network with --model or --weights.")
    sequences = open_inputs(command.input)
    if command.depth is not None and len(sequences) > 1:
        raise DepthError("--depth belongs to one video; give one with --data.")
    evaluations = {scale: DepthEvaluation(command.protocol, scale, "skip") for scale in command.scales}
    known = sum(sum(sequence.has_depth) for sequence in sequences)
    shown = set(spread(known, command.pictures))
    number = 0
    for sequence in sequences:
        for t, predicted in _predictions(command, model, sequence, device):
            target = sequence.depth(t)[0]
            valid = _static(sequence, t, target.shape) if command.static_only else None
            for evaluation in evaluations.values():
                evaluation.add(predicted, target, valid, f"{sequence.name}/{sequence.names[t]}")
            if command.output is not None and number in shown:
                picture = _picture(sequence, t, predicted, target, valid)
                write_image(command.output / "errors" / f"{number:05d}.png", picture)
            number += 1
    reports = {f"scale {scale}": evaluation.report() for scale, evaluation in evaluations.items()}
    print(markdown_table(reports), end="")
    skipped = next(iter(reports.values())).skipped
    if skipped:
        say(f"note: {len(skipped)} of {number} images have nothing to score")
    if command.output is not None:
        write_scores(command.output / "scores.json", reports)
        write_scores(command.output / "scores.md", reports)
        say(f"wrote scores and {len(shown)} error maps to {command.output}")
    return 0


def _predictions(
    command: ScoreCommand, model: LoadedModel | None, sequence: DepthSequence, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Frames with true depth, and the depth predicted for each at its own size."""
    frames = [t for t, known in enumerate(sequence.has_depth) if known]
    if not frames:
        raise DepthError(f"{sequence.name}: has no true depth to score against.")
    if command.depth is not None:
        depths, _ = read_depth_folder(command.depth, [sequence.names[t] for t in frames])
        yield from zip(frames, map(torch.from_numpy, depths), strict=True)
        return
    assert model is not None  # one of the two is given
    resized = sequence.resized(model.size)
    if isinstance(model.net, MultiViewNet):
        if command.flip:
            raise DepthError("--flip: a multi-view network takes no mirrored images; leave it out.")
        found = predict_views(model.net, resized, model.views, model.scene_range, device, ProgressLine())
        yield from ((t, found.depth[t] * model.scale) for t in frames)
        return
    for t in frames:
        with torch.no_grad():
            image = resized.image(t)[None].to(device)
            disparity = model.net(image).disparities[0][0, 0]
            if command.flip:
                disparity = average_flipped(disparity, model.net(image.flip(-1)).disparities[0][0, 0])
        yield t, (model.scale / disparity).cpu()


def _static(sequence: DepthSequence, t: int, size: torch.Size) -> Tensor | None:
    """Pixels that do not move, at the size of the true depth."""
    moving = sequence.moving(t)
    if moving is None:
        raise DepthError(f"--static-only: {sequence.name} has no masks of what moves.")
    resized = torch.nn.functional.interpolate(moving[None, None].float(), tuple(size), mode="nearest-exact")
    return resized[0, 0] < 0.5


def _picture(sequence: DepthSequence, t: int, predicted: Tensor, target: Tensor, valid: Tensor | None) -> np.ndarray:
    """Image, prediction, truth, and error after median scaling, side by side."""
    at_truth = resize_by_disparity(predicted[None], *target.shape)[0]
    both = (at_truth > 0) & (target > 0)
    ratio = float(target[both].median() / at_truth[both].median()) if bool(both.any()) else 1.0
    sparse = 3 if float((target > 0).float().mean()) < 0.2 else 1
    near_far = disparity_range(target)
    row = [
        to_bytes(sequence.image(t)),
        color_depth(at_truth * ratio, near_far),
        color_depth(target, near_far, point_size=sparse),
        color_error(at_truth * ratio, target, valid, point_size=sparse),
    ]
    return sheet([row], labels=("image", "prediction", "truth", "error to 30 %"), height=max(sequence.size[0], 144))
