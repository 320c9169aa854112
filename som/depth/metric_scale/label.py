"""The camera-height label: one metric height per camera, improved from epoch to epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.metric_scale.consensus import agree


@dataclass(frozen=True)
class LabelConfig:
    """How the label follows the epochs."""

    update: Literal["weighted", "moving_average"] = "weighted"
    """``weighted``: sum_e w_e h_e / sum_e w_e over the accepted epochs with w_e = e, so that later ones count more
    (FUMET). ``moving_average``: label <- momentum x label + (1 - momentum) x h_e."""
    momentum: float = 0.9
    """Share of the old label that a moving average keeps, in [0, 1)."""
    warmup_epochs: int = 1
    """First epochs whose heights are thrown away: their geometry is not there yet."""
    period: int = 1
    """The label moves at the end of every ``period``-th epoch after the warm-up; the heights of the epochs between,
    in which depth is still following the last move, are thrown away."""
    max_height_error: float | None = 0.2
    """Objects that contradict their epoch's own camera height by this share are left out of it, as in
    ``FrameConfig``; None leaves none out."""
    max_jump: float | None = 2.0
    """A height at least this many times the label, or at most the label over this, is refused; None accepts all."""

    def __post_init__(self) -> None:
        if self.update not in ("weighted", "moving_average"):
            raise DepthError(f'update of the label must be "weighted" or "moving_average", got {self.update!r}.')
        if not 0 <= self.momentum < 1:
            raise DepthError(f"momentum of the label must lie in [0, 1), got {self.momentum}.")
        if self.warmup_epochs < (1 if self.update == "weighted" else 0):
            raise DepthError("warmup_epochs of a weighted label must be at least 1: epoch 0 has weight 0.")
        if self.period < 1:
            raise DepthError(f"period of the label must be at least 1 epoch, got {self.period}.")
        if self.max_jump is not None and self.max_jump <= 1:
            raise DepthError(f"max_jump of the label must be > 1, or None, got {self.max_jump}.")


class CameraHeightLabel:
    """Collects what an epoch's objects say of the camera height, and turns what they agree on into a label per group.

    A group is what shares one camera height: a clip, a vehicle, a data set. Epochs count from 0. The epoch's objects
    are tested against the height that they agree on, not against the label: a label that began wrong would keep just
    the objects that confirm it. Under several processes gather the candidates before ``add``, so that every process
    holds the same label.
    """

    def __init__(self, config: LabelConfig = LabelConfig()):
        self.config = config
        self.epoch = 0
        """The epoch that candidates are being collected for."""
        self._pending: dict[str, list[list[float]]] = {}
        self._numerator: dict[str, float] = {}
        self._denominator: dict[str, float] = {}

    def add(self, candidates: Tensor | Sequence[float] | Sequence[Sequence[float]], group: str = "") -> None:
        """Takes in candidates of the current epoch.

        Args:
            candidates: rows (P,3) of ``height_candidates``, or plain metric camera heights (P,), to which no horizon
                test applies. Heights that are not finite and > 0 are left out.
            group: the camera.

        Raises:
            ValueError: another shape.
        """
        rows = torch.as_tensor(candidates, dtype=torch.float64).detach().cpu()
        if rows.ndim == 1:
            unknown = torch.full_like(rows, torch.nan)
            rows = torch.stack([rows, unknown, unknown], dim=-1)
        if rows.ndim != 2 or rows.shape[1] != 3:
            raise ValueError(f"candidates must be (P,3), or heights (P,), got {tuple(rows.shape)}.")
        self._pending.setdefault(group, []).extend(rows[rows[:, 0].isfinite() & (rows[:, 0] > 0)].tolist())

    def value(self, group: str = "") -> float | None:
        """The label in metres; None while there is none."""
        if group not in self._denominator:
            return None
        return self._numerator[group] / self._denominator[group]

    def end_epoch(self) -> dict[str, float]:
        """Closes the epoch: moves the labels where it is their time, and forgets the epoch's candidates.

        Returns:
            the heights that the guard refused, by group.
        """
        since = self.epoch - self.config.warmup_epochs
        refused = {}
        if since >= 0 and since % self.config.period == 0:
            for group, rows in self._pending.items():
                candidates = torch.tensor(rows, dtype=torch.float64).view(-1, 3)
                height, _ = agree(candidates, self.config.max_height_error)
                if height is not None and not self._accept(group, height):
                    refused[group] = height
        self._pending = {}
        self.epoch += 1
        return refused

    def _accept(self, group: str, height: float) -> bool:
        old, jump = self.value(group), self.config.max_jump
        if old is not None and jump is not None and not old / jump < height < old * jump:
            return False
        if self.config.update == "weighted":
            # Numerator and denominator are kept apart, so that the first accepted epoch gives exactly its height.
            self._numerator[group] = self._numerator.get(group, 0.0) + self.epoch * height
            self._denominator[group] = self._denominator.get(group, 0.0) + self.epoch
        else:
            beta = self.config.momentum
            self._numerator[group] = height if old is None else beta * old + (1 - beta) * height
            self._denominator[group] = 1.0
        return True

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, in plain numbers; candidates of an unfinished epoch included."""
        return {
            "epoch": self.epoch,
            "pending": {group: [list(row) for row in rows] for group, rows in self._pending.items()},
            "numerator": dict(self._numerator),
            "denominator": dict(self._denominator),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from ``state_dict``.

        Raises:
            DepthError: an entry is missing or unknown.
        """
        expected = {"epoch", "pending", "numerator", "denominator"}
        if set(state) != expected:
            raise DepthError(f"state of the camera-height label must hold {sorted(expected)}, got {sorted(state)}.")
        self.epoch = int(state["epoch"])
        self._pending = {group: [list(row) for row in rows] for group, rows in state["pending"].items()}
        self._numerator, self._denominator = dict(state["numerator"]), dict(state["denominator"])
