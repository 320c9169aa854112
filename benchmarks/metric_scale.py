"""Metric scale without labels: how well the camera's height above the road comes out, and what each part buys.

Generated street clips (som/depth/learning/synthetic) with the class spread of the priors, 30 % outlier objects, pitch
and roll; the scale of the depth is hidden. Prints Markdown: errors of the camera height by form and kind of depth, an
ablation of single steps, and the camera-height label over simulated epochs of a depth network that improves, with one
bad epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

from som.files import read_image, read_map

ROOT = Path(__file__).resolve().parent.parent
FORMS = {
    "horizon (default)": {},
    "box, depth of the foot": {"scale_from": "box"},
    "box, median of the mask": {"scale_from": "box", "foot_share": 1.0},
    "box, first quartile of the mask": {"scale_from": "box", "foot_share": 1.0, "depth_quantile": 0.25},
    "silhouette": {"scale_from": "silhouette"},
}
PARTS = {
    "all parts": {},
    "no outlier test": {"max_height_error": None},
    "extent in rows": {"extent": "rows"},
    "plane by plain least squares": {"plane_iterations": 0},
    "camera height from pixel normals": {"height_from": "normals"},
    "objects cut by the border kept": {"refuse_cut": False},
    "small objects kept": {"min_extent": 1.0},
    "box, all parts": {"scale_from": "box"},
    "box, no outlier test": {"scale_from": "box", "max_height_error": None},
    "box, extent in rows": {"scale_from": "box", "extent": "rows"},
    "box, camera height from pixel normals": {"scale_from": "box", "height_from": "normals"},
    "box, objects cut by the border kept": {"scale_from": "box", "refuse_cut": False},
    "box, small objects kept": {"scale_from": "box", "min_extent": 1.0},
}
LABELS = {
    "weighted by epoch, guard, warm-up 1 (default)": {},
    "no guard": {"max_jump": None},
    "no outlier test": {"max_height_error": None},
    "outlier test against the label": {"max_height_error": None},
    "warm-up 3": {"warmup_epochs": 3},
    "every third epoch": {"period": 3},
    "moving average 0.9, no warm-up": {"update": "moving_average", "warmup_epochs": 0},
    "moving average 0.9": {"update": "moving_average"},
    "moving average 0.5": {"update": "moving_average", "momentum": 0.5},
    "moving average 0.5, no guard": {"update": "moving_average", "momentum": 0.5, "max_jump": None},
    "the last epoch's height": {"update": "moving_average", "momentum": 0.0},
}
DATA = ROOT.parent / "shared" / "data"
REAL = {
    # A VW Golf Variant (1.473 m) ahead in slow traffic.
    "kitti_traffic_lidar": {
        "depth": "lidar",
        "height": 1.473,
        "boxes": {0: (286, 97, 362, 160.5), 13: (285.5, 97, 368.5, 167), 26: (283, 98.8, 379, 180.7)},
        "road": [
            [(205, 191), (262, 140), (284, 120), (284, 163), (362, 163), (395, 191)],
            [(215, 191), (270, 130), (284, 118), (284, 169), (370, 169), (395, 191)],
            [(225, 191), (265, 140), (283, 118), (282, 183), (382, 183), (385, 191)],
        ],
    },
    # A Citroen C4 coupe (1.458 m) parked on the right.
    "kitti_odom06_gray": {
        "depth": "sweep",
        "height": 1.458,
        "boxes": {
            12: (350.3, 90.7, 386, 114.8),
            16: (360.7, 90.7, 408, 122.4),
            20: (376.7, 92.6, 448.3, 136.6),
            24: (408, 94.1, 540.5, 167.6),
        },
        "road": [[(215, 191), (300, 105), (330, 105), (455, 191)]],
    },
}
"""Boxes (left, top, right, bottom) and the road's outline in pixels of the 640x192 frames, by frame."""
EPOCHS, BAD_EPOCH = 12, 6


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=12, help="number of clips")
    parser.add_argument("--sweep-seeds", type=int, default=4, help="clips that the plane sweep is run on; 0 skips it")
    parser.add_argument("--label-seeds", type=int, default=3, help="clips that epochs are simulated on")
    parser.add_argument("--real", action="store_true", help="also measure cars in two KITTI drives of ../shared/data")
    parser.add_argument("--frames", type=int, default=60, help="frames of a clip")
    parser.add_argument("--step", type=int, default=2, help="measure every n-th frame")
    parser.add_argument("--outliers", type=float, default=0.3, help="share of outlier objects")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")
    return parser.parse_args()


