"""COCO json, Cityscapes images and the package's own files."""

import json

import cv2
import numpy as np
import pytest
import torch

from som.depth.errors import DepthError
from som.depth.metric_scale import Instances
from som.depth.metric_scale.cityscapes import instances_from_instance_ids, road_from_label_ids
from som.depth.metric_scale.coco import read_coco
from som.depth.metric_scale.files import read_instances, read_road, write_instances, write_road
from som.depth.metric_scale.rle import decode_counts, decode_segmentation, decompress_counts, fill_polygons
from som.errors import UserError

# By pycocotools 2.0: a 7 x 9 mask with two stray pixels and a hole.
STRAY = "01f02^ONM03200;N"


def stray_mask():
    mask = np.zeros((7, 9), bool)
    mask[2:5, 3:7] = True
    mask[0, 0] = mask[6, 8] = True
    mask[3, 4] = False
    return mask


def test_runs_go_down_the_columns():
    assert decode_counts([1, 2, 3], 2, 3).tolist() == [[False, True, False], [True, False, False]]
    assert decode_counts([0, 6], 2, 3).all() and not decode_counts([6], 2, 3).any()


def test_compressed_runs_agree_with_pycocotools():
    counts = decompress_counts(STRAY)
    assert counts == [0, 1, 22, 3, 4, 1, 1, 1, 4, 3, 4, 3, 15, 1]
    assert np.array_equal(decode_segmentation({"size": [7, 9], "counts": STRAY}, 7, 9), stray_mask())
    assert np.array_equal(decode_segmentation({"size": [7, 9], "counts": STRAY.encode()}, 7, 9), stray_mask())
    assert np.array_equal(decode_segmentation({"size": [7, 9], "counts": counts}, 7, 9), stray_mask())


def test_long_runs_take_several_characters():
    # 9010 = 18 + 25 * 32 + 8 * 32^2: 'b' is 18 + 32 above '0', 'i' 25 + 32, '8' 8; -300 = 20 + 22 * 32 - 32^2
    assert decompress_counts("bi8") == [9010]
    assert decompress_counts("1" + "1" + "bi8" + "dF") == [1, 1, 9010, 1 - 300]


def test_broken_runs_raise():
    with pytest.raises(DepthError, match="add up to"):
        decode_counts([3, 4], 2, 3)
    with pytest.raises(DepthError, match="add up to"):
        decode_counts([8, -2], 2, 3)
    with pytest.raises(DepthError, match="cut"):
        decompress_counts("R")
    with pytest.raises(DepthError, match="not one of their characters"):
        decompress_counts("1 1")
    with pytest.raises(DepthError, match="size"):
        decode_segmentation({"size": [9, 7], "counts": STRAY}, 7, 9)
    with pytest.raises(DepthError, match="polygons"):
        decode_segmentation({"counts": STRAY}, 7, 9)


def test_a_polygon_covers_the_pixels_whose_centres_it_holds():
    square = fill_polygons([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6)
    expected = np.zeros((5, 6), bool)
    expected[1:3, 1:4] = True
    assert np.array_equal(square, expected)
    assert fill_polygons([[0, 0, 6, 0, 6, 5, 0, 5]], 5, 6).all()
    triangle = fill_polygons([[0, 0, 6, 0, 0, 6]], 6, 6)
    rows, columns = np.mgrid[0:6, 0:6] + 0.5
    assert np.array_equal(triangle | (rows + columns == 6), (rows + columns <= 6))
    outside = fill_polygons([[-3, -3, 2.2, -3, 2.2, 1.7, -3, 1.7], [4, 4, 99, 4, 99, 99, 4, 99]], 5, 6)
    assert np.argwhere(outside).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [4, 4], [4, 5]]


