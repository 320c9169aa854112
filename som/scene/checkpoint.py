"""Checkpoint files of scenes: the scene, the step, the configuration and what a trainer needs to go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from som.runs.checkpoint import incomplete, read_checkpoint, write_checkpoint
from som.scene.dynamic_scene import DynamicScene


@dataclass
class Checkpoint:
    """What a checkpoint file holds."""

    scene: DynamicScene
    step: int
    """Number of optimisation steps done."""
    config: dict = field(default_factory=dict)
    """The run's complete configuration (as in config.yaml)."""
    training: dict = field(default_factory=dict)
    """State of the trainer (optimisers, density statistics); empty in a scene that was only exported."""

    def payload(self) -> dict:
        """Plain values, for a file."""
        return {"step": self.step, "scene": self.scene.state(), "config": self.config, "training": self.training}


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically.

    Raises:
        CheckpointError: the file cannot be written.
    """
    write_checkpoint(path, "scene", checkpoint.payload())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or newer than this program.
    """
    payload = read_checkpoint(path, "scene")
    try:
        scene = DynamicScene.from_state(payload["scene"])
        return Checkpoint(scene, payload["step"], payload["config"], payload["training"])
    except (KeyError, TypeError, ValueError) as error:
        raise incomplete(path, error) from error
