"""Is depth that the program predicts by itself good enough for the 4D scene?

The demo scene is optimised from true depth, from depth that depth/ predicts from the images and cameras, and from none,
with equal steps; held-out views are scored side by side. What is finished is kept: the same command goes on where it
ended. Writes table.md and results.json to --out.

    python benchmarks/predicted_depth.py --out out/predicted_depth
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = {
    "true depth": ("true", "auto"),
    "predicted, correlation and order": ("predicted", "auto"),
    "predicted, L1 on disparity alone": ("predicted", "auto,ablation/disparity_l1"),
    "predicted for the start, no depth loss": ("predicted", "auto,ablation/no_depth"),
    "none: starts from a flat wall, no depth loss": ("wall", "auto,ablation/no_depth"),
}
"""Row of the table: which depth the data set holds, and the preset."""
COLUMNS = {
    "psnr": "{:.2f}",
    "psnr_foreground": "{:.2f}",
    "ssim": "{:.3f}",
    "depth_abs_rel": "{:.4f}",
    "depth_abs_rel_scaled": "{:.4f}",
    "mask_iou": "{:.3f}",
    "tracks_3d_epe_moving": "{:.3f}",
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/predicted_depth"), help="results; reused if it exists")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=0, help="of each run; 0: as many as torch takes")
    return parser.parse_args()


def make_folders(out: Path) -> None:
    """Writes the demo with its true depth, with predicted depth, and with one depth for every pixel."""
    from som.data.config import DemoData
    from som.data.folder import write_native
    from som.data.load import load_dataset
    from som.depth.records import write_depth_prior

    dataset = load_dataset(DemoData())
    for name in ("true", "predicted", "wall"):
        folder = out / name
        if (folder / "complete").is_file():
            continue
        write_native(dataset, folder)
        if name == "predicted":
            run("run_depth.py", "predict", "--data", folder, "--overwrite", "True")
        elif name == "wall":
            depths = dataset.train.depths
            wall = depths.new_full(depths.shape, float(depths[depths > 0].median()))
            write_depth_prior(folder, wall, None, "metric", "median of the true depth", overwrite=True)
        (folder / "complete").touch()


def run(script: str, *arguments: object) -> None:
    """One of the program's commands; stops with its exit code if it fails."""
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def score(out: Path, depth: str, preset: str, seed: int, steps: int, threads: int) -> dict:
    """The metrics of one run over the held-out views."""
    work_dir = out / "runs" / f"{depth}_{preset.replace('/', '_').replace(',', '_')}_{steps}_{seed}"
    results = work_dir / "val" / f"step_{steps:06d}" / "metrics.json"
    if not results.is_file():
        data = ("data:custom", "--data.root-dir", out / depth)
        common = ("--work-dir", work_dir, "--threads", threads)
        run("run_training.py", *common, "--seed", seed, "--config", preset, "--training.steps", steps, *data)
        # scored against the true depth, whatever the run was given
        truth = ("data:custom", "--data.root-dir", out / "true")
        run("run_val.py", *common, "--model", steps, "--evaluation.videos.kinds", "--evaluation.lpips", "off", *truth)
    return json.loads(results.read_text())["summary"]


def table(results: dict[str, list[dict]]) -> str:
    """Markdown: mean over the seeds."""
    lines = ["| depth, losses | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row, scores in results.items():
        cells = []
        for column, form in COLUMNS.items():
            values = [s[column] for s in scores if s.get(column) is not None]
            cells.append(form.format(sum(values) / len(values)) if values else "-")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    arguments = parse_arguments()
    arguments.out = arguments.out.resolve()
    make_folders(arguments.out)
    results: dict[str, list[dict]] = {}
    for seed in arguments.seeds:
        for row, (depth, preset) in ROWS.items():
            scores = score(arguments.out, depth, preset, seed, arguments.steps, arguments.threads)
            results.setdefault(row, []).append(scores)
            (arguments.out / "results.json").write_text(json.dumps(results, indent=1))
            (arguments.out / "table.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
