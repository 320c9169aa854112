"""RAFT's weights: files in the two published naming schemes, and the published files by name."""

from __future__ import annotations

import hashlib
import http.client
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flow.errors import FlowError
from flow.raft.model import ARCHITECTURES, RAFT

URL = "https://download.pytorch.org/models/"
"""Where torchvision publishes its weights."""


@dataclass(frozen=True)
class PublishedWeights:
    """A weight file that torchvision publishes."""

    variant: str
    """``raft-large`` or ``raft-small``."""
    sha256: str
    """First 8 digits of the file's SHA-256."""
    training: str
    """Data sets in the order of training, and who trained: V1 are the paper's weights, V2 torchvision's own."""


_CT = "FlyingChairs, FlyingThings3D"
_SKHT = f"{_CT}, then Sintel + KITTI + HD1K + FlyingThings3D"

PUBLISHED = {
    "raft_large_C_T_V1": PublishedWeights("raft-large", "22a6c225", f"{_CT} (paper)"),
    "raft_large_C_T_V2": PublishedWeights("raft-large", "1bb1363a", f"{_CT} (torchvision)"),
    "raft_large_C_T_SKHT_V1": PublishedWeights("raft-large", "0b8c9e55", f"{_SKHT} (paper)"),
    "raft_large_C_T_SKHT_V2": PublishedWeights("raft-large", "ff5fadd5", f"{_SKHT} (torchvision)"),
    "raft_large_C_T_SKHT_K_V1": PublishedWeights("raft-large", "4a6a5039", f"{_SKHT}, then KITTI (paper)"),
    "raft_large_C_T_SKHT_K_V2": PublishedWeights("raft-large", "b5c70766", f"{_SKHT}, then KITTI (torchvision)"),
    "raft_small_C_T_V1": PublishedWeights("raft-small", "ad48884c", f"{_CT} (paper)"),
    "raft_small_C_T_V2": PublishedWeights("raft-small", "01064c6d", f"{_CT} (torchvision)"),
}
"""All weights that can be named instead of a file, by name."""

DEFAULT = {"raft-large": "raft_large_C_T_SKHT_V2", "raft-small": "raft_small_C_T_V2"}
"""The published weights of a variant when none are named; torchvision's defaults too."""

# From the published code's names to torchvision's, applied one after the other.
_RENAMES = [
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"(\.layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(\.layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.(conv[zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.\1."),
    (r"^update_block\.gru\.(conv[zrq])\.", r"update_block.recurrent_block.convgru1.\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
]
# The published large network keeps the normalisation of its shortcuts under a second name.
_ALIAS = re.compile(r"^cnet\.layer\d\.\d\.norm3\.")


