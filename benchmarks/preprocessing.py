"""How good is a scene that starts from images alone? Preprocessing and training against exact truth.

The demo scene and blender_yard are given as images only. What run_preprocess.py finds (cameras, masks, depth) is
compared with the truth, and the scene trained on it is scored at the held-out cameras, carried into its world by the
similarity that fits its cameras to the true ones; once as they are, once after each of them was refined against its
picture, since a camera that is off by a pixel blurs no scene but costs many dB. Beside it, the same training with true
priors. What is finished is kept: the same command goes on where it ended. Writes table.md and results.json to --out.

    python benchmarks/preprocessing.py --out out/preprocessing
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
YARD = ROOT.parent / "shared" / "data" / "blender_yard"
SCORES = ("psnr", "psnr_covisible", "psnr_foreground", "ssim", "depth_abs_rel_scaled", "mask_iou")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/preprocessing"), help="results; reused if it exists")
    parser.add_argument("--scenes", nargs="+", choices=("demo", "yard"), default=["demo", "yard"])
    parser.add_argument("--yard", type=Path, default=YARD, help="folder of blender_yard; skipped where it is absent")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=0, help="of each run; 0: as many as torch takes")
    parser.add_argument("--options", nargs="*", default=[], help="further options of run_preprocess.py, without --")
    return parser.parse_args()


def run(script: str, *arguments: object) -> None:
    """One of the program's commands; stops with its exit code if it fails."""
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def load_truth(name: str, out: Path, yard: Path):
    """The data set with exact priors, in the native layout at <out>/<name>/truth; None where it cannot be had."""
    from som.data.config import DemoData
    from som.data.folder import write_native
    from som.data.load import load_dataset, read_native

    folder = out / name / "truth"
    if not (folder / "transforms.json").is_file():
        if name == "demo":
            write_native(load_dataset(DemoData()), folder)
        elif not yard.is_dir():
            return None
        else:
            run("scripts/convert_blender_yard.py", yard, folder)
    return read_native(folder)


def preprocess(truth, folder: Path, threads: int, options: list[str]) -> dict:
    """Runs run_preprocess.py on the training images; returns seconds and warnings by stage."""
    from som.files import write_image

    images = folder / "images_alone"
    for i, image in enumerate(truth.train.images.numpy()):
        if not (images / f"{i:05d}.png").is_file():
            write_image(images / f"{i:05d}.png", image)
    more = [f"--{option}" if i % 2 == 0 else option for i, option in enumerate(options)]
    run("run_preprocess.py", images, "--output", folder / "data", "--threads", threads, *more)
    record = json.loads((folder / "data" / "preprocessing.json").read_text())
    return {stage["name"]: {k: stage[k] for k in ("method", "seconds", "warnings")} for stage in record["stages"]}


def similarity(estimate: np.ndarray, truth: np.ndarray):
    """From the true world into the estimated one: rotation by the cameras' orientations, the rest by their places.

    A path that is nearly straight leaves the rotation about itself open; the orientations do not.
    """
    from scipy.spatial.transform import Rotation

    from som.preprocessing.cameras.alignment import Similarity, camera_centers

    turns = estimate[:, :3, :3].transpose(0, 2, 1) @ truth[:, :3, :3]
    R = Rotation.from_matrix(turns).mean().as_matrix()
    a, b = camera_centers(truth) @ R.T, camera_centers(estimate)
    a0, b0 = a - a.mean(0), b - b.mean(0)
    scale = float((a0 * b0).sum() / (a0**2).sum())
    return Similarity(scale, R, b.mean(0) - scale * a.mean(0))


def compare_priors(truth, found) -> dict:
    """Errors of cameras, masks and depth."""
    from som.preprocessing.cameras.alignment import focal_error, trajectory_error

    order = [int(t) for t in found.train.times]
    true_w2c, w2c = truth.train.cameras.w2c[order].double().numpy(), found.train.cameras.w2c.double().numpy()
    error = trajectory_error(w2c, true_w2c)
    scores = {
        "registered": len(order) / len(truth.train),
        "ate_share": error.ate_share,
        "rpe_deg": error.rotation_deg,
        "rpe_share": error.translation_share,
        "focal_error": focal_error(found.train.cameras.K[0].numpy(), truth.train.cameras.K[0].numpy()),
    }
    if found.train.foreground is not None:
        a, b = found.train.foreground, truth.train.foreground[order]
        scores |= {"mask_iou": float((a & b).sum() / (a | b).sum()), "mask_recall": float((a & b).sum() / b.sum())}
    if found.train.depths is not None:
        scale = similarity(w2c, true_w2c).scale
        depth, true, moving = found.train.depths / scale, truth.train.depths[order], truth.train.foreground[order]
        known = (depth > 0) & (true > 0)
        relative = (depth / true - 1).abs()
        scores["depth_abs_rel_static"] = float(relative[known & ~moving].mean())
        scores["depth_abs_rel_moving"] = float(relative[known & moving].mean())
        confidence = found.train.depth_confidence
        if confidence is not None:
            scores["depth_abs_rel_sure"] = float(relative[known & ~moving & (confidence > 0.5)].mean())
            scores["sure_share"] = float((confidence > 0.5).float().mean())
    return scores


def write_scored(truth, found, folder: Path) -> None:
    """The found data set with the true held-out views carried into its world."""
    import torch

    from som.data.folder import write_native

    order = [int(t) for t in found.train.times]
    into = similarity(found.train.cameras.w2c.double().numpy(), truth.train.cameras.w2c[order].double().numpy())
    w2c = torch.from_numpy(into.cameras(truth.val.cameras.w2c.double().numpy())).to(truth.val.cameras.w2c)
    depths = None if truth.val.depths is None else truth.val.depths * into.scale
    cameras = replace(truth.val.cameras, w2c=w2c)
    write_native(replace(found, val=replace(truth.val, cameras=cameras, depths=depths)), folder)


