"""Instances from COCO json: annotation files, and the result lists that instance segmenters write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from som.depth.errors import DepthError
from som.depth.metric_scale.instances import Instances, instances_from_masks
from som.depth.metric_scale.rle import decode_segmentation
from som.files import read_json

COCO_CLASSES = {1: "person", 3: "car"}
"""Ids of the classes with default height priors in COCO's own list, for result lists, which carry no names."""


def read_coco(
    path: str | Path,
    frame_names: Sequence[str],
    *,
    images: str | Path | None = None,
    classes: Sequence[str] = ("car", "person"),
    min_score: float = 0.5,
) -> Instances:
    """Objects of some classes in the frames of a clip.

    Reads an annotation file (an object with ``images``, ``categories`` and ``annotations``) or a result list
    (``image_id``, ``category_id``, ``segmentation``, ``score``). Masks are polygons or run lengths, also compressed.
    Where masks overlap, the higher score wins, and among equals the smaller mask. Crowds are left out.

    Args:
        path: the json file.
        frame_names: file names of the clip's frames in order; compared by stem, without folder and suffix.
        images: for a result list, an annotation file whose ``images`` (and ``categories``, if it has them) the ids
            refer to; None takes a result's ``image_id`` for a 0-based frame index when it is a number, for a file name
            when it is a string, and COCO's own class ids.
        classes: names of the classes that are kept.
        min_score: results below it are left out; annotations have no score and stay.

    Raises:
        DepthError: the file is missing or malformed, frames are not in it, or image sizes differ.
    """
    path = Path(path)
    content = read_json(path, "this COCO json")
    if isinstance(content, list):
        annotations, listing = content, (None if images is None else read_json(Path(images), "this COCO json"))
    elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
        annotations, listing = content["annotations"], content
    else:
        raise DepthError(f"{path} must hold COCO annotations or a list of COCO results; it holds neither.")
    wanted = {PurePath(name).stem: t for t, name in enumerate(frame_names)}
    if len(wanted) < len(frame_names):
        raise DepthError("frame_names must have distinct stems.")
    try:
        frame_of, size, names = _index(listing, annotations, wanted, path if images is None else Path(images))
        found: list[list[tuple[float, float, str, Any]]] = [[] for _ in frame_names]
        for entry in annotations:
            t, name = frame_of.get(entry["image_id"]), names.get(entry["category_id"])
            score = float(entry.get("score", 1.0))
            if t is None or name is None or name not in classes or entry.get("iscrowd"):
                continue
            if "score" in entry and score < min_score:
                continue
            mask = decode_segmentation(entry["segmentation"], *size)
            found[t].append((score, -float(mask.sum()), name, mask))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DepthError):
            raise DepthError(f"{path}: {error}") from error
        raise DepthError(f"{path} is no complete COCO json: {type(error).__name__} {error}.") from error
    # The later of overlapping masks wins.
    ordered = [[(name, mask) for *_, name, mask in sorted(objects, key=lambda o: o[:2])] for objects in found]
    return instances_from_masks(ordered, size[0], size[1], classes=list(classes))


def _index(
    listing: dict | None, annotations: list[dict], wanted: dict[str, int], path: Path
) -> tuple[dict[Any, int | None], tuple[int, int], dict[int, str]]:
    """Frame by image id, the one image size (height, width), and class name by category id."""
    names = dict(COCO_CLASSES)
    if listing is None:
        runs = [a["segmentation"]["size"] for a in annotations if isinstance(a["segmentation"], dict)]
        if not runs:
            raise DepthError("results without run lengths do not say the image size; give the annotation file too.")
        sizes = {tuple(size) for size in runs}
        ids = {a["image_id"] for a in annotations}
        frame_of = {i: wanted.get(PurePath(i).stem) if isinstance(i, str) else i for i in ids}
        unknown = sorted(i for i in ids if not isinstance(i, str) and not 0 <= i < len(wanted))
        if unknown:
            raise DepthError(f"image_id {unknown[0]} is no frame index below {len(wanted)}; give the annotation file.")
        if not any(t is not None for t in frame_of.values()):
            raise DepthError("none of its image_ids is one of the frames.")
    else:
        if listing.get("categories"):
            names = {category["id"]: category["name"] for category in listing["categories"]}
        frame_of = {image["id"]: wanted.get(PurePath(image["file_name"]).stem) for image in listing["images"]}
        present = {t for t in frame_of.values() if t is not None}
        missing = [name for name, t in wanted.items() if t not in present]
        if missing:
            raise DepthError(f"{path} lists no image for {len(missing)} of the frames, the first is {missing[0]!r}.")
        sizes = {(i["height"], i["width"]) for i in listing["images"] if frame_of[i["id"]] is not None}
    if len(sizes) != 1:
        raise DepthError(f"all frames must have one size (height, width), found {sorted(sizes)}.")
    return frame_of, sizes.pop(), names
