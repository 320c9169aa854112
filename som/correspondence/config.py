"""Settings of the optical flow between training views. Free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class FlowConfig:
    """Optical flow between the training views; taken from the data set or, only where something needs it, computed and
    kept in <work-dir>/flow."""

    source: Literal["auto", "dataset", "compute"] = "auto"
    """``dataset``: what ``som4d preprocess`` left in the data set's flow/ folder; ``compute``: computed anew by the
    settings below; ``auto``: the data set's where it has any and no ``weights`` are given."""
    estimator: Literal["auto", "dis", "raft-large", "raft-small"] = "auto"
    """``auto``: the RAFT model that ``weights`` holds, or OpenCV's DIS, which needs no weights."""
    weights: Path | None = None
    """Checkpoint of RAFT, princeton-vl's or torchvision's."""
    strides: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Distances in views over which flow is computed, in both directions."""
    max_side: int = 480
    """Flow is computed on images reduced to at most this many pixels on the longer side."""