def write_refined(scored: Path, work_dir: Path, folder: Path, rounds: int = 4) -> None:
    """The scored data set with every held-out camera refined against its picture, as BARF (Lin et al. 2021) does.

    Flow from the rendered to the true picture says where the rendered surface should be seen; perspective-n-point finds
    the camera for that. Moving pixels take no part.
    """
    import cv2
    import torch

    from flow.factory import make_estimator
    from som.cameras.geometry import pixel_centers, unproject_to_world
    from som.data.folder import write_native
    from som.data.load import read_native
    from som.runs.work_dir import checkpoint_path
    from som.scene.checkpoint import load_checkpoint

    dataset = read_native(scored)
    scene = load_checkpoint(checkpoint_path(work_dir)).scene.eval()
    views, estimator = dataset.val, make_estimator("dis")
    w2cs, size = views.cameras.w2c.clone(), (views.height, views.width)
    grid = pixel_centers(*size).view(-1, 2)
    for i in range(len(views)):
        for _ in range(rounds):
            camera = scene.normalization.cameras_to_scene(replace(views.cameras, w2c=w2cs)[i : i + 1])
            with torch.no_grad():
                seen = scene.rasterize_views(camera.w2c, camera.K, views.times[i : i + 1], size[1], size[0])
            rendered = (seen.rgb[0].clamp(0, 1) * 255).to(torch.uint8)
            picture = views.images[i]
            forward, backward = estimator(rendered, picture), estimator(picture, rendered)
            depth = seen.depth[0] * scene.normalization.scale
            usable = still_pixels(forward, backward) & (depth > 0) & (seen.foreground[0] < 0.1)
            usable = usable.flatten().nonzero()[::7, 0]
            world = unproject_to_world(grid[usable], depth.flatten()[usable], views.cameras.K[i], w2cs[i])
            target = grid[usable] + forward.reshape(-1, 2)[usable]
            pose = w2cs[i].double().numpy()
            found, turn, shift, _ = cv2.solvePnPRansac(
                world.double().numpy(), target.double().numpy(), views.cameras.K[i].double().numpy(), None,
                cv2.Rodrigues(pose[:3, :3])[0], pose[:3, 3:].copy(), useExtrinsicGuess=True, reprojectionError=1.0,
            )  # fmt: skip
            if not found:
                break
            w2cs[i, :3, :3] = torch.from_numpy(cv2.Rodrigues(turn)[0])
            w2cs[i, :3, 3] = torch.from_numpy(shift[:, 0])
    write_native(replace(dataset, val=replace(views, cameras=replace(views.cameras, w2c=w2cs))), folder)


def still_pixels(forward, backward):
    """(H,W) bool: forward and backward flow agree."""
    from flow.consistency import check_consistency

    return check_consistency(forward, backward)[0].consistent


def train(data: Path, work_dir: Path, steps: int, threads: int) -> None:
    """Optimises a scene, unless that is done."""
    common = ("--work-dir", work_dir, "--threads", threads, "--training.steps", steps)
    run("run_training.py", *common, "data:custom", "--data.root-dir", data)


def score(scored: Path, work_dir: Path, name: str, steps: int, threads: int) -> dict:
    """Scores at the held-out views of a data set, kept in <work_dir>/<name>."""
    results = work_dir / name / "metrics.json"
    if not results.is_file():
        where = ("--work-dir", work_dir, "--output", work_dir / name, "--threads", threads, "--model", steps)
        quick = ("--evaluation.lpips", "off", "--evaluation.videos.kinds", "novel_view")
        run("run_val.py", *where, *quick, "data:custom", "--data.root-dir", scored)
    summary = json.loads(results.read_text())["summary"]
    return {name: summary.get(name) for name in SCORES}


def main() -> None:
    from som.data.load import read_native

    arguments = parse_arguments()
    out, results = arguments.out.resolve(), {}
    for name in arguments.scenes:
        truth = load_truth(name, out, arguments.yard)
        if truth is None:
            print(f"{name}: skipped, {arguments.yard} is not there")
            continue
        folder = out / name
        stages = preprocess(truth, folder, arguments.threads, arguments.options)
        found = read_native(folder / "data")
        write_scored(truth, found, folder / "scored")
        how, alone, given = (arguments.steps, arguments.threads), folder / "run_alone", folder / "run_truth"
        train(folder / "data", alone, *how)
        write_refined(folder / "scored", alone, folder / "refined")
        train(folder / "truth", given, *how)
        results[name] = {
            "stages": stages,
            "priors": compare_priors(truth, found),
            "from images alone": score(folder / "scored", alone, "scored", *how),
            "from images alone, cameras refined": score(folder / "refined", alone, "refined", *how),
            "from true priors": score(folder / "truth", given, "scored", *how),
        }
        (out / "results.json").write_text(json.dumps(results, indent=1))
    lines = []
    for name, result in results.items():
        lines += [f"**{name}**", "", "| prior | error |", "|---|---|"]
        lines += [f"| {key} | {value:.4f} |" for key, value in result["priors"].items()] + [""]
        lines += ["| scene | " + " | ".join(SCORES) + " |", "|---" * (len(SCORES) + 1) + "|"]
        for row in (key for key in result if key.startswith("from")):
            cells = ["-" if result[row][score] is None else f"{result[row][score]:.3f}" for score in SCORES]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        seconds = ", ".join(f"{stage} {record['seconds']:.0f} s" for stage, record in result["stages"].items())
        lines += ["", seconds, ""]
    (out / "table.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
