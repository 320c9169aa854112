"""A small clip of the demo scene, as images alone, and its truth."""

from pathlib import Path

import pytest

from som.data.config import DemoData
from som.data.dataset import VideoDataset
from som.data.demo import load_demo
from som.files import write_image


@pytest.fixture(scope="session")
def clip_truth(tmp_path_factory) -> VideoDataset:
    """Twelve frames of 160x96, with exact priors."""
    cache = tmp_path_factory.mktemp("demo")
    return load_demo(DemoData(cache_dir=cache, width=160, height=96, num_times=12, held_out_times=1, samples=2))


@pytest.fixture(scope="session")
def clip(clip_truth, tmp_path_factory) -> Path:
    """The folder of the frames."""
    folder = tmp_path_factory.mktemp("clip")
    for i, image in enumerate(clip_truth.train.images.numpy()):
        write_image(folder / f"{i:03d}.png", image)
    return folder
