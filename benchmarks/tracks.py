"""How well long point tracks hold on to their points, how honest their confidence is, and how fast they are.

Prints Markdown tables; parts whose data are absent are skipped and named. See ``--help``.

    yard     200 exact tracks of a rendered video, with its frames as they are and enlarged; mean of its mirror images,
             because so few tracks make the Jaccard index of one of them uncertain by about 0.02
    layered  exact tracks of videos put together here from moving layers of photographs
    labels   whether tracks of a car stay on its annotated mask
    speed    time and peak memory of 5,000 tracks through 65 frames of 854x480
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import resource
import sys
import time
from pathlib import Path

PARTS = ("yard", "layered", "labels", "speed")
PHOTOGRAPHS = ("casual_bear", "casual_teddy", "casual_train", "casual_shiba", "davis_car_shadow")
CONFIDENCE_EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the test data")
    parser.add_argument("--enlarge", nargs="+", type=int, default=[1, 2], help="yard: factors of the frames (1 2)")
    parser.add_argument("--mirrors", type=int, choices=(1, 2, 4), default=4, help="yard: mirror images (default: 4)")
    parser.add_argument("--clips", type=int, default=3, help="number of layered videos (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="of flow and tracking (default: 2)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the results to this file")
    return parser.parse_args()


def methods() -> dict:
    from flow.tracks import TrackingOptions

    return {
        "frame-to-frame chaining": TrackingOptions(strides=(1,), reappear=False, max_variance=math.inf, sweeps=2),
        "multi-stride, no re-appearance": TrackingOptions(reappear=False),
        "multi-stride": TrackingOptions(),
    }


def print_table(title: str, rows: list[dict]) -> None:
    def cell(value) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    print(f"\n### {title}\n")
    for line in (list(rows[0]), ["---"] * len(rows[0]), *([cell(v) for v in row.values()] for row in rows)):
        print(f"| {' | '.join(line)} |")
    sys.stdout.flush()


def compute_flow(frames, **options):
    from flow.compute import compute_video_flow
    from flow.dis import DISEstimator

    return compute_video_flow(frames, DISEstimator(), **options)


def score(tracks, truth: dict, unit: float) -> dict:
    """TAP-Vid metrics of all, static and moving points, and errors in pixels of the original video."""
    import torch

    from flow.tap import scored_pairs, tap_vid

    pairs = scored_pairs(tracks.query_frames, tracks.num_frames)
    row, moving = {}, truth["moving"]
    for label, chosen in (("", torch.ones_like(moving)), (" static", ~moving), (" moving", moving)):
        values = (tracks.xy, tracks.visible, truth["xy"], truth["visible"], pairs)
        metrics = tap_vid(*(value[chosen] for value in values), *truth["size"])
        row |= {f"AJ{label}": metrics["aj"], f"delta_avg{label}": metrics["delta_avg"], f"OA{label}": metrics["oa"]}
    error = torch.linalg.norm(tracks.xy - truth["xy"], dim=-1) / unit
    claimed, seen = tracks.visible & pairs, truth["visible"] & pairs
    right = claimed & seen & (error < 4)
    return row | {
        "median px": float(error[claimed & seen].median()),
        "precision 4 px": float(right.sum() / claimed.sum()),
        "recall 4 px": float(right.sum() / seen.sum()),
    }


def claims(tracks, truth: dict) -> tuple:
    """Confidence of all visible points but the queries, and whether they are right within 2 px of the flow field."""
    import torch

    from flow.tap import scored_pairs

    pairs = scored_pairs(tracks.query_frames, tracks.num_frames) & tracks.visible
    right = truth["visible"] & (torch.linalg.norm(tracks.xy - truth["xy"], dim=-1) < 2)
    return tracks.confidence[pairs], right[pairs]


def measure_exact(videos: list[tuple]) -> tuple[list[dict], list[dict]]:
    """Rows of scores and of calibration; videos of the same name are averaged.

    ``videos``: name, function that makes the frames, truth, pixels of the frames per original pixel.
    """
    import torch

    from flow.tracks import track_points

    rows, outcomes = {}, {}
    for video, make_frames, truth, unit in videos:
        flow = compute_flow(make_frames())
        frames_of_queries = truth["query_frames"]
        queries = truth["xy"][torch.arange(len(frames_of_queries)), frames_of_queries]
        for name, options in methods().items():
            tracks = track_points(flow, queries, frames_of_queries, options)
            rows.setdefault((video, name), []).append(score(tracks, truth, unit))
        outcomes.setdefault(video, []).append(claims(tracks, truth))
    scores = [
        {"video": video, "method": name} | {key: sum(row[key] for row in group) / len(group) for key in group[0]}
        for (video, name), group in rows.items()
    ]
    return scores, [calibration(video, *map(torch.cat, zip(*parts, strict=True))) for video, parts in outcomes.items()]


def calibration(video: str, confidence, right) -> dict:
    row = {"video": video}
    for low, high in itertools.pairwise(CONFIDENCE_EDGES):
        chosen = (confidence > low) & (confidence <= high)
        row[f"{low:g}-{high:g}"] = f"{right[chosen].float().mean():.2f} ({int(chosen.sum())})"
    return row | {"Brier": float((confidence - right.float()).square().mean())}


def load_yard(folder: Path, enlarge: list[int], mirrors: int) -> list[tuple]:
    import cv2
    import numpy as np
    import torch

    from flow.frames import read_frames

    frames, _ = read_frames(folder / "train/images")
    file, videos = np.load(folder / "tracks.npz"), []
    for factor, mirror in itertools.product(enlarge, range(mirrors)):
        size = (frames.shape[2] * factor, frames.shape[1] * factor)
        flipped = [axis for axis in (0, 1) if mirror >> axis & 1]  # x, y
        xy = (torch.from_numpy(file["uv"]).float() + 0.5) * factor
        for axis in flipped:
            xy[..., axis] = size[axis] - xy[..., axis]
        truth = {
            "xy": xy,
            "visible": torch.from_numpy(file["visible"]),
            "query_frames": torch.from_numpy(file["query_frame"].astype(np.int64)),
            "moving": torch.from_numpy(file["instance"] > 0),
            "size": size,
        }

        def make_frames(size=size, flipped=flipped):
            larger = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames.numpy()]
            return torch.from_numpy(np.stack(larger)).flip([2 - axis for axis in flipped])

        videos.append((f"yard x {factor}", make_frames, truth, factor))
    return videos


class LayeredVideo:
    """A wall, three posts in front of it that move faster, and a bending, turning ellipse between the two.

    All motions are known in closed form, so that any point has an exact track. Layers: 0 wall, 1 posts, 2 ellipse.
    """

    T, H, W = 40, 270, 480

    def __init__(self, data: Path, seed: int):
        import cv2
        import numpy as np

        from flow.frames import read_frames

        self.random = np.random.default_rng(seed)
        self.textures = []
        for name, scale in zip(self.random.permutation(PHOTOGRAPHS)[:3], (1.6, 1.6, 1.0), strict=True):
            first = int(self.random.integers(30))
            photograph = read_frames(data / name / "images", start=first, end=first + 1)[0][0].numpy()
            size = (int(640 * scale), int(400 * scale))
            self.textures.append(cv2.resize(photograph, size, interpolation=cv2.INTER_CUBIC).astype(np.float32))
        self.phase, self.speed = self.random.uniform(0, 2 * np.pi, 8), self.random.uniform(0.7, 1.3)

    def _pose(self, layer: int, t: int) -> tuple:
        """Similarity (matrix, offset) from texture to frame."""
        import numpy as np

        p, v = self.phase, self.speed
        texture = np.array(self.textures[layer].shape[1::-1]) / 2
        if layer == 2:
            angle, zoom = 0.3 * v * np.sin(0.12 * t + p[6]), 1 + 0.15 * np.sin(0.09 * t + p[7])
            x, y = 90 * v * np.sin(0.09 * t + p[4]), 0.05 * self.H + 20 * v * np.sin(0.15 * t + p[5])
        else:
            angle, zoom = 0.03 * v * np.sin(0.13 * t + p[3]), 1 + 0.06 * v * np.sin(0.11 * t + p[2])
            pace = v * (1.4 if layer == 1 else 1.0)
            shift = (3 * (t - self.T / 2) + 15 * np.sin(0.21 * t + p[0]), 8 * np.sin(0.17 * t + p[1]))
            texture, x, y = texture + pace * np.array(shift), 0.0, 0.0
        matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return matrix, np.array([self.W / 2 + x, self.H / 2 + y]) - matrix @ texture

    def _bend(self, layer: int, q, t: int, sign: int):
        import numpy as np

        wave = 6 * self.speed * np.sin(0.05 * q[..., 1] + 0.3 * t) if layer == 2 else 0.0
        return np.stack([q[..., 0] + sign * wave, q[..., 1]], -1)

    def to_frame(self, layer: int, q, t: int):
        matrix, offset = self._pose(layer, t)
        return self._bend(layer, q, t, 1) @ matrix.T + offset

    def to_texture(self, layer: int, p, t: int):
        import numpy as np

        matrix, offset = self._pose(layer, t)
        return self._bend(layer, (p - offset) @ np.linalg.inv(matrix).T, t, -1)

    def layer_at(self, p, t: int):
        import numpy as np

        layers = np.zeros(p.shape[:-1], int)
        layers[(((self.to_texture(2, p, t) - [320, 200]) / [70, 85]) ** 2).sum(-1) < 1] = 2
        across = self.to_texture(1, p, t)[..., 0] - 512
        for place, half_width in ((-130, 20), (10, 14), (170, 24)):
            layers[np.abs(across - place) < half_width] = 1
        return layers

    def frames(self):
        import cv2
        import numpy as np
        import torch

        y, x = np.mgrid[: 2 * self.H, : 2 * self.W] / 2 + 0.25
        places, frames = np.stack([x, y], -1), []
        for t in range(self.T):
            layers, image = self.layer_at(places, t), np.zeros((2 * self.H, 2 * self.W, 3), np.float32)
            for layer, texture in enumerate(self.textures):
                q = (self.to_texture(layer, places, t) - 0.5).astype(np.float32)
                drawn = cv2.remap(texture, q[..., 0], q[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
                image[layers == layer] = drawn[layers == layer]
            image = cv2.resize(image, (self.W, self.H), interpolation=cv2.INTER_AREA) * (1 + 0.05 * np.sin(0.2 * t))
            image += self.random.normal(0, 2, image.shape)
            frames.append(image.round().clip(0, 255).astype(np.uint8))
        return torch.from_numpy(np.stack(frames))

    def truth(self, per_frame: int = 150) -> dict:
        import numpy as np
        import torch

        xy, visible, moving, query_frames = [], [], [], np.repeat([0, 13, 26, 39], per_frame)
        for start in query_frames[::per_frame].tolist():
            points = self.random.uniform([4, 4], [self.W - 4, self.H - 4], (per_frame, 2))
            layers = self.layer_at(points, start)
            track = np.zeros((per_frame, self.T, 2))
            for layer in range(3):
                mine = layers == layer
                q = self.to_texture(layer, points[mine], start)
                track[mine] = np.stack([self.to_frame(layer, q, t) for t in range(self.T)], 1)
            seen = np.stack([self.layer_at(track[:, t], t) == layers for t in range(self.T)], 1)
            visible.append(seen & (track >= 0).all(-1) & (track <= [self.W, self.H]).all(-1))
            xy.append(track)
            moving.append(layers == 2)
        return {
            "xy": torch.from_numpy(np.concatenate(xy)).float(),
            "visible": torch.from_numpy(np.concatenate(visible)),
            "query_frames": torch.from_numpy(query_frames),
            "moving": torch.from_numpy(np.concatenate(moving)),
            "size": (self.W, self.H),
        }


def load_layered(data: Path, clips: int) -> list[tuple]:
    videos = [(f"layered {seed}", LayeredVideo(data, seed)) for seed in range(clips)]
    return [(name, video.frames, video.truth(), 1) for name, video in videos]


def measure_labels(folder: Path) -> list[dict]:
    """Tracks begun on the mask of an object: how many of their visible points lie on its mask in other frames."""
    import torch

    from flow.frames import read_frames
    from flow.queries import query_points
    from flow.tap import scored_pairs
    from flow.tracks import track_points

    frames, _ = read_frames(folder / "images", max_side=480)
    masks = read_frames(folder / "masks", max_side=480)[0][..., 0] > 127
    T, H, W = masks.shape
    queries, query_frames = query_points(4000, T, (H, W), foreground=masks, foreground_share=1.0)
    flow, rows = compute_flow(frames), []
    for name, options in methods().items():
        tracks = track_points(flow, queries, query_frames, options)
        column, row = tracks.xy.long().clamp(min=0).minimum(torch.tensor([W - 1, H - 1])).unbind(-1)
        claimed = scored_pairs(query_frames, T) & tracks.visible
        inside = masks[torch.arange(T), row, column][claimed]
        rows.append(
            {
                "video": f"{folder.name}, {len(tracks)} tracks",
                "method": name,
                "visible points on the mask": f"{inside.float().mean():.4f}",
                "mean visible frames": f"{tracks.visible.sum(1).float().mean():.1f} of {T}",
            }
        )
    return rows


def measure_speed(folder: Path, threads: int) -> list[dict]:
    """Run in a process of its own, whose peak memory is that of this work alone."""
    import cv2
    import numpy as np
    import torch

    from flow.frames import read_frames
    from flow.queries import query_points
    from flow.tracks import track_points

    torch.set_num_threads(threads)
    images = [cv2.resize(frame, (854, 480), interpolation=cv2.INTER_CUBIC) for frame in read_frames(folder)[0].numpy()]
    frames = torch.from_numpy(np.stack(images))
    start = time.perf_counter()
    flow = compute_flow(frames, max_side=480, workers=threads)
    flowing = time.perf_counter() - start
    queries, query_frames = query_points(5000, flow.num_frames, (flow.height, flow.width))
    before, start = peak_memory(), time.perf_counter()
    tracks = track_points(flow, queries, query_frames)
    tracks.scaled(854 / flow.width, 480 / flow.height)
    return [
        {
            "tracks x frames": f"{len(tracks)} x {tracks.num_frames}",
            "fields": f"{flow.width}x{flow.height}",
            "flow s": flowing,
            "tracking s": time.perf_counter() - start,
            "peak MiB before tracking": round(before),
            "peak MiB": round(peak_memory()),
        }
    ]


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    arguments = parse_arguments()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch

    torch.set_num_threads(arguments.threads)
    data, results = arguments.data, {}
    needs = {
        "yard": ["blender_yard"],
        "layered": list(PHOTOGRAPHS),
        "labels": ["davis_car_shadow"],
        "speed": ["casual_lady_running"],
    }
    for part in arguments.parts:
        absent = [name for name in needs[part] if not (data / name).is_dir()]
        if absent:
            print(f"\n{part}: skipped, {', '.join(absent)} not found in {data}")
            continue
        if part in ("yard", "layered"):
            if part == "yard":
                videos = load_yard(data / "blender_yard", arguments.enlarge, arguments.mirrors)
            else:
                videos = load_layered(data, arguments.clips)
            results[part], results[f"{part} confidence"] = measure_exact(videos)
            print_table(f"Exact tracks, {part} (TAP-Vid, 256 x 256)", results[part])
            print_table(f"Share right within 2 px by confidence (number), {part}", results[f"{part} confidence"])
        elif part == "labels":
            results[part] = measure_labels(data / needs[part][0])
            print_table("Tracks that stay on an annotated object", results[part])
        else:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results[part] = pool.apply(measure_speed, (data / needs[part][0] / "images", arguments.threads))
            print_table(f"Speed, {arguments.threads} threads", results[part])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
