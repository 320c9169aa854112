import pytest
import torch

from flow.io.atomic import link_file
from som.depth.learning.training.checkpoint import DepthCheckpoint, load_checkpoint, save_checkpoint
from som.runs.checkpoint import CheckpointError
from som.runs.work_dir import checkpoint_path


def make() -> DepthCheckpoint:
    return DepthCheckpoint(
        step=7,
        network={"name": "small", "depth_range": (0.1, 10.0)},
        depth_net={"a": torch.arange(3.0)},
        config={"steps": 9},
        units="scene",
        training={"optimizer": {"state": {0: torch.ones(2)}}},
    )


def test_what_is_written_is_read(tmp_path):
    path = checkpoint_path(tmp_path, 7)
    assert path.name == "step_000007.ckpt"
    save_checkpoint(path, make())
    link_file(path, checkpoint_path(tmp_path))
    read = load_checkpoint(checkpoint_path(tmp_path))
    assert (read.step, read.units, read.config) == (7, "scene", {"steps": 9})
    assert torch.equal(read.depth_net["a"], torch.arange(3.0))
    assert torch.equal(read.training["optimizer"]["state"][0], torch.ones(2))
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.ckpt", "step_000007.ckpt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = checkpoint_path(tmp_path)
    save_checkpoint(path, make())

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(path, make())
    assert load_checkpoint(path).step == 7
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")
    damaged = tmp_path / "damaged.ckpt"
    save_checkpoint(damaged, make())
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(damaged)
    foreign = tmp_path / "foreign.pth"
    torch.save({"encoder.conv1.weight": torch.ones(1)}, foreign)
    with pytest.raises(CheckpointError, match="no checkpoint of this program"):
        load_checkpoint(foreign)
    newer = tmp_path / "newer.ckpt"
    torch.save({"format": "som4d-depth-checkpoint", "version": 99}, newer)
    with pytest.raises(CheckpointError, match="checkpoint format 99"):
        load_checkpoint(newer)
    lacking = tmp_path / "lacking.ckpt"
    torch.save({"format": "som4d-depth-checkpoint", "version": 1, "step": 3}, lacking)
    with pytest.raises(CheckpointError, match="incomplete"):
        load_checkpoint(lacking)
