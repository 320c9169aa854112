"""Small data set folders with one peculiarity each: scenes and depth read the same from each, or refuse it alike."""

import json

import cv2
import numpy as np
import pytest
import torch

from som.data.load import open_sequence, read_native
from som.errors import UserError

H, W, T = 48, 64, 3


@pytest.fixture
def root(tmp_path):
    for folder in ("images", "depth", "foreground"):
        (tmp_path / folder).mkdir()
    for i in range(T):
        picture = np.random.default_rng(i).integers(0, 255, (H, W, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{i:05d}.png"), picture)
        np.save(tmp_path / f"depth/{i:05d}.npy", np.full((H, W), 2.0, np.float32))
        write_mask(tmp_path, i, 255)
    return tmp_path


def write_mask(root, i, value):
    mask = np.zeros((H, W), np.uint8)
    mask[10:20, 10:30] = value
    cv2.imwrite(str(root / f"foreground/{i:05d}.png"), mask)


def header():
    frames = []
    for i in range(T):
        pose = np.eye(4)
        pose[0, 3] = 0.1 * i
        frame = {"file_path": f"images/{i:05d}.png", "depth_file_path": f"depth/{i:05d}.npy"}
        frame |= {"foreground_path": f"foreground/{i:05d}.png", "transform_matrix": pose.tolist()}
        frames.append({**frame, "split": "train", "time": i})
    sizes = {"w": W, "h": H, "fl_x": 60.0, "fl_y": 60.0, "cx": 32.0, "cy": 24.0}
    return {**sizes, "fps": 24, "depth_kind": "metric", "frames": frames}


def whole(root):
    """What the reader of scenes finds."""
    data = read_native(root)
    views = data.train
    return {
        "frames": len(views),
        "fps": data.fps,
        "kind": data.depth_kind,
        "depth": None if views.depths is None else float(views.depths.sum()),
        "moving": None if views.foreground is None else int(views.foreground.sum()),
        "valid": int(views.valid.sum()),
        "K": views.cameras.K,
        "w2c": views.cameras.w2c,
        "image": views.images,
    }


def one_by_one(root):
    """What the reader of depth finds."""
    sequence = open_sequence(root)
    everything = torch.ones(sequence.size, dtype=torch.bool)
    frames = range(len(sequence))
    images = [torch.from_numpy(sequence.image_bytes(t)) for t in frames]
    moving = [sequence.moving(t) for t in frames]
    valid = [everything if (mask := sequence.valid(t)) is None else mask for t in frames]
    depth = [sequence.depth_at_image_size(t) for t in frames if sequence.has_depth[t]]
    return {
        "frames": len(sequence),
        "fps": sequence.fps,
        "kind": sequence.depth_kind,
        "depth": float(torch.stack(depth).sum()) if depth else None,
        "moving": int(torch.stack(moving).sum()) if sequence.has_moving else None,
        "valid": int(torch.stack(valid).sum()),
        "K": sequence.Ks,
        "w2c": sequence.w2cs,
        "image": torch.stack(images),
    }


def every(frame_changes):
    def change(h, root):
        for frame in h["frames"]:
            frame_changes(frame)

    return change


def set_header(**values):
    return lambda h, root: h.update(values)


def set_frame(index, **values):
    return lambda h, root: h["frames"][index].update(values)


def drop(*keys):
    return lambda h, root: [h.pop(key) for key in keys]


def drop_from_frame(key):
    return lambda h, root: h["frames"][1].pop(key)


def save_depth(values):
    return lambda h, root: np.save(root / "depth/00000.npy", values)


def save_image(image, index=0):
    return lambda h, root: cv2.imwrite(str(root / f"images/{index:05d}.png"), image)


def depth_as_png(values):
    def change(h, root):
        for i, frame in enumerate(h["frames"]):
            frame["depth_file_path"] = f"depth/{i:05d}.png"
            cv2.imwrite(str(root / frame["depth_file_path"]), values)

    return change


def masks_of_one(h, root):
    for i in range(T):
        write_mask(root, i, 1)


def mask_of_another_size(h, root):
    cv2.imwrite(str(root / "foreground/00000.png"), np.full((H // 2, W // 2), 255, np.uint8))


def red_mask(h, root):
    mask = np.zeros((H, W, 3), np.uint8)
    mask[10:20, 10:30] = 0, 0, 128
    cv2.imwrite(str(root / "foreground/00000.png"), mask)


def image_of_another_size(h, root):
    save_image(np.zeros((H // 2, W // 2, 3), np.uint8), 2)(h, root)
    drop("w", "h")(h, root)


def fractions_of_frames(h, root):
    h["time_unit"] = "frame"
    for frame in h["frames"]:
        frame["time"] += 0.4


def seconds(h, root):
    h["time_unit"] = "seconds"
    for frame in h["frames"]:
        frame["time"] /= 24


def transparent(rows):
    image = np.full((H, W, 4), 255, np.uint8)
    for row, alpha in rows:
        image[row, :, 3] = alpha
    return save_image(image)


def mirror(frame):
    frame["transform_matrix"][0][0] = -1


def without_suffix(frame):
    frame["file_path"] = frame["file_path"][:-4]


BAD_DEPTH = np.full((H, W), 2.0, np.float32)
BAD_DEPTH[0, 0], BAD_DEPTH[1, 1] = np.nan, -1
TOP = slice(0, 10)
FULL = {"frames": T, "fps": 24.0, "kind": "metric", "depth": 2.0 * T * H * W, "moving": T * 200, "valid": T * H * W}

CASES = {
    "plain": (lambda h, root: None, {}),
    "depth unit 0": (set_header(depth_unit_scale_factor=0), "depth_unit_scale_factor must be a positive number"),
    "fps 0": (set_header(fps=0), "fps must be a positive number"),
    "fractions of frames": (fractions_of_frames, 'time_unit is "frame" but'),
    "seconds": (seconds, {}),
    "names that repeat": (every(lambda f: f.update(name="a")), "share the names a"),
    "mirrored poses": (every(mirror), "pose is not rigid"),
    "foreground in some frames": (drop_from_frame("foreground_path"), "00001.png: has no foreground map"),
    "depth in some frames": (drop_from_frame("depth_file_path"), {"depth": 2.0 * (T - 1) * H * W}),
    "mask of 100": (lambda h, root: write_mask(root, 0, 100), "this mask holds values up to 100"),
    "masks of 0 and 1": (masks_of_one, {}),
    "mask of another size": (mask_of_another_size, "foreground map is 32x24, expected 64x48"),
    "depth of half the size": (save_depth(np.full((H // 2, W // 2), 2.0, np.float32)), {}),
    "depth of another shape": (save_depth(np.full((W, H), 2.0, np.float32)), "depth map is 48x64, expected 64x48"),
    "negative depth": (save_depth(BAD_DEPTH), "negative"),
    "depth that is not a number": (save_depth(np.full((H, W), np.nan)), {"depth": 2.0 * (T - 1) * H * W}),
    "images without suffix": (every(without_suffix), {}),
    "no principal point": (drop("cx", "cy"), {}),
    "no size": (drop("w", "h", "cx", "cy"), {}),
    "unknown split": (set_frame(2, split="test"), 'split must be "train" or "val", found \'test\''),
    "image of another size": (image_of_another_size, "00002.png: this image is 32x24"),
    "times that repeat": (set_frame(1, time=0), "several training views at time 0"),
    "negative time": (set_frame(0, time=-1), "time -1 lies outside"),
    "depth kind in capitals": (set_header(depth_kind="Metric"), "depth_kind must be one of metric, scale, relative"),
    "distortion of 0": (set_header(k1=0.0), {}),
    "distortion": (set_header(k1=0.1), "has lens distortion"),
    "depth with a channel": (save_depth(np.full((H, W, 1), 2.0, np.float32)), {}),
    "depth of 16 bits": (depth_as_png(np.full((H, W), 2000, np.uint16)), {}),
    "depth of 8 bits": (depth_as_png(np.full((H, W), 200, np.uint8)), {"depth": 0.2 * T * H * W}),
    "transparent pixels": (transparent([(TOP, 0)]), {"valid": (T * H - 10) * W}),
    "half transparent": (transparent([(TOP, 100), (slice(10, 20), 200)]), {"valid": (T * H - 10) * W}),
    "grey image": (save_image(np.full((H, W), 9, np.uint8)), {"image": 9}),
    "image of 16 bits": (save_image(np.full((H, W, 3), 30000, np.uint16)), {"image": 30000 // 256}),
    "mask in one colour": (red_mask, {}),
}
"""What is changed, and what a reader then finds that it would not have found otherwise, or says."""


@pytest.mark.parametrize(("change", "expected"), CASES.values(), ids=CASES)
def test_scenes_and_depth_read_the_same(root, change, expected):
    content = header()
    change(content, root)
    (root / "transforms.json").write_text(json.dumps(content))
    if isinstance(expected, str):
        for read in (whole, one_by_one):
            with pytest.raises(UserError, match=expected):
                read(root)
        return
    found, other = whole(root), one_by_one(root)
    for key, value in found.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other[key], rtol=0, atol=1e-7, msg=key)
        else:
            assert value == pytest.approx(other[key]), key
    wanted = {**FULL, **{key: value for key, value in expected.items() if key != "image"}}
    for key, value in wanted.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value)), key
    assert found["K"][0].tolist() == [[60, 0, 32], [0, 60, 24], [0, 0, 1]]
    assert found["w2c"][1, :3, 3].tolist() == pytest.approx([-0.1, 0, 0])
    if "image" in expected:
        assert (found["image"][0] == expected["image"]).all()
