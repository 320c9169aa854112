"""The main job on real recordings, from the images alone: preprocessing, training, left-out frames, a novel view.

Every 8th frame is left out of training and scored. What is finished is kept: the same command goes on where it ended.
Writes table.md, results.json and one side-by-side picture per clip to --out.

    python benchmarks/casual_clips.py --out out/casual_clips
    python benchmarks/casual_clips.py --clips my_dog=clips/dog.mp4 --out out/casual_clips
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from som.files import read_mask

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
CLIPS = {
    "shiba": "casual_shiba/images",
    "lady_running": "casual_lady_running/images",
    "train": "casual_train/images",
    "car_shadow": "davis_car_shadow/images",
    "jumping": "nvidia_static_cam/Jumping",
}
ANNOTATED = {"car_shadow": "davis_car_shadow/masks"}
SCORES = ("psnr", "ssim", "psnr_foreground", "ssim_foreground")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/casual_clips"), help="results; reused if it exists")
    parser.add_argument("--clips", nargs="+", default=list(CLIPS), help="names of known clips, or name=path")
    parser.add_argument("--max-side", type=int, default=384, help="longer side of the images")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--preprocess-only", action="store_true")
    return parser.parse_args()


def run(script: str, *arguments: object) -> int:
    """One of the program's commands; its exit code."""
    return subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], cwd=ROOT).returncode


def reconstruct(name: str, source: Path, arguments: argparse.Namespace) -> dict:
    """All commands on one clip; what they found, or why they stopped."""
    folder, threads = arguments.out / name, ("--threads", arguments.threads)
    data, work_dir = folder / "data", folder / "run"
    code = run("run_preprocess.py", source, "--output", data, "--frames.max-side", arguments.max_side, *threads)
    record = json.loads((data / "preprocessing.json").read_text()) if (data / "preprocessing.json").is_file() else {}
    stages = {stage["name"]: stage for stage in record.get("stages", [])}
    result = {"stages": stages, "preprocessing_code": code}
    if name in ANNOTATED and "masks" in stages:
        result["mask_iou"] = mask_iou(data / "foreground", DATA / ANNOTATED[name])
    if code or arguments.preprocess_only:
        return result
    began, seconds = time.monotonic(), folder / "training_seconds"
    dataset = ("data:custom", "--data.root-dir", data, "--data.hold-out-every", 8)
    steps = ("--training.steps", arguments.steps)
    if run("run_training.py", "--work-dir", work_dir, *threads, *steps, *dataset):
        return result
    if not seconds.is_file():
        seconds.write_text(f"{time.monotonic() - began:.0f}")
    val = work_dir / "val" / f"step_{arguments.steps:06d}"
    if not (val / "metrics.json").is_file():
        videos = ("--evaluation.videos.kinds", "novel_view", "novel_view_depth", "--evaluation.lpips", "off")
        run("run_val.py", "--work-dir", work_dir, "--model", arguments.steps, *threads, *videos)
    summary = json.loads((val / "metrics.json").read_text())["summary"]
    return result | {"training_s": float(seconds.read_text()), "scores": {s: summary.get(s) for s in SCORES}}


def mask_iou(found: Path, truth: Path) -> float:
    """Intersection over union of the moving pixels of all frames, at the size of the found masks."""
    import cv2

    both = either = 0
    for mine, theirs in zip(sorted(found.glob("*.png")), sorted(truth.glob("*.png")), strict=True):
        a = read_mask(mine)
        b = read_mask(theirs, threshold=0)
        b = cv2.resize(b.astype("uint8"), a.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        both, either = both + int((a & b).sum()), either + int((a | b).sum())
    return both / max(either, 1)


def table(results: dict) -> str:
    """Markdown."""
    columns = ("clip", "frames, size", "cameras, focal", "mask IoU", "seconds per stage", "training", "PSNR", "SSIM")
    columns += ("PSNR foreground", "SSIM foreground")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, result in results.items():
        stages, scores = result["stages"], result.get("scores", {})
        cameras = stages.get("cameras", {}).get("findings", {})
        known = f"{cameras.get('registered', 0)} of {cameras.get('frames', 0)}" + (
            ", static" if cameras.get("static") else ""
        )
        cells = [
            name,
            stages.get("frames", {}).get("method", "-"),
            f"{known}, {cameras.get('focal', [0])[0]:.0f} px" if cameras else "-",
            f"{result['mask_iou']:.2f}" if "mask_iou" in result else "-",
            ", ".join(f"{key} {stage['seconds']:.0f}" for key, stage in stages.items()),
            f"{result['training_s'] / 60:.1f} min" if "training_s" in result else "-",
        ]
        forms = ("{:.2f}", "{:.3f}", "{:.2f}", "{:.3f}")
        cells += ["-" if scores.get(s) is None else f.format(scores[s]) for s, f in zip(SCORES, forms, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    arguments = parse_arguments()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for clip in arguments.clips:
        name, _, given = clip.partition("=")
        if not given and name not in CLIPS:
            sys.exit(f"{name}: known clips are {', '.join(CLIPS)}; give others as name=path.")
        source = Path(given).resolve() if given else DATA / CLIPS[name]
        if not source.exists():
            print(f"{name}: skipped, {source} is not there")
            continue
        results[name] = reconstruct(name, source, arguments)
        (arguments.out / "results.json").write_text(json.dumps(results, indent=1))
        (arguments.out / "table.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
