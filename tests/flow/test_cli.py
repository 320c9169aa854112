"""python -m flow, as a user types it, on a small moving texture."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from flow.cli import main
from flow.compute import open_video_flow
from flow.files import read_flow, write_flow
from flow.track_files import read_tracks, write_tracks
from flow.tracks import PointTracks

H, W, T, STEP = 64, 96, 5, 2


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frames of a cloth that moves 2 px to the right a frame, and masks of its left half."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "masks").mkdir()
    (folder / "images").mkdir()
    cloth = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (H, W + T * STEP, 3)), (0, 0), 2)
    cloth = cv2.normalize(cloth, None, 0, 255, cv2.NORM_MINMAX)
    for t in range(T):
        start = (T - t) * STEP
        cv2.imwrite(str(folder / "images" / f"{t}.png"), cloth[:, start : start + W])
        mask = np.zeros((H, W), np.uint8)
        mask[:, : W // 2] = 255
        cv2.imwrite(str(folder / "masks" / f"{t}.png"), mask)
    return folder


def run(*arguments) -> int:
    return main([str(a) for a in arguments])


def test_help_answers_without_loading_torch():
    code = "import sys, flow.cli\ntry: flow.cli.main(['tracks', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    shown = subprocess.run([sys.executable, "-m", "flow", "--help"], capture_output=True, text=True, check=True)
    assert "python -m flow tracks" in shown.stdout


def test_a_pair_is_computed_scored_and_pictured(clip, tmp_path, capsys):
    truth = torch.zeros(H, W, 2)
    truth[..., 0] = STEP
    write_flow(tmp_path / "truth.flo", truth)
    images = clip / "images" / "0.png", clip / "images" / "1.png"
    options = "--truth", tmp_path / "truth.flo", "--output", tmp_path / "f.flo", "--picture", tmp_path / "f.png"
    assert run("pair", *images, *options) == 0
    out = capsys.readouterr().out
    assert float(out.split("EPE ")[1].split()[0]) < 0.3 and "method dis" in out
    assert read_flow(tmp_path / "f.flo")[0].shape == (H, W, 2)
    assert cv2.imread(str(tmp_path / "f.png")).shape == (2 * H, 2 * W, 3)


def test_a_video_fills_a_folder_and_goes_on_from_it(clip, tmp_path, capsys):
    arguments = "video", clip / "images", "--output", tmp_path / "flow", "--strides", 1, 2, "--max-side", 64
    assert run(*arguments, "--pictures", tmp_path / "pictures") == 0
    flow = open_video_flow(tmp_path / "flow")
    assert (flow.num_frames, flow.width, flow.strides()) == (T, 64, (1, 2))
    assert len(list((tmp_path / "pictures").glob("*.png"))) == T - 1
    capsys.readouterr()
    assert run(*arguments) == 0 and "14 found in" in capsys.readouterr().out


def test_tracks_are_written_in_the_images_pixels_and_drawn(clip, tmp_path):
    outputs = "--output", tmp_path / "tracks.npz", "--picture", tmp_path / "tracks.png"
    options = "--max-side", 64, "--masks", clip / "masks", "--num-tracks", 60, "--flow", tmp_path / "flow"
    assert run("tracks", clip / "images", *outputs, *options) == 0
    tracks = read_tracks(tmp_path / "tracks.npz", T)
    moved = tracks.xy[:, -1] - tracks.xy[:, 0]
    seen = tracks.visible[:, 0] & tracks.visible[:, -1]
    assert seen.sum() > 20 and (moved[seen] - torch.tensor([STEP * (T - 1.0), 0])).norm(dim=1).median() < 0.5
    query = tracks.xy[torch.arange(len(tracks)), tracks.query_frames]
    assert (query[:, 0] < W / 2).float().mean() > 0.55  # denser where the masks are
    assert cv2.imread(str(tmp_path / "tracks.png")).shape == (3 * H, 3 * W, 3)


def test_tracks_are_scored_against_true_ones(clip, tmp_path, capsys):
    start = torch.tensor([[20.5, 20.5], [40.5, 30.5], [50.5, 44.5]])
    xy = start[:, None] + torch.arange(T)[None, :, None] * torch.tensor([float(STEP), 0.0])
    flags = torch.ones(3, T, dtype=torch.bool)
    truth = PointTracks(torch.zeros(3, dtype=torch.long), xy, flags, flags.float(), torch.zeros(3, T))
    write_tracks(tmp_path / "truth.npz", truth)
    assert run("tracks", clip / "images", "--truth", tmp_path / "truth.npz") == 0
    assert float(capsys.readouterr().out.split("AJ ")[1].split(",")[0]) > 0.9


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pair", "{clip}/images/0.png", "{clip}/nothing.png"), "nothing.png: this image is missing"),
        (("pair", "{clip}/images/0.png", "{clip}/images/1.png", "--weights", "{clip}/images/0.png"), "0.png"),
        (("pair", "{clip}/images/0.png", "{clip}/images/1.png", "--picture", "{clip}/a.gif"), "a.gif"),
        (("video", "{clip}", "--output", "{clip}/flow"), "holds no"),
        (("tracks", "{clip}/images", "--masks", "{clip}"), "has no mask 0.png"),
        (("tracks", "{clip}/images", "--truth", "{clip}/none.npz"), "none.npz"),
        (("video", "{clip}/images", "--output", "{clip}/flow", "--strides", "0"), "strides"),
        (("video", "{clip}/images", "--output", "{clip}/flow", "--stop", "3"), "this option is called --end now"),
    ],
)
def test_bad_input_is_one_sentence(clip, capsys, arguments, sentence):
    assert run(*(a.format(clip=clip) for a in arguments)) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ") and sentence in err and "\n" not in err