class Case:
    """One clip, every n-th frame of it, under a hidden scale, with several kinds of depth."""

    def __init__(self, seed: int, options: argparse.Namespace):
        from som.depth.learning.synthetic import RoadClipConfig, degrade_depth, make_road_clip

        clip = make_road_clip(RoadClipConfig(frames=options.frames, outliers=options.outliers, seed=seed))
        chosen = slice(None, None, options.step)
        self.height, self.unit = clip.camera_height, random.Random(seed).uniform(0.05, 20)
        self.Ks, self.road, self.instances = clip.Ks[chosen], clip.road[chosen], clip.instances.frames(chosen)
        true = clip.depth[chosen]
        own = clip.true_heights.where(~clip.outlier, clip.true_heights.new_zeros(()))[chosen]
        self.with_heights = replace(self.instances, heights=own)
        self.depth = {
            "true depth": true,
            "weak depth": degrade_depth(true, 0.05, 1.5, seed),
            "very weak depth": degrade_depth(true, 0.10, 2.5, seed),
        }
        if seed < options.sweep_seeds:
            from som.depth.sweep import plane_sweep

            swept = plane_sweep(clip.images, clip.Ks, clip.w2c)
            self.depth["plane sweep, filtered"] = swept.depth[chosen]
            self.depth["plane sweep, all pixels"] = swept.raw_depth[chosen]

    def errors(self, kind: str, frame: dict, known: bool = False) -> tuple[float, float] | None:
        """Relative errors of the camera height and of the factor; None where the estimate is refused."""
        from som.depth.errors import DepthError
        from som.depth.metric_scale import FrameConfig, MetricScaleConfig, metric_scale

        instances = self.with_heights if known else self.instances
        config = MetricScaleConfig(frame=FrameConfig(**frame))
        try:
            found = metric_scale(self.depth[kind] / self.unit, self.Ks, self.road, instances, config=config)
        except DepthError:
            return None
        return found.camera_height / self.height - 1, found.scale / self.unit - 1


def summary(errors: list[tuple[float, float] | None]) -> dict:
    """Statistics of the camera height's errors, and the root mean square of the factor's."""
    given = [e for e, _ in filter(None, errors)]
    factors = [e for _, e in filter(None, errors)]
    if not given:
        return {"clips": len(errors), "refused": len(errors)}
    return {
        "clips": len(errors),
        "refused": len(errors) - len(given),
        "rms": (sum(e * e for e in given) / len(given)) ** 0.5,
        "mean": sum(given) / len(given),
        "largest": max(map(abs, given)),
        "factor_rms": (sum(e * e for e in factors) / len(factors)) ** 0.5,
        "within_3": sum(abs(e) <= 0.03 for e in given) / len(errors),
        "within_6": sum(abs(e) <= 0.06 for e in given) / len(errors),
    }


def row(name: str, result: dict) -> str:
    if "rms" not in result:
        return f"| {name} | all refused | | | | | |"
    refused = f" ({result['refused']} refused)" if result["refused"] else ""
    cells = [f"{100 * result[key]:.1f}" for key in ("rms", "mean", "largest")]
    cells += [f"{100 * result[key]:.0f}" for key in ("within_3", "within_6")]
    return f"| {name}{refused} | {' | '.join(cells)} | {100 * result['factor_rms']:.1f} |"


def table(title: str, cases: list[Case], kinds: list[str], variants: dict[str, dict], known: bool = False) -> dict:
    results = {}
    for kind in kinds:
        chosen = [case for case in cases if kind in case.depth]
        if not chosen:
            continue
        print(f"\n{title}, {kind} ({len(chosen)} clips)\n")
        print("| | rms, % | mean, % | largest, % | within 3 % | within 6 % | factor: rms, % |")
        print("|---|---|---|---|---|---|---|")
        results[kind] = {}
        for name, options in variants.items():
            results[kind][name] = summary([case.errors(kind, options, known) for case in chosen])
            print(row(name, results[kind][name]), flush=True)
    return results


