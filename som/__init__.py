"""4D scenes from one video: Gaussians that move, optimised against it, rendered from any camera at any time.

    import som

    data = som.load_dataset("data/my_video")
    run = som.train(data, work_dir="out", steps=1000)
    scene = som.load_scene("out")
    picture = scene.render(som.Camera(K, w2c, width=480, height=270), time=12.5)

What is listed in ``__all__`` is the public interface; ``docs/api.md`` describes it. Importing this package is cheap and
changes nothing of the process: names and sub-packages (``som.rendering``, ...) are imported when they are first used.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from som.cameras import Camera
    from som.data.dataset import VideoDataset
    from som.data.load import load_dataset
    from som.errors import UserError
    from som.evaluation.evaluate import evaluate
    from som.preprocessing import preprocess
    from som.rendering import rasterize
    from som.scene import DynamicScene, Picture
    from som.scene.load import load_scene
    from som.training.train import train

__version__ = "0.1.0"
__all__ = [
    "Camera",
    "DynamicScene",
    "Picture",
    "UserError",
    "VideoDataset",
    "evaluate",
    "load_dataset",
    "load_scene",
    "preprocess",
    "rasterize",
    "train",
]

_MODULES = {
    "Camera": "som.cameras",
    "DynamicScene": "som.scene",
    "Picture": "som.scene",
    "UserError": "som.errors",
    "VideoDataset": "som.data.dataset",
    "evaluate": "som.evaluation.evaluate",
    "load_dataset": "som.data.load",
    "load_scene": "som.scene.load",
    "preprocess": "som.preprocessing",
    "rasterize": "som.rendering",
    "train": "som.training.train",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return value
    if name in _submodules():
        return importlib.import_module(f"som.{name}")
    raise AttributeError(f"module 'som' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__, *_submodules()])


def _submodules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _check_that_flow_is_ours() -> None:
    """``flow``, on which this package stands, has a common name that another module may hide."""
    try:
        spec = importlib.util.find_spec("flow")
    except ValueError:  # a module without a spec was put in its place
        spec = None
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    if not any(os.path.isfile(os.path.join(folder, "io", "atomic.py")) for folder in folders):
        found = "cannot be found" if spec is None else f"is hidden by {spec.origin or list(folders)}"
        raise ImportError(f"som needs its package `flow`, which {found}; rename that module, or run in another folder.")


_check_that_flow_is_ours()
