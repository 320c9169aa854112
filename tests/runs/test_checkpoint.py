import pytest
import torch

from som.runs.checkpoint import CheckpointError, read_checkpoint, save_step, write_checkpoint
from som.runs.work_dir import checkpoint_path, checkpoint_steps


def test_a_file_of_another_kind_is_named(tmp_path):
    write_checkpoint(tmp_path / "a.ckpt", "depth network", {"step": 1})
    with pytest.raises(CheckpointError, match="is a checkpoint of a depth network, expected a checkpoint of a scene"):
        read_checkpoint(tmp_path / "a.ckpt", "scene")


def test_files_of_the_first_version_are_read(tmp_path):
    torch.save({"format": "som4d-checkpoint", "version": 1, "step": 3}, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt", "scene") == {"step": 3}


def test_last_is_the_newest_and_old_steps_go_if_wanted(tmp_path):
    for step in (1, 2, 3, 4):
        save_step(tmp_path, step, "scene", {"step": step}, numbered=True, keep=2)
    assert checkpoint_steps(tmp_path) == [3, 4]
    save_step(tmp_path, 5, "scene", {"step": 5}, numbered=False)
    assert read_checkpoint(checkpoint_path(tmp_path), "scene")["step"] == 5
    assert read_checkpoint(checkpoint_path(tmp_path, 4), "scene")["step"] == 4