def epochs_of(case: Case, seed: int) -> list:
    """Depth of each epoch: noise and smear fall, the range opens from a contracted one, its unit is free; in one epoch
    it contracts again."""
    from som.depth.learning.synthetic import degrade_depth

    depths = []
    for epoch in range(EPOCHS):
        left = 0.5**epoch
        exponent = 0.6 if epoch == BAD_EPOCH else 1 - 0.35 * left
        weak = degrade_depth(case.depth["true depth"], 0.05 + 0.25 * left, 1.5 + 3 * left, seed * EPOCHS + epoch)
        depths.append(weak**exponent * random.Random(seed + epoch).uniform(0.2, 5))
    return depths


def label_table(cases: list[Case], count: int) -> dict:
    """Errors of the label after each epoch by rule, and of the epochs' heights by themselves."""
    from som.depth.metric_scale import DEFAULT_PRIORS, CameraHeightLabel, FrameConfig, LabelConfig, height_candidates
    from som.depth.metric_scale.consensus import agree
    from som.depth.metric_scale.objects import apply_horizon_test, measure_frames, metric_camera_heights

    alone = "(the epoch's height by itself)"
    errors: dict[str, list] = {name: [] for name in (alone, *LABELS)}
    for seed, case in enumerate(cases[:count]):
        prior = case.instances.class_heights(DEFAULT_PRIORS)[0]
        measured = [
            measure_frames(depth[:, None], case.Ks, case.road, case.instances.ids, prior)
            for depth in epochs_of(case, seed)
        ]
        heights = [agree(height_candidates(m), 0.2)[0] for m in measured]
        errors[alone].append([None if h is None else h / case.height - 1 for h in heights])
        for name, options in LABELS.items():
            label = CameraHeightLabel(LabelConfig(**options))
            values = []
            for m in measured:
                if name == "outlier test against the label":
                    label.add(metric_camera_heights(m, apply_horizon_test(m, label.value(), FrameConfig())))
                else:
                    label.add(height_candidates(m))
                label.end_epoch()
                values.append(None if label.value() is None else label.value() / case.height - 1)
            errors[name].append(values)
    shown = (0, 1, 2, 4, BAD_EPOCH, BAD_EPOCH + 1, EPOCHS - 1)
    print(f"\nCamera-height label after an epoch, mean absolute error in % ({count} clips, epoch {BAD_EPOCH} is bad)\n")
    print("| | " + " | ".join(map(str, shown)) + " |\n|---|" + "---|" * len(shown))
    means = {name: [mean_error(values, e) for e in range(EPOCHS)] for name, values in errors.items()}
    for name, values in means.items():
        cells = ("—" if values[e] is None else f"{100 * values[e]:.1f}" for e in shown)
        print(f"| {name} | " + " | ".join(cells) + " |")
    return means


def mean_error(runs: list[list[float | None]], epoch: int) -> float | None:
    """Mean absolute error of the runs after an epoch; None if one of them has no label yet."""
    values = [run[epoch] for run in runs]
    return None if None in values else sum(map(abs, values)) / len(values)


