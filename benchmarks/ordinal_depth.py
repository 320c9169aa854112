"""Does supervising depth by order and correlation help where the depth prior is wrong? The ablation of these losses.

Scenes with exact ground truth are optimised from depth priors that were broken on purpose, once per loss (a preset of
configs/ablation), prior and seed, with equal steps. What is finished is kept: the same command goes on where it ended.
Writes results.json, table.md and plots to --out.

    python benchmarks/ordinal_depth.py --out out/ordinal_depth
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
YARD = ROOT.parent / "shared" / "data" / "blender_yard"
ROWS = (
    *("no_depth", "disparity_l1", "disparity_l1_aligned", "disparity_l1_strong", "pearson", "pearson_patch"),
    *("ordinal_tanh", "ordinal_hinge", "ordinal_logistic", "cross_frame", "order", "pearson_order", "ordinal"),
)
"""Presets of configs/ablation, and configs/ordinal.yaml, which is what the program does by itself. ``disparity_l1``
sees the prior as it is, all others see it aligned to the cameras, as ``disparity_l1_aligned`` does."""
PRIORS = ("exact", "scale", "scale_shift", "monotone", "monocular")
COLUMNS = {
    "psnr_covisible": ("PSNR", "{:.2f}"),
    "psnr": ("PSNR whole", "{:.2f}"),
    "psnr_foreground": ("PSNR fg", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "depth_abs_rel_scaled": ("depth err. %", "{:.2f}"),
    "discordance": ("discord. %", "{:.2f}"),
    "flicker": ("flicker %", "{:.2f}"),
    "floaters": ("floaters %", "{:.2f}"),
    "tracks_3d_epe_moving": ("3D tracks", "{:.3f}"),
}
PERCENT = ("depth_abs_rel_scaled", "discordance", "flicker", "floaters")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/ordinal_depth"), help="results; reused if it exists")
    parser.add_argument("--scenes", nargs="+", choices=("demo", "yard"), default=["demo", "yard"])
    parser.add_argument("--yard", type=Path, default=YARD, help="folder of blender_yard; skipped where it is absent")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="presets of configs/ablation")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--max-side", type=int, default=256, help="longer side of the images")
    parser.add_argument("--gaussians", type=int, nargs=2, default=[5000, 15000], help="foreground and background")
    parser.add_argument("--start-from", choices=("aligned", "prior"), default="aligned",
                        help="depth that the first scene is built from")  # fmt: skip
    parser.add_argument("--align", choices=("scale", "scale_shift", "monotone"), default="monotone",
                        help="how broken priors are brought to the cameras")  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at the same time, one thread each")
    return parser.parse_args()


def settings_of(arguments: argparse.Namespace) -> dict:
    """Everything that a cell's numbers depend on, besides its scene, prior, row and seed."""
    return {name: getattr(arguments, name) for name in ("steps", "max_side", "gaussians", "start_from", "align")}


