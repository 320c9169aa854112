"""The report: everything that was found is on one page that needs nothing else, whatever is missing or broken."""

import base64
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from som.data.folder import write_native
from som.errors import UserError
from som.preprocessing.report import write_report
from som.preprocessing.report.camera_plot import level_axes, plot_cameras
from som.preprocessing.report.contents import Report, Stage
from som.preprocessing.report.folder import spread
from som.preprocessing.report.page import plain_rows, render_page
from som.preprocessing.report.pictures import outline_mask
from som.preprocessing.report.sheet import WIDTH, render_sheet
from som.preprocessing.report.write import make_report
from tests.preprocessing.check.scenes import T, poses, wall_dataset, write_exact_flow

TITLES = ["Frames", "Masks of what moves", "Cameras", "Tracks", "Depth", "Optical flow"]


class Page(HTMLParser):
    """Collects what a browser would load, and checks that tags are closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.images, self.links, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [value for key, value in attrs.items() if key in ("src", "href")]
        if tag == "img":
            self.images.append(attrs["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def stage(name: str, state: str = "done", warnings=(), **findings) -> dict:
    common = {"method": f"method of {name}", "seconds": 1.25, "fingerprint": "0"}
    return {"name": name, "state": state, "findings": findings, "warnings": list(warnings), **common}


def write_record(root, *stages) -> None:
    record = {"version": 1, "source": {"path": "clips/walk.mp4"}, "stages": list(stages)}
    (root / "preprocessing.json").write_text(json.dumps(record))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "wall"
    write_native(wall_dataset(), root)
    write_exact_flow(root / "flow")
    return root


def test_the_page_shows_everything_and_needs_nothing(root):
    write_record(root, stage("frames", fps=12.0), stage("cameras", "given"), stage("depth", "skipped"))
    path = write_report(root)
    assert path == root / "report.html" and path.stat().st_size < 5e6
    text = path.read_text()
    page = Page(text)
    assert len(page.images) > 20 and all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    for source in page.images:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None and max(image.shape) <= 640
    for words in [*TITLES, "clips/walk.mp4", "method of cameras", "given", "skipped", "1.2 s", "nothing looks wrong"]:
        assert any(words in part for part in page.text), words
    sheet = cv2.imread(str(root / "report.png"))
    assert sheet.shape[1] == WIDTH and sheet.shape[0] > 1000
    assert [p.name for p in root.iterdir() if p.name.endswith(".tmp")] == []


def test_the_same_folder_gives_the_same_report(root):
    first = write_report(root).read_bytes(), (root / "report.png").read_bytes()
    assert (write_report(root).read_bytes(), (root / "report.png").read_bytes()) == first


def test_warnings_stand_at_the_top_in_order_of_weight(root):
    flow, cameras, depth = "Flow is <poor>.", "The focal length is uncertain.", "Depth is coarse."
    write_record(
        root, stage("flow", warnings=[flow]), stage("cameras", warnings=[cameras]), stage("depth", "failed", [depth])
    )
    report = make_report(root)
    assert [text for _, text in report.warnings] == [depth, cameras, flow]
    assert report.grade == "bad" and report.verdict == "Preprocessing stopped: depth failed."
    text = render_page(report)
    assert "Flow is &lt;poor&gt;." in text and "<poor>" not in text
    assert text.index("Depth is coarse") < text.index("focal length is uncertain") < text.index("<h2>")


def test_verdicts():
    assert Report("a").grade == "good" and "nothing looks wrong" in Report("a").verdict
    doubtful = Report("a", warnings=[("check", "Look.")])
    assert doubtful.grade == "doubtful" and "1 thing should" in doubtful.verdict
    broken = Report("a", problems=["x: is missing.", "y: is missing."], warnings=[("check", "Look.")])
    assert broken.grade == "bad" and "2 problems" in broken.verdict
    assert Report("a", stages=[Stage("flow", "failed")]).grade == "bad"


def test_a_broken_data_set_is_said_to_be_broken(root):
    (root / "depth" / "003.npy").unlink()
    report = make_report(root)
    assert report.grade == "bad" and any("003.npy" in problem for problem in report.problems)
    assert "003.npy" in write_report(root).read_text()


def test_an_unfinished_folder_shows_what_is_there(root):
    for name in ("transforms.json", "tracks.npz"):
        (root / name).unlink()
    write_record(root, stage("frames"), stage("flow"), stage("cameras", "failed", ["No parallax: move the camera."]))
    report = make_report(root)
    assert [section.title for section in report.sections] == ["Frames", "Masks of what moves", "Optical flow"]
    assert report.verdict == "Preprocessing stopped: cameras failed."
    np.savez(root / "cameras.npz", w2c=poses(), K=np.eye(3) * 60, registered=np.arange(T) < 9, points=np.zeros((0, 3)))
    report = make_report(root)
    assert "3 of 12 frames have no camera" in next(s for s in report.sections if s.title == "Cameras").explanation
    write_report(root)


@pytest.mark.parametrize("name", ["tracks.npz", "cameras.npz", "preprocessing.json", "flow/00000_00001.npz"])
def test_what_cannot_be_read_is_said_and_the_rest_is_shown(root, name):
    (root / name).write_bytes(b"broken")
    report = make_report(root)
    assert len(report.sections) >= 4
    assert any(name.split("/")[-1] in text for text in [*report.problems, *(text for _, text in report.warnings)])


def test_an_empty_folder_and_none(tmp_path):
    (tmp_path / "empty").mkdir()
    report = make_report(tmp_path / "empty")
    assert report.grade == "bad" and report.sections == []
    assert write_report(tmp_path / "empty").is_file()
    with pytest.raises(UserError, match="no such folder"):
        write_report(tmp_path / "none")


def test_a_static_camera_is_said_in_words(root):
    header = json.loads((root / "transforms.json").read_text())
    for frame in header["frames"]:
        frame["transform_matrix"] = header["frames"][0]["transform_matrix"]
    (root / "transforms.json").write_text(json.dumps(header))
    section = next(s for s in make_report(root).sections if s.title == "Cameras")
    assert "stands still" in section.explanation and section.pictures == []


def test_masks_keep_their_colours():
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:60] = True
    shown = outline_mask(image, mask)
    assert np.array_equal(shown[24:36, 34:56], image[24:36, 34:56])
    saturation = np.ptp(shown[:16].astype(int), axis=-1)
    assert saturation.max() <= 0.13 * 255 + 1
    assert (shown[20, 30:60, 0] > 150).all()  # the outline
    assert np.array_equal(outline_mask(image, np.zeros_like(mask))[:5], outline_mask(image, mask)[:5])


def look_along(position, forward, up=(0.0, 0.0, 1.0)) -> np.ndarray:
    """World to camera of a camera at a position, in a world whose z points up."""
    forward, up = np.array(forward, float), np.array(up)
    right = np.cross(forward, up)
    R = np.stack([right, -up, forward])
    w2c = np.eye(4)
    w2c[:3, :3], w2c[:3, 3] = R, -R @ np.array(position, float)
    return w2c


def test_plans_are_level_and_the_right_way_round():
    w2c = np.stack([look_along((t, 0.2 * t, 1.6 + 0.1 * t), (0, 1, 0)) for t in range(8)])
    assert level_axes(w2c) == pytest.approx(np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]], float), abs=1e-9)
    for view in ("above", "side"):
        image = plot_cameras(w2c, None, None, view=view).astype(int)
        begin = np.argwhere((image[..., 2] > 200) & (image[..., 0] < 100)).mean(0)
        end = np.argwhere((image[..., 0] > 180) & (image[..., 1] < 60)).mean(0)
        # from above x points right and y up; from the side y points right and z up
        assert end[1] > begin[1] + 20 and end[0] < begin[0] - 20, view


def test_far_points_do_not_push_the_path_out_of_the_plan():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-3, 3, (500, 3)), [[1e9, 0, 0], [0, -1e9, 1e9]]])
    colors = np.full((502, 3), (0, 255, 0), np.uint8)
    image = plot_cameras(poses(), points, colors, view="above")
    assert (image == (0, 255, 0)).all(-1).sum() > 300


def test_findings_become_rows():
    rows = dict(plain_rows({"fps": 12.3456, "a": {"b_c": None, "d": []}, "long": list(range(20)), "flag": True}))
    assert rows["fps"] == "12.35" and rows["a.b c"] == "-" and rows["a.d"] == "none" and rows["flag"] == "True"
    assert rows["long"].endswith("(20 in all)")


def test_spread_takes_the_ends():
    assert spread(10, 4) == [0, 3, 6, 9] and spread(3, 8) == [0, 1, 2] and spread(1, 4) == [0] and spread(0, 4) == []


def test_the_sheet_breaks_long_sentences():
    long = Report("a", warnings=[("check", "word " * 120)] * 12)
    assert render_sheet(long).shape[1] == WIDTH
