"""Providers by name: one's own, those that are built in, and options that have no effect."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from som.data.load import read_native
from som.depth.networks import NetworkConfig, make_depth_net
from som.errors import UserError
from som.preprocessing import PreprocessRun, preprocess, register_provider
from som.preprocessing.config import CameraSettings, DepthSettings, FlowSettings, MaskSettings, TrackSettings
from som.preprocessing.pipeline import check_run
from som.preprocessing.providers.base import (
    CameraProvider,
    CameraResult,
    DepthProvider,
    DepthResult,
    MaskProvider,
    MaskResult,
    TrackProvider,
    TrackResult,
)
from som.preprocessing.providers.registry import REGISTRIES
from som.preprocessing.scene_cameras import SceneCameras

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def restored_registries(monkeypatch):
    """What a test registers is gone after it."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_providers", dict(registry._providers))


def options(clip: Path, output: Path, **changes) -> PreprocessRun:
    quick = PreprocessRun(clip, output, flow=FlowSettings(strides=(1, 2)), depth=DepthSettings(provider="layout"))
    return replace(quick, **changes)


@dataclass(frozen=True)
class TrueDepth(DepthProvider):
    """Depth of the truth, in metres."""

    depth: str

    def provide(self, clip, settings, *, device, seed, progress):
        progress("reading depth", 0.5)
        return DepthResult(torch.from_numpy(np.load(self.depth)), "metric", source={"program": "mine"})


class TrueCameras(CameraProvider):
    """Cameras of the truth."""

    uses_moving = False

    def __init__(self, truth):
        self.truth = truth

    def provide(self, clip, settings, *, device, seed, progress):
        K, w2c = (values.double().numpy() for values in (self.truth.cameras.K, self.truth.cameras.w2c))
        return CameraResult(SceneCameras.without_points(w2c, K, world_scale="metric"))


class TrueMasks(MaskProvider):
    """Masks of the truth."""

    uses_cameras = False

    def __init__(self, truth):
        self.truth = truth

    def provide(self, clip, settings, *, device, seed, progress):
        return MaskResult(self.truth.foreground, warnings=["look at me"])


class HalfOfTheTracks(TrackProvider):
    """Every other track of the built-in provider."""

    options = ("num_tracks",)

    def provide(self, clip, settings, *, device, seed, progress):
        built_in = REGISTRIES["tracks"].get("chained-flow")
        tracks = built_in.provide(clip, settings, device=device, seed=seed, progress=progress).tracks
        return TrackResult(tracks.select(torch.arange(0, len(tracks), 2)), method="every other track")


def test_every_stage_can_have_a_provider_of_ones_own(clip, clip_truth, tmp_path):
    truth = clip_truth.train
    np.save(tmp_path / "depth.npy", truth.depths.numpy())
    register_provider("cameras", "mine", TrueCameras(truth))
    register_provider("masks", "mine", TrueMasks(truth))
    register_provider("tracks", "half", HalfOfTheTracks())
    register_provider("depth", "mine", TrueDepth(str(tmp_path / "depth.npy")))
    said = []
    result = preprocess(
        clip,
        tmp_path / "data",
        flow=FlowSettings(strides=(1, 2)),
        cameras=CameraSettings(provider="mine"),
        masks=MaskSettings(provider="mine"),
        tracks=TrackSettings(provider="half", num_tracks=200),
        depth=DepthSettings(provider="mine"),
        progress=lambda text, share: said.append(text),
    )
    assert result.ok and "look at me" in result.warnings and result.report.is_file()
    assert [result.stages[name].method for name in ("cameras", "masks", "tracks", "depth")] == [
        "mine",
        "mine",
        "every other track",
        "mine",
    ]
    assert any(text.split() == ["depth", "reading", "depth"] for text in said)
    found = read_native(tmp_path / "data")
    assert found.world_scale == "metric" and found.depth_kind == "metric"
    assert found.train.cameras.w2c.numpy() == pytest.approx(truth.cameras.w2c.numpy(), abs=1e-5)
    assert (found.train.foreground == truth.foreground).all()
    assert (found.train.depths == truth.depths).all()
    assert len(found.tracks.query_times) <= 100


def test_a_provider_may_be_named_by_where_it_is(clip, tmp_path):
    register_provider("depth", "elsewhere", "som.preprocessing.providers.depth:LAYOUT")
    check_run(options(clip, tmp_path, depth=DepthSettings(provider="elsewhere")))
    assert "elsewhere" in REGISTRIES["depth"].names