def to_torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under torchvision's names, which are those of ``RAFT``; already so named entries stay.

    Args:
        state: entries named as by the published code or by torchvision, all with or all without ``module.`` in front.
            Second names of the same tensor (``cnet.layer2.0.norm3`` and the like) are dropped.
    """
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    renamed = {}
    for name, tensor in state.items():
        if _ALIAS.match(name):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


@dataclass(frozen=True)
class LoadedRAFT:
    """A network with published or own weights, and where they came from."""

    model: RAFT
    """In evaluation mode, float32, on the CPU."""
    file: str
    """Name of the weight file, without its folder."""
    sha256: str
    """SHA-256 of the weight file, 64 hexadecimal digits."""


def load_raft(weights: str | Path | None = None, variant: str | None = None) -> LoadedRAFT:
    """The network that a weight file holds.

    Args:
        weights: a file with torchvision's or the published code's state dict, or a name in ``PUBLISHED``, which is
            downloaded once into torch's hub folder (``$TORCH_HOME/hub/checkpoints``). None: ``DEFAULT`` of the variant.
        variant: ``raft-large`` or ``raft-small``, which the weights must be of; None takes what they are.

    Raises:
        FlowError: the file is missing, broken, of another network or variant, or cannot be downloaded.
    """
    if variant is not None and variant not in ARCHITECTURES:
        raise FlowError(f"unknown RAFT variant {variant!r}; choose one of {', '.join(ARCHITECTURES)}.")
    if weights is None:
        weights = DEFAULT[variant or "raft-large"]
    published = PUBLISHED.get(str(weights))
    if published is not None and variant not in (None, published.variant):
        raise FlowError(f"{weights} are weights of {published.variant}, not {variant}; choose the one or the other.")
    path = Path(weights) if published is None else _download(str(weights))
    content = _read(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if published is not None and not sha256.startswith(published.sha256):
        raise FlowError(f"{path} is not the published file (its SHA-256 differs); delete it, to have it fetched again.")
    found, state = _checked(path, _parse(path, content))
    if variant not in (None, found):
        raise FlowError(f"{path} holds weights of {found}, not {variant}; choose {found} or another file.")
    model = _without_memory(found)
    model.load_state_dict(state, assign=True)
    return LoadedRAFT(model.eval(), path.name, sha256)


def _download(name: str) -> Path:
    """The file of published weights in torch's hub folder, fetched if it is not there yet."""
    file = f"{name}-{PUBLISHED[name].sha256}.pth"
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL + file, str(path), hash_prefix=PUBLISHED[name].sha256, progress=False)
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        remedy = f"fetch {URL}{file} by other means and put it to {path}, or choose dis, which needs no weights"
        raise FlowError(f"the weights {name} could not be downloaded ({error}); {remedy}.") from error
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        names = ", ".join(PUBLISHED)
        raise FlowError(f"weight file {path} does not exist; give a RAFT checkpoint or one of {names}.") from None
    except OSError as error:
        raise FlowError(f"weight file {path} cannot be read ({error.strerror}); give a RAFT checkpoint.") from error


def _parse(path: Path, content: bytes) -> dict[str, Tensor]:
    """The state dict in a file, alone or as ``model`` or ``state_dict`` of a training checkpoint; names as they are."""
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged pickle can fail with any exception there is.
        reason = "it is truncated, of another kind, or holds other objects than tensors"
        raise FlowError(f"{path} is not a PyTorch file of weights ({reason}); download it again.") from error
    for key in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise FlowError(f"{path} holds no state dict but {type(loaded).__name__}; give a RAFT checkpoint.")
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()):
        raise FlowError(f"{path} holds other things than named tensors; give a RAFT checkpoint's state dict.")
    return dict(loaded)


def _checked(path: Path, state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The variant and its complete state dict, floating point as float32."""
    state = to_torchvision_names(state)
    expected = {variant: _without_memory(variant).state_dict() for variant in ARCHITECTURES}

    def fitting(variant: str) -> set[str]:
        return {
            name
            for name, like in expected[variant].items()
            if name in state
            and state[name].shape == like.shape
            and state[name].is_floating_point() == like.is_floating_point()
        }

    variant = max(ARCHITECTURES, key=lambda variant: len(fitting(variant)))
    fit = fitting(variant)
    if not fit:
        raise FlowError(f'{path} holds no RAFT weights (it begins with "{next(iter(state))}"); give a RAFT checkpoint.')
    missing, surplus = sorted(expected[variant].keys() - fit), sorted(state.keys() - fit)
    if missing or surplus:
        count = f"{len(missing)} of its tensors are missing or of another shape or type, {len(surplus)} do not belong"
        raise FlowError(
            f'{path} is not a complete {variant} checkpoint: {count} ("{(missing + surplus)[0]}"); download it again.'
        )
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise FlowError(f'{path} holds weights that are not finite ("{broken[0]}"); use an earlier checkpoint.')
    return variant, {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _without_memory(variant: str) -> RAFT:
    """The network on the meta device: shapes only, no random numbers drawn."""
    with torch.device("meta"):
        return RAFT(variant)