def test_polygons_agree_with_a_test_of_every_pixel():
    corners = np.random.default_rng(0).uniform(-2, 22, (9, 2))  # crosses itself
    rows, columns = np.mgrid[0:20, 0:18] + 0.5
    inside = np.zeros((20, 18), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        spans = (y0 <= rows) != (y1 <= rows)
        inside ^= spans & (columns >= x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    assert np.array_equal(fill_polygons([corners.flatten().tolist()], 20, 18), inside)
    with pytest.raises(DepthError, match="three corners"):
        fill_polygons([[0, 0, 1, 1]], 4, 4)


def coco(tmp_path, **changes):
    content = {
        "images": [
            {"id": 7, "file_name": "clip/b.jpg", "height": 7, "width": 9},
            {"id": 3, "file_name": "a.png", "height": 7, "width": 9},
            {"id": 9, "file_name": "other.png", "height": 50, "width": 60},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 6, "name": "bus"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "segmentation": {"size": [7, 9], "counts": STRAY}, "iscrowd": 0},
            {"image_id": 7, "category_id": 3, "segmentation": {"size": [7, 9], "counts": [0, 63]}, "iscrowd": 1},
            {"image_id": 3, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 3, 0, 3]]},
            {"image_id": 3, "category_id": 6, "segmentation": [[0, 0, 9, 0, 9, 3, 0, 3]]},
        ],
    } | changes
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_annotations(tmp_path):
    got = read_coco(coco(tmp_path), ["x/a.jpg", "x/b.jpg"])
    assert got.classes == ("car", "person") and got.labels.tolist() == [[1], [0]]
    assert got.ids[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    assert np.array_equal(got.ids[1].numpy() == 1, stray_mask())


def test_coco_results(tmp_path):
    def result(image, category, score, columns):
        counts = [0, 7 * columns, 7 * (9 - columns)]
        return dict(image_id=image, category_id=category, score=score, segmentation=dict(size=[7, 9], counts=counts))

    path = tmp_path / "results.json"
    path.write_text(json.dumps([result(0, 1, 0.9, 2), result(0, 3, 0.6, 5), result(1, 3, 0.4, 3)]))
    got = read_coco(path, ["a.png", "b.png"])
    assert got.labels.tolist() == [[0, 1], [-1, -1]]  # the better one is drawn last
    assert got.ids[0, 0].tolist() == [2, 2, 1, 1, 1, 0, 0, 0, 0]
    assert read_coco(path, ["a.png", "b.png"], min_score=0.3).labels[1].tolist() == [0, -1]
    path.write_text(json.dumps([result(7, 3, 0.9, 2)]))
    by_id = read_coco(path, ["a.png", "b.png"], images=coco(tmp_path))
    assert by_id.labels.tolist() == [[-1], [0]]
    with pytest.raises(DepthError, match="image_id 7 is no frame index"):
        read_coco(path, ["a.png", "b.png"])


def test_unusable_coco_files_say_why(tmp_path):
    with pytest.raises(UserError, match=r"this COCO json is missing"):
        read_coco(tmp_path / "none.json", ["a.png"])
    with pytest.raises(DepthError, match=r"no image for 1 of the frames, the first is 'c'"):
        read_coco(coco(tmp_path), ["a.png", "c.png"])
    with pytest.raises(DepthError, match="one size"):
        read_coco(coco(tmp_path), ["a.png", "other.png"])
    with pytest.raises(DepthError, match="neither"):
        read_coco(coco(tmp_path, annotations=None), ["a.png"])
    with pytest.raises(DepthError, match="category_id"):
        read_coco(coco(tmp_path, annotations=[{"image_id": 3}]), ["a.png"])
    with pytest.raises(DepthError, match="distinct"):
        read_coco(coco(tmp_path), ["x/a.png", "y/a.png"])


def test_cityscapes_ids():
    labels = torch.tensor([[[7, 8], [0, 7]]], dtype=torch.int32)
    assert road_from_label_ids(labels).tolist() == [[[True, False], [False, True]]]
    assert road_from_label_ids(labels, 0).tolist() == [[[False, False], [True, False]]]
    with pytest.raises(DepthError, match="the images hold 0, 7, 8"):
        road_from_label_ids(labels, 1)
    ids = torch.tensor([[[26001, 26000, 24000], [26, 33000, 24003]]], dtype=torch.int32)
    got = instances_from_instance_ids(ids)
    assert [got.classes[k] for k in got.labels[0].tolist()] == ["person", "person", "car", "car"]
    assert got.ids.tolist() == [[[4, 3, 1], [0, 0, 2]]]


def test_own_files_come_back_the_same(tmp_path):
    ids = torch.randint(0, 3, (2, 5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    whole = Instances(ids, torch.tensor([[0, 1], [1, -1]]), ("car", "person"), torch.tensor([[1.4, 0], [1.8, 0]]))
    for instances in (whole, Instances(whole.ids, whole.labels, whole.classes)):
        write_instances(tmp_path / "instances.npz", instances)
        got = read_instances(tmp_path / "instances.npz", ["a", "b"], (5, 6))
        assert torch.equal(got.ids, ids) and torch.equal(got.labels, whole.labels) and got.classes == whole.classes
        assert (got.heights is None) if instances.heights is None else torch.equal(got.heights, whole.heights)
    assert read_instances(tmp_path / "instances.npz", ["a", "b"], (10, 12)).ids.shape == (2, 10, 12)
    road = ids == 1
    write_road(tmp_path / "road.npz", road)
    assert torch.equal(read_road(tmp_path / "road.npz", ["a", "b"], (5, 6)), road)
    with pytest.raises(DepthError, match=r"has 2 frames, the clip 3"):
        read_road(tmp_path / "road.npz", ["a", "b", "c"], (5, 6))
    with pytest.raises(DepthError, match="ids, labels, classes"):
        read_instances(tmp_path / "road.npz", ["a", "b"], (5, 6))
    with pytest.raises(DepthError, match=r"\.npz"):
        write_road(tmp_path / "road.png", road)


def test_folders_of_images(tmp_path):
    frames = ["in/berlin_1_leftImg8bit.png", "in/berlin_2_leftImg8bit.png"]
    for k, name in enumerate(("berlin_1_gtFine_labelIds.png", "berlin_2.png")):
        image = np.full((4, 6), 7, np.uint8)
        image[:, : k + 1] = 200
        cv2.imwrite(str(tmp_path / name), image)
    road = read_road(tmp_path, frames, (4, 6), label_id=7)
    assert road[0, :, 1:].all() and not road[0, :, 0].any() and not road[1, :, :2].any()
    assert torch.equal(read_road(tmp_path, frames, (4, 6)), ~road)
    assert read_road(tmp_path, frames, (2, 3)).shape == (2, 2, 3)
    ids = np.full((4, 6), 26002, np.uint16)
    cv2.imwrite(str(tmp_path / "c.png"), ids)
    assert read_instances(tmp_path, ["c.jpg"], (4, 6)).labels.tolist() == [[1]]
    with pytest.raises(DepthError, match=r"'berlin_3', berlin_3\.png or berlin_3_"):
        read_road(tmp_path, ["berlin_3.png"], (4, 6))
    cv2.imwrite(str(tmp_path / "berlin_1_color.png"), ids.astype(np.uint8))
    with pytest.raises(DepthError, match="found berlin_1_color"):
        read_road(tmp_path, frames, (4, 6))
