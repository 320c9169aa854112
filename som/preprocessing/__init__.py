"""From a video to a data set folder: frames, flow, masks, cameras, tracks, depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from som.preprocessing.config import PreprocessRun
from som.preprocessing.providers.registry import register_provider

if TYPE_CHECKING:
    from som.preprocessing.pipeline import PreprocessResult, preprocess

__all__ = ["PreprocessResult", "PreprocessRun", "preprocess", "register_provider"]


def __getattr__(name: str) -> Any:
    if name in ("PreprocessResult", "preprocess"):  # torch and its kin, only where it is called
        from som.preprocessing import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
