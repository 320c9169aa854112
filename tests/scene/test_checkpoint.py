import pytest
import torch

from som.runs.checkpoint import CheckpointError
from som.scene.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def test_everything_round_trips(scene, cameras, tmp_path):
    path = tmp_path / "checkpoints" / "a.ckpt"
    training = {"optimizers": {"x": [torch.ones(2), 3.5]}, "density": {"n": 1}}
    save_checkpoint(path, Checkpoint(scene, 42, {"seed": 7}, training))
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.config) == (42, {"seed": 7})
    assert torch.equal(loaded.training["optimizers"]["x"][0], torch.ones(2))
    assert loaded.scene.normalization.scale == scene.normalization.scale == 2.5
    assert torch.equal(loaded.scene.center, scene.center)
    for (name, a), (other, b) in zip(scene.named_parameters(), loaded.scene.named_parameters(), strict=True):
        assert name == other and torch.equal(a, b)
    w2cs, Ks, size = cameras
    before, after = (s.rasterize_views(w2cs, Ks, torch.tensor([0, 4]), *size) for s in (scene, loaded.scene))
    assert torch.equal(before.rgb, after.rgb)


def test_loads_without_executing_code(scene, tmp_path):
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, Checkpoint(scene, 1))
    assert torch.load(path, weights_only=True)["version"] == 1


def test_saving_over_a_file_is_atomic(scene, tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, Checkpoint(scene, 1))
    before = path.read_bytes()

    def broken(payload, stream):
        stream.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(CheckpointError, match="disk full"):
        save_checkpoint(path, Checkpoint(scene, 2))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["missing", "garbage", "truncated", "foreign", "newer", "incomplete"])
def test_wrong_files_are_refused_in_one_sentence(kind, scene, tmp_path):
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, Checkpoint(scene, 1))
    if kind == "missing":
        path.unlink()
    elif kind == "garbage":
        path.write_bytes(b"not a checkpoint")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "foreign":
        torch.save({"model": torch.zeros(3)}, path)
    else:
        payload = torch.load(path, weights_only=True)
        if kind == "newer":
            payload["version"] = 99
        else:
            del payload["scene"]["foreground"]["means"]
        torch.save(payload, path)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
