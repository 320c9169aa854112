"""The first scene of a video from tracks, depth and masks."""

from som.initialization.config import InitializationConfig

__all__ = ["InitializationConfig", "initialize_scene"]


def __getattr__(name: str):
    """Loads ``initialize_scene`` when it is first used, so that settings can be read without heavy imports."""
    if name == "initialize_scene":
        from som.initialization.initialize import initialize_scene

        return initialize_scene
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