def real_table() -> dict:
    """One car in each of two KITTI drives, boxes and road drawn by hand: camera height by form from its height."""
    import numpy as np
    import torch

    from som.depth.metric_scale import FrameConfig
    from som.depth.metric_scale.objects import measure_frames, metric_camera_heights

    results = {}
    print("\nCamera height in m from one car of known height, KITTI (measured: 1.65 m)\n")
    print("| depth | frame | of the road plane | " + " | ".join(FORMS) + " |\n|---|---|---|" + "---|" * len(FORMS))
    for name, drive in REAL.items():
        load = lidar_depth if drive["depth"] == "lidar" else swept_depth
        depth, K = load(DATA / name, list(drive["boxes"]))
        T, H, W = depth.shape
        ids, road = torch.zeros(T, H, W, dtype=torch.int32), np.zeros((T, H, W), np.uint8)
        for t, (left, top, right, bottom) in enumerate(drive["boxes"].values()):
            ids[t, round(top) : round(bottom), round(left) : round(right)] = 1
            fill_polygon(road[t], drive["road"][t % len(drive["road"])])
        masks = torch.from_numpy(road > 0) & (ids == 0)
        heights = torch.full((T, 1), drive["height"])
        columns = {}
        for form, options in FORMS.items():
            config = FrameConfig(min_road=0.001, **options)
            measured = measure_frames(depth[:, None], K.expand(T, 3, 3), masks, ids, heights, config)
            # Lidar leaves more than three quarters of a mask empty; what it hits counts all the same.
            columns[form] = metric_camera_heights(measured, torch.zeros_like(measured.status)).tolist()
        columns = {"of the road plane": measured.camera_height.tolist()} | columns
        results[name] = columns
        for t, frame in enumerate(drive["boxes"]):
            cells = " | ".join(f"{values[t]:.2f}" for values in columns.values())
            print(f"| {drive['depth']} | {frame} | {cells} |", flush=True)
    return results


def fill_polygon(image, corners: list[tuple[int, int]]) -> None:
    import cv2
    import numpy as np

    cv2.fillPoly(image, [np.array(corners, np.int32)], 1)


def read_intrinsics(folder: Path, original: tuple[int, int]):
    """K with pixel centres at +0.5; the file's centres are integers of the original size (width, height)."""
    import numpy as np
    import torch

    K = torch.from_numpy(np.loadtxt(folder / "K.txt").reshape(3, 3)).float()
    K[0, 2] += 0.5 * 640 / original[0]
    K[1, 2] += 0.5 * 192 / original[1]
    return K


def lidar_depth(folder: Path, frames: list[int]):
    """Nearest lidar return of each pixel at 640x192, 0 where there is none."""
    import numpy as np
    import torch

    maps = []
    for frame in frames:
        lidar = read_map(folder / f"depth/{frame:05d}.png", 1 / 256)
        rows, columns = np.nonzero(lidar)
        depth = np.full((192, 640), np.inf, np.float32)
        at = ((rows + 0.5) * 192 / lidar.shape[0]).astype(int), ((columns + 0.5) * 640 / lidar.shape[1]).astype(int)
        np.minimum.at(depth, at, lidar[rows, columns])
        maps.append(np.where(np.isfinite(depth), depth, 0))
    return torch.from_numpy(np.stack(maps)), read_intrinsics(folder, (1242, 375))


def swept_depth(folder: Path, frames: list[int]):
    """Confirmed depth of the plane sweep over the drive's true poses, eight frames more at each end."""
    import numpy as np
    import torch

    from som.depth.sweep import SweepConfig, plane_sweep

    chosen = range(frames[0] - 8, frames[-1] + 9)
    images = [read_image(folder / f"images/{k:05d}.jpg") / np.float32(255) for k in chosen]
    c2w = np.tile(np.eye(4), (len(chosen), 1, 1))
    c2w[:, :3] = np.loadtxt(folder / "poses_cam_to_world.txt").reshape(-1, 3, 4)[list(chosen)]
    K = read_intrinsics(folder, (1226, 370))
    swept = plane_sweep(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        K.expand(len(chosen), 3, 3).clone(),
        torch.from_numpy(np.linalg.inv(c2w)).float(),
        SweepConfig(near=3.0, far=200.0),
    )
    return swept.depth[[frame - chosen[0] for frame in frames]], K


def main() -> None:
    options = parse_arguments()
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(options.threads))
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(options.threads)
    cases = [Case(seed, options) for seed in range(options.seeds)]
    kinds = list(dict.fromkeys(kind for case in cases for kind in case.depth))
    results = {
        "forms": table("Camera height, heights by class", cases, kinds, FORMS),
        "known": table("Camera height, heights of the single objects known", cases, kinds[:2], FORMS, known=True),
        "parts": table("Camera height, parts left out", cases, kinds[:2], PARTS),
        "label": label_table(cases, min(options.label_seeds, len(cases))),
    }
    if options.real:
        results["real"] = real_table()
    if options.json:
        Path(options.json).write_text(json.dumps({"options": vars(options), "results": results}, indent=1))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