def load_scene(name: str, out: Path, yard: Path, max_side: int):
    """The data set with exact depth, or None where it cannot be had."""
    from som.data.config import DemoData
    from som.data.load import load_dataset, read_native

    if name == "demo":
        return load_dataset(DemoData(max_side=max_side))
    folder = out / "yard"
    if not (folder / "transforms.json").is_file():
        if not yard.is_dir():
            return None
        command = [sys.executable, str(ROOT / "scripts" / "convert_blender_yard.py"), str(yard), str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read_native(folder, max_side)


def run_group(scene: str, prior: str, seed: int, rows: list[str], arguments: argparse.Namespace) -> list[dict]:
    """All rows of one scene, prior and seed: they share the broken prior, its alignment and the first scene."""
    from dataclasses import replace

    import torch
    from broken_priors import PRIORS as BREAK

    from som.correspondence import FlowConfig, link_pixel_pairs, link_static_points, training_flow
    from som.initialization import InitializationConfig, initialize_scene
    from som.initialization.depth_alignment import align_depth, with_aligned_depth

    torch.set_num_threads(1)
    truth = load_scene(scene, arguments.out, arguments.yard, arguments.max_side)
    depths = BREAK[prior](truth.train.depths, torch.Generator().manual_seed(100 + seed))
    broken = replace(truth, train=replace(truth.train, depths=depths), depth_kind="relative")
    flow, _ = training_flow(broken, FlowConfig())
    links = link_static_points(broken.train, flow, generator=torch.Generator().manual_seed(seed))
    alignment = align_depth(broken.train, links, arguments.align)
    aligned = broken if prior == "exact" else with_aligned_depth(broken, alignment)
    pairs = link_pixel_pairs(aligned.train, flow)
    config = InitializationConfig(num_foreground=arguments.gaussians[0], num_background=arguments.gaussians[1])
    first = initialize_scene(aligned if arguments.start_from == "aligned" else broken, config, seed)
    results = []
    for row in rows:
        dataset = broken if row == "disparity_l1" else aligned
        cell = {"scene": scene, "prior": prior, "row": row, "seed": seed, "settings": settings_of(arguments)}
        cell["scores"] = train_and_score(first, dataset, truth, pairs, row, seed, arguments)
        cell_path(arguments.out, scene, prior, row, seed).write_text(json.dumps(cell, indent=1))
        results.append(cell)
    return results


def train_and_score(first, dataset, truth, pairs, row: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Optimises a copy of the first scene by one row's losses and scores it against the truth."""
    import tempfile

    import torch
    from scene_scores import depth_flicker, floater_share

    from som.data.config import DemoData
    from som.evaluation.config import EvaluationConfig
    from som.evaluation.evaluate import evaluate
    from som.settings.plain import merge, read_settings
    from som.training.config import TrainingConfig
    from som.training.density import AdaptiveDensity
    from som.training.run_config import TrainingRun
    from som.training.trainer import Trainer

    foreground, background = arguments.gaussians
    base = TrainingConfig(
        steps=arguments.steps,
        batch_size=3,
        track_targets=2,
        tracks_per_view=1024,
        density=AdaptiveDensity(max_foreground=foreground, max_background=background),
    )
    run = TrainingRun(data=DemoData(), training=base)
    name = "ordinal" if row == "ordinal" else f"ablation/{row.removesuffix('_aligned')}"
    preset = ROOT / "configs" / f"{name}.yaml"
    run = merge(run, read_settings(preset), str(preset))
    with tempfile.TemporaryDirectory() as work_dir:
        scene = type(first).from_state(first.state())
        options = dict(device=torch.device("cpu"), seed=seed, links=pairs)
        trainer = Trainer(scene, dataset, run.training, Path(work_dir), **options)
        while trainer.step < trainer.total_steps:
            trainer.train_step()
    scores = evaluate(scene, truth, config=EvaluationConfig(lpips="off", save_images=False)).summary
    scores["discordance"] = scores["depth_discordance"]
    scores["flicker"] = depth_flicker(scene, truth)
    scores["floaters"] = floater_share(scene, truth.val)
    return {name: scores[name] for name in scores if name in COLUMNS or name.startswith(("psnr", "ssim", "depth"))}


def cell_path(out: Path, scene: str, prior: str, row: str, seed: int) -> Path:
    return out / "cells" / f"{scene}-{prior}-{row}-{seed}.json"


def finished(arguments: argparse.Namespace, scene: str, prior: str, row: str, seed: int) -> dict | None:
    """The cell's result, if it was made with these settings."""
    path = cell_path(arguments.out, scene, prior, row, seed)
    if not path.is_file():
        return None
    try:
        cell = json.loads(path.read_text())
    except ValueError:  # written when the run was cut off
        return None
    return cell if cell["settings"] == settings_of(arguments) else None


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0
    return mean, spread


def write_table(cells: list[dict], arguments: argparse.Namespace) -> str:
    """A Markdown table per scene and prior: mean +- standard deviation over the seeds."""
    lines = []
    for scene in arguments.scenes:
        for prior in arguments.priors:
            block = [c for c in cells if c["scene"] == scene and c["prior"] == prior]
            if not block:
                continue
            seeds = len({c["seed"] for c in block})
            lines += [f"\n**{scene}, prior: {prior}** ({seeds} seeds)\n"]
            lines += ["| loss | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
            lines += ["|---|" + "---|" * len(COLUMNS)]
            for row in arguments.rows:
                scores = [c["scores"] for c in block if c["row"] == row]
                if not scores:
                    continue
                texts = []
                for name, (_, form) in COLUMNS.items():
                    factor = 100 if name in PERCENT else 1
                    mean, spread = mean_and_spread([factor * s[name] for s in scores])
                    texts.append(form.format(mean) + (f" ± {form.format(spread)}" if len(scores) > 1 else ""))
                fewer = f" ({len(scores)} of {seeds} seeds)" if len(scores) < seeds else ""
                lines.append(f"| {row}{fewer} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def write_summary(cells: list[dict], arguments: argparse.Namespace) -> str:
    """What the default changes against the better of no depth loss and L1 on the prior as it is, seed by seed."""
    lines = ["\n**`ordinal` against the better of `no_depth` and `disparity_l1`, score by score**\n"]
    lines += ["| scene | prior | depth error % | PSNR, dB | whole, dB | foreground, dB | discordance % | flicker % |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    by_key = {(c["scene"], c["prior"], c["seed"], c["row"]): c["scores"] for c in cells}
    for scene in arguments.scenes:
        for prior in arguments.priors:
            changes = []
            for seed in arguments.seeds:
                found = [by_key.get((scene, prior, seed, row)) for row in ("ordinal", "no_depth", "disparity_l1")]
                if all(found):
                    changes.append(changes_of(*found))
            if changes:
                columns = [mean_and_spread(list(values)) for values in zip(*changes, strict=True)]
                digits = (0, 2, 2, 2, 0, 0)
                texts = [f"{mean:+.{n}f} ± {spread:.{n}f}" for (mean, spread), n in zip(columns, digits, strict=True)]
                lines.append(f"| {scene} | {prior} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def changes_of(ours: dict, *others: dict) -> list[float]:
    """Relative changes in per cent of what should fall, differences of what should rise."""

    def relative(name: str) -> float:
        return 100 * (ours[name] / min(other[name] for other in others) - 1)

    def difference(name: str) -> float:
        return ours[name] - max(other[name] for other in others)

    falling = [relative(name) for name in ("depth_abs_rel_scaled", "discordance", "flicker")]
    rising = [difference(name) for name in ("psnr_covisible", "psnr", "psnr_foreground")]
    return [falling[0], *rising, *falling[1:]]


def write_plots(cells: list[dict], arguments: argparse.Namespace) -> None:
    """Depth error and PSNR per row, one panel per prior, one picture per scene."""
    try:
        import matplotlib
    except ImportError:
        print('matplotlib is not installed, so there are no plots (pip install -e ".[benchmarks]")', file=sys.stderr)
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = {"depth_abs_rel_scaled": "depth error, %", "psnr_covisible": "PSNR, dB"}
    for scene in arguments.scenes:
        figure, axes = plt.subplots(2, len(arguments.priors), figsize=(3.2 * len(arguments.priors), 7), squeeze=False)
        for column, prior in enumerate(arguments.priors):
            block = [c for c in cells if c["scene"] == scene and c["prior"] == prior]
            for axis, (name, title) in zip(axes[:, column], shown.items(), strict=True):
                plot_rows(axis, block, name, arguments.rows, show_names=column == 0)
                axis.set_title(f"{prior}: {title}", fontsize=9)
        figure.tight_layout()
        figure.savefig(arguments.out / f"{scene}.png", dpi=90)
        plt.close(figure)


def plot_rows(axis, cells: list[dict], name: str, rows: list[str], show_names: bool) -> None:
    """Mean and standard deviation of one score, a line per row."""
    for place, row in enumerate(rows):
        scores = [c["scores"][name] * (100 if name in PERCENT else 1) for c in cells if c["row"] == row]
        if scores:
            mean, spread = mean_and_spread(scores)
            axis.errorbar(mean, -place, xerr=spread, fmt="o", color="tab:red" if row == "ordinal" else "tab:blue")
    axis.set_yticks([-i for i in range(len(rows))], rows if show_names else [""] * len(rows), fontsize=8)
    axis.grid(alpha=0.3)


def main() -> None:
    arguments = parse_arguments()
    (arguments.out / "cells").mkdir(parents=True, exist_ok=True)
    scenes = []
    for scene in arguments.scenes:
        if load_scene(scene, arguments.out, arguments.yard, arguments.max_side) is not None:
            scenes.append(scene)
        else:
            print(f"{scene}: no data at {arguments.yard}, left out", file=sys.stderr)
    jobs, cells = [], []
    for seed in arguments.seeds:
        for scene in scenes:
            for prior in arguments.priors:
                found = {row: finished(arguments, scene, prior, row, seed) for row in arguments.rows}
                cells += [cell for cell in found.values() if cell is not None]
                missing = [row for row, cell in found.items() if cell is None]
                if missing:
                    jobs.append((scene, prior, seed, missing, arguments))
    # one thread each, also in the libraries that read these when they are loaded
    os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    if jobs:
        with ProcessPoolExecutor(arguments.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            running = {pool.submit(run_group, *job): job for job in jobs}
            for done, job in enumerate(as_completed(running), 1):
                cells += job.result()
                print(f"{done} of {len(jobs)}: {' '.join(map(str, running[job][:3]))}", file=sys.stderr, flush=True)
    (arguments.out / "results.json").write_text(json.dumps(cells, indent=1))
    table = write_summary(cells, arguments) + write_table(cells, arguments)
    (arguments.out / "table.md").write_text(table)
    print(table)
    write_plots(cells, arguments)


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
