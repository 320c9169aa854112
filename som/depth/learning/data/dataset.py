"""Training samples: a target frame with its source frames, the same for any number of workers and after a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.data.augmentation import AUGMENTATION, AugmentationConfig, ColorJitter, FlipCrop

SourceRule = Callable[[DepthSequence, int], Sequence[int] | None]
"""Gives the source frames of a target frame; None if it cannot be a target."""
Annotate = Callable[[DepthSequence, int], dict[str, Tensor]]
"""Gives further things that are known of a frame, see ``DepthDataset``."""


@dataclass(frozen=True)
class Neighbors:
    """The rule that takes the frames at fixed offsets from the target; frames without all of them are no targets."""

    offsets: tuple[int, ...] = (-1, 1)
    """In frames, not 0."""

    def __post_init__(self) -> None:
        if not self.offsets or 0 in self.offsets:
            raise DepthError(f"source offsets must be at least one and not 0, got {self.offsets}.")

    def __call__(self, sequence: DepthSequence, target: int) -> list[int] | None:
        sources = [target + offset for offset in self.offsets]
        return sources if min(sources) >= 0 and max(sources) < len(sequence) else None


PREVIOUS_AND_NEXT = Neighbors()


class DepthDataset(Dataset):
    """Samples of one or several sequences of equal image size.

    ``dataset[i]`` is target ``i`` as in epoch 0, ``dataset[epoch, i]`` the same target with that epoch's augmentation.
    Everything random follows from (seed, epoch, i) alone. ``epoch_order`` gives shuffled (epoch, i).

    A sample is a dict of tensors, with N = 1 + number of sources; index 0 is the target:

    ==============  ============  ======================================================================
    ``images``      (N,3,H,W)     RGB in [0, 1], geometrically augmented, colours as they are: for losses
    ``inputs``      (N,3,H,W)     the same with colour jitter: for networks
    ``K``           (N,3,3)       intrinsics, where known
    ``w2c``         (N,4,4)       world to camera, where known
    ``T_src_tgt``   (N-1,4,4)     target camera to source cameras, where poses are known
    ``moving``      (N,H,W) bool  objects that move by themselves, where there are masks
    ``valid``       (N,H,W) bool  pixels that may be used, where a frame has such a mask
    ``depth``       (1,H,W)       the target's depth, 0 = unknown; if ``with_depth``
    ``flow``        (N-1,2,H,W)   optical flow (right, down) in pixels from the target to its sources; if ``with_flow``
    ``flow_known``  (N-1,H,W)     bool, where that flow is right; if ``with_flow``
    ``timestamps``  (N)           seconds, where known. ``speeds`` (N): m/s, where known
    ``flipped``     () bool       whether the sample is mirrored
    ``sequence``    () int        index of the sequence. ``frames`` (N) int: indices in it
    ==============  ============  ======================================================================

    and what ``annotate`` gives for the target. Keys that begin with ``boxes`` hold (...,4) boxes (left, top, right,
    bottom); other tensors whose last two sizes are (H,W) are masks or labels; both are augmented, the rest passed on.

    Args:
        sequences: which videos.
        sources: the rule that chooses source frames.
        targets: (sequence, frame) pairs to use; None takes every frame to which the rule gives sources.
        augmentation: how samples are varied.
        seed: of everything random.
        with_depth: adds the target's depth; zeros where the target has none.
        with_flow: adds optical flow from the target to its sources.
        annotate: see above.

    Raises:
        DepthError: no sequence or target, different image sizes, a rule that gives changing numbers of sources, frames
            outside the sequence or the target itself, or parts that some sequences have and others lack.
    """

    def __init__(
        self,
        sequences: Sequence[DepthSequence] | DepthSequence,
        sources: SourceRule = PREVIOUS_AND_NEXT,
        *,
        targets: Sequence[tuple[int, int]] | None = None,
        augmentation: AugmentationConfig = AUGMENTATION,
        seed: int = 0,
        with_depth: bool = False,
        with_flow: bool = False,
        annotate: Annotate | None = None,
    ) -> None:
        self.sequences = [sequences] if isinstance(sequences, DepthSequence) else list(sequences)
        self.augmentation, self.seed, self.annotate = augmentation, seed, annotate
        self.with_depth, self.with_flow = with_depth, with_flow
        if not self.sequences:
            raise DepthError("a data set needs at least one sequence.")
        for sequence in self.sequences[1:]:
            _check_alike(self.sequences[0], sequence)
        given = targets is not None
        if targets is None:
            targets = [(s, t) for s, sequence in enumerate(self.sequences) for t in range(len(sequence))]
        self.samples: list[tuple[int, tuple[int, ...]]] = []
        for s, target in targets:
            found = sources(self.sequences[s], target)
            if found is None and given:
                name = self.sequences[s].names[target]
                raise DepthError(f"{self.sequences[s].name}: frame {name} is a target but has no source frames.")
            if found is not None:
                self.samples.append((s, (target, *_checked(self.sequences[s], target, found))))
        if not self.samples:
            raise DepthError("no frame has the source frames that the rule asks for; give longer videos.")
        counts = {len(frames) for _, frames in self.samples}
        if len(counts) > 1:
            raise DepthError(f"every target needs the same number of sources, the rule gave {sorted(counts)}.")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = index if isinstance(index, tuple) else (0, index)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        s, frames = self.samples[index]
        sequence = self.sequences[s]
        generator = sample_generator(self.seed, epoch, index)
        change = FlipCrop.draw(*sequence.size, self.augmentation, generator)
        jitter = ColorJitter.draw(self.augmentation, generator)
        images = change.image(sequence.images(frames))
        sample = {
            "images": images,
            "inputs": images.clone() if jitter is None else jitter(images),
            **self._cameras(sequence, frames, change),
            **self._maps(sequence, frames, change),
            "flipped": torch.tensor(change.flip),
            "sequence": torch.tensor(s),
            "frames": torch.tensor(frames),
        }
        if self.annotate is not None:
            for key, value in self.annotate(sequence, frames[0]).items():
                if key.startswith("boxes"):
                    value = change.boxes(value)
                elif value.shape[-2:] == sequence.size:
                    value = change.map(value)
                sample[key] = value
        return sample

    @staticmethod
    def _cameras(sequence: DepthSequence, frames: tuple[int, ...], change: FlipCrop) -> dict[str, Tensor]:
        parts, chosen = {}, list(frames)
        if sequence.Ks is not None:
            parts["K"] = change.intrinsics(sequence.Ks[chosen])
        if sequence.w2cs is not None:
            w2c = change.pose(sequence.w2cs[chosen].double())
            parts["w2c"] = w2c.float()
            parts["T_src_tgt"] = (w2c[1:] @ torch.linalg.inv(w2c[:1])).float()
        for key in ("timestamps", "speeds"):
            values = getattr(sequence, key)
            if values is not None:
                parts[key] = values[chosen]
        return parts

    def _maps(self, sequence: DepthSequence, frames: tuple[int, ...], change: FlipCrop) -> dict[str, Tensor]:
        parts = {}
        moving = sequence.moving_masks(frames)
        if moving is not None:
            parts["moving"] = change.map(moving)
        if sequence.has_valid:
            everything = torch.ones(sequence.size, dtype=torch.bool)
            masks = [everything if (mask := sequence.valid(t)) is None else mask for t in frames]
            parts["valid"] = change.map(torch.stack(masks))
        if self.with_depth:
            target = frames[0]
            known = sequence.has_depth[target]
            depth = sequence.depth_at_image_size(target) if known else torch.zeros(sequence.size)
            parts["depth"] = change.map(depth[None])
        if self.with_flow:
            found = [sequence.flow(frames[0], source) for source in frames[1:]]
            parts["flow"] = change.flow(torch.stack([flow for flow, _ in found]))
            parts["flow_known"] = change.map(torch.stack([known for _, known in found]))
        return parts


def sample_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """The source of randomness of one sample."""
    state = np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def epoch_order(length: int, seed: int, epoch: int, shuffle: bool = True) -> list[tuple[int, int]]:
    """All (epoch, index) of one epoch, shuffled by (seed, epoch): a sampler for ``DepthDataset``.

    To resume inside an epoch, skip the samples that were used; to share an epoch among R processes, take every R-th.
    """
    order = torch.randperm(length, generator=sample_generator(seed, epoch, length)) if shuffle else torch.arange(length)
    return [(epoch, index) for index in order.tolist()]


def _check_alike(first: DepthSequence, other: DepthSequence) -> None:
    if first.size != other.size:
        sizes = " and ".join(f"{s.name} {s.size[1]}x{s.size[0]}" for s in (first, other))
        raise DepthError(f"sequences of one data set need one image size, got {sizes}; open them with size=.")
    parts = {"intrinsics": "Ks", "poses": "w2cs", "timestamps": "timestamps", "speeds": "speeds"}
    for what, key in parts.items():
        if (getattr(first, key) is None) != (getattr(other, key) is None):
            having, lacking = (first, other) if getattr(other, key) is None else (other, first)
            raise DepthError(f"{having.name} has {what} but {lacking.name} has none; train on one kind at a time.")
    for what, key in {"masks of moving objects": "has_moving", "valid masks": "has_valid"}.items():
        if getattr(first, key) != getattr(other, key):
            having, lacking = (first, other) if getattr(first, key) else (other, first)
            raise DepthError(f"{having.name} has {what} but {lacking.name} has none; train on one kind at a time.")


def _checked(sequence: DepthSequence, target: int, sources: Sequence[int]) -> tuple[int, ...]:
    sources = tuple(int(source) for source in sources)
    if not sources or target in sources or min(sources) < 0 or max(sources) >= len(sequence):
        name = f"{sequence.name}: frame {sequence.names[target]}"
        raise DepthError(
            f"{name}: source frames must be others of the {len(sequence)} frames, the rule gave {sources}."
        )
    return sources