def test_a_dataclass_provider_is_part_of_what_the_stage_depends_on(clip, tmp_path):
    from som.preprocessing.record import fingerprint
    from som.preprocessing.stages.depth import Depth

    run, prints = options(clip, tmp_path, depth=DepthSettings(provider="mine")), []
    for path in ("one.npy", "other.npy"):
        register_provider("depth", "mine", TrueDepth(path))
        prints.append(fingerprint(Depth().covers(run)))
    assert prints[0] != prints[1]


class WrongDepth(DepthProvider):
    """Maps of half of the frames."""

    def provide(self, clip, settings, *, device, seed, progress):
        return DepthResult(torch.ones(len(clip) // 2, *clip.size), "scale")


def test_results_of_the_wrong_shape_are_refused_in_one_sentence(clip, clip_truth, tmp_path):
    register_provider("cameras", "mine", TrueCameras(clip_truth.train))
    register_provider("depth", "mine", WrongDepth())
    run = options(clip, tmp_path / "data", cameras=CameraSettings(provider="mine"), skip=("masks", "tracks"))
    with pytest.raises(
        UserError, match=r"provider of depth returned depth of shape \(6, 96, 160\), expected \(12, any"
    ):
        preprocess(replace(run, depth=DepthSettings(provider="mine")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": DepthSettings(provider="nobody")}, "`depth.provider` nobody: .* choose one of auto, estimate"),
        ({"masks": MaskSettings(provider="nobody")}, "choose one of auto, motion, homography, multi-view, none, given"),
        ({"depth": DepthSettings(provider="given")}, "needs `depth.given`"),
        ({"depth": DepthSettings(given=Path("/"), provider="layout")}, "`depth.provider` layout contradict"),
        ({"depth": DepthSettings(given=Path("/"), max_side=128)}, "`depth.max_side` has no effect .* given"),
        ({"depth": DepthSettings(provider="layout", refine_poses=True)}, "`depth.refine_poses` has no effect"),
        ({"depth": DepthSettings(given_kind="metric")}, "`depth.given_kind` has no effect without `depth.given`"),
        ({"tracks": TrackSettings(given=Path("/"), num_tracks=9)}, "`tracks.num_tracks` has no effect"),
        ({"masks": MaskSettings(provider="none", grow_px=5)}, "`masks.grow_px` has no effect with the provider none"),
        ({"cameras": CameraSettings(given=Path("/"), query_stride=3)}, "`cameras.query_stride` has no effect"),
        ({"cameras": CameraSettings(allow_pickle=True)}, "`cameras.allow_pickle` has no effect"),
    ],
)
def test_settings_without_effect_are_refused(clip, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        check_run(options(clip, tmp_path, **changes))


def test_settings_of_a_skipped_stage_do_not_matter(clip, tmp_path):
    check_run(options(clip, tmp_path, skip=("depth",), depth=DepthSettings(provider="layout", refine_poses=True)))


def test_missing_pycolmap_is_said_before_any_work(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("som.preprocessing.providers.cameras.is_available", lambda: False)
    with pytest.raises(UserError, match=r"som4d\[cameras\]"):
        check_run(options(clip, tmp_path, cameras=CameraSettings(provider="global-mapping")))


def test_unfit_weights_of_the_depth_network_are_said_before_any_work(clip, tmp_path):
    good, bad = tmp_path / "small.pth", tmp_path / "resnet18.pth"
    torch.save(make_depth_net(NetworkConfig("small", num_scales=1)).state_dict(), good)
    torch.save(make_depth_net(NetworkConfig("resnet18", num_scales=1)).state_dict(), bad)
    before = torch.get_rng_state()
    check_run(options(clip, tmp_path, depth=DepthSettings(weights=good)))
    assert (torch.get_rng_state() == before).all()
    with pytest.raises(UserError, match=r"resnet18\.pth .* does not fit this small network"):
        preprocess(options(clip, tmp_path / "data", depth=DepthSettings(weights=bad)))
    assert not (tmp_path / "data").exists()


def test_raft_without_weights_is_said_before_any_work(clip, tmp_path):
    with pytest.raises(UserError, match="weights"):
        check_run(options(clip, tmp_path, flow=FlowSettings(estimator="raft-small")))


def test_names_load_nothing_heavy():
    code = (
        "import sys; from som.preprocessing import register_provider; import som.preprocessing.config;"
        "register_provider('depth', 'x', 'a:b'); print([m for m in ('torch', 'cv2', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
