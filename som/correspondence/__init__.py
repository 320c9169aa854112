"""Optical flow between the training views: static links that align depth, and pixel pairs that order it."""

from som.correspondence.config import FlowConfig

__all__ = ["FlowConfig", "link_pixel_pairs", "link_static_points", "training_flow"]


def __getattr__(name: str):
    """Loads the rest when it is first used, so that settings can be read without heavy imports."""
    if name in __all__:
        from som.correspondence import links

        return getattr(links, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
