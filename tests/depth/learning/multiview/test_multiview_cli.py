"""som4d depth train, score and predict with mvdepthnet, on files."""

import json

import cv2
import numpy as np
import pytest
import torch

from som.commands.depth.options import (
    InputOptions,
    ModelOptions,
    PredictCommand,
    ReaderOptions,
    ScoreCommand,
    TrainCommand,
)
from som.commands.depth.predict import predict
from som.commands.depth.score import score
from som.commands.depth.train import train
from som.depth.errors import DepthError
from som.depth.learning.training.checkpoint import load_checkpoint
from tests.depth.learning.multiview.conftest import plane_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A clip on disk in the plain layout."""
    path, clip = tmp_path_factory.mktemp("plane"), plane_clip(0)
    (path / "images").mkdir()
    (path / "depth").mkdir()
    for t, name in enumerate(clip.names):
        cv2.imwrite(str(path / "images" / f"{name}.png"), clip.image_bytes(t)[..., ::-1])
        np.save(path / "depth" / f"{name}.npy", clip.depth(t)[0].numpy())
    np.savetxt(path / "K.txt", clip.Ks[0].numpy())
    np.savetxt(path / "poses_cam_to_world.txt", torch.linalg.inv(clip.w2cs.double()).flatten(1).numpy())
    return path


def test_a_trained_network_scores_and_predicts(folder, make_config, tmp_path, capsys):
    source = InputOptions(data=(folder,), reader=ReaderOptions(center_offset=0))
    command = TrainCommand(source, tmp_path / "run", make_config(steps=30), device="cpu")
    assert train(command) == 0
    assert train(command) == 0
    assert "is complete" in capsys.readouterr().err

    model = ModelOptions(model=tmp_path / "run", scene_range=(1.2, 12.0))
    assert score(ScoreCommand(source, model=model, scales=("none",), output=tmp_path / "scores", device="cpu")) == 0
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert next(iter(scores.values()))["metrics"]["abs_rel"] < 0.2

    assert predict(PredictCommand(source, output=tmp_path / "depth", model=model, device="cpu")) == 0
    assert json.loads((tmp_path / "depth" / "depth.json").read_text())["depth_kind"] == "metric"
    assert np.load(tmp_path / "depth" / "depth" / "00000.npy").shape == (64, 64)

    with pytest.raises(DepthError, match="--flip"):
        score(ScoreCommand(source, model=model, flip=True, device="cpu"))
    with pytest.raises(DepthError, match=r"matching published and network\.width 1"):
        train(
            TrainCommand(
                source, tmp_path / "other", make_config(), weights=tmp_path / "opensource_model.pth.tar", device="cpu"
            )
        )
    started = TrainCommand(source, tmp_path / "more", make_config(steps=1), weights=tmp_path / "run", device="cpu")
    assert train(started) == 0
    trained, more = (load_checkpoint(tmp_path / name / "checkpoints/last.ckpt").depth_net for name in ("run", "more"))
    assert float((trained["net.conv1.0.weight"] - more["net.conv1.0.weight"]).abs().max()) < 0.01
