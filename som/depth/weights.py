"""Network weights in files: our own, and the layouts in which the references publish theirs.

Our networks carry the published parameter names, so a layout is recognised by its names and read by changing prefixes.
Loading is strict: after that, every tensor must find its place and every place its tensor, but for the extras that a
layout is known to have; the report says what happened to each.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from som.depth.errors import DepthError
from som.depth.networks.depth_net import DepthNet
from som.depth.networks.mvdepthnet import MVDepthNet
from som.depth.networks.pose import PoseNet, PoseResNet
from som.depth.networks.published import (
    LAYOUTS,
    MONODEPTH2_DEPTH,
    MONODEPTH2_PART,
    MONODEPTH2_POSE,
    MONODEPTH2_POSE_CNN,
    Layout,
    Role,
    is_unused_scale,
    published_config,
)
from som.depth.networks.resnet import stacked_image_weight

PARTS = ("depth_net", "pose_net")
"""Entries of our training checkpoints (``som.depth.learning.training``) that hold the weights of the networks."""
KINDS = {"depth": "a depth net", "pose": "a pose net", "mvdepthnet": "an MVDepthNet", "encoder": "an encoder"}
MAX_NAMES_SHOWN = 4
"""Names quoted in a message."""


@dataclass(frozen=True)
class WeightReport:
    """What became of the entries of a weight file."""

    files: tuple[Path, ...]
    """The files read."""
    layout: str
    """How they were laid out."""
    loaded: tuple[str, ...]
    """Entries of the network that were set, by our names."""
    renamed: dict[str, str]
    """Name in the file to ours, where they differ."""
    ignored: tuple[str, ...]
    """Entries of the file, by its names, for which the network has no place: the layout's known extras."""
    filled: tuple[str, ...]
    """Entries that the file lacks and that were set to 0: counters of batch normalisation of old PyTorch."""
    kept: tuple[str, ...]
    """Entries of the network left as they were, where the file holds an encoder alone."""
    metadata: dict[str, Any]
    """Plain values stored beside the tensors, such as monodepth2's ``height``, ``width``, ``use_stereo``; of our
    checkpoints also the ``network``, the settings of a ``NetworkConfig``."""
    notes: tuple[str, ...]
    """Settings of the network that differ from those with which the weights were made; they change its depth."""

    def __str__(self) -> str:
        counts = {
            "loaded": self.loaded,
            "renamed": self.renamed,
            "ignored": self.ignored,
            "filled with 0": self.filled,
            "kept as they were": self.kept,
        }
        text = ", ".join(f"{len(entries)} {word}" for word, entries in counts.items() if entries)
        files = ", ".join(path.name for path in self.files)
        return " ".join([f"{files} ({self.layout} layout): {text}.", *self.notes])


def load_weights(net: nn.Module, path: str | Path) -> WeightReport:
    """Fills a network from a file, or from a monodepth2 folder; on any error the network stays as it was.

    Known layouts: our training checkpoints and plain state dicts, monodepth2, SC-SfMLearner, sc_depth_pl, packnet-sfm,
    MVDepthNet, and torchvision's ResNets, which fill the encoder alone (for stacked images the first layer is repeated
    and divided). A file with a depth and a pose net fills either.

    Args:
        net: a ``DepthNet``, ``PoseNet`` or ``MVDepthNet``.
        path: the file, or for monodepth2 the folder with encoder.pth and depth.pth, or pose_encoder.pth and pose.pth.

    Raises:
        DepthError: no such file, not a weight file, another kind of network, or names or shapes that do not fit.
    """
    path = Path(path)
    role = _role(net)
    if path.is_dir():
        files, layout = _monodepth2_files(path, role, net)
    else:
        files, layout = (path,), None
    contents = [_read(file) for file in files]
    state = {name: value for tensors, _ in contents for name, value in tensors.items()}
    metadata = {name: value for _, plain in contents for name, value in plain.items()}
    layout = layout or _recognise(path, state, role)

    target = net.state_dict()
    ours = {name: layout.rename(name) for name in state}
    if layout.role == "encoder":
        ours = {name: f"net.{our}" if role == "depth" else our for name, our in ours.items()}
    ignored = {name for name in state if ours[name] not in target and _is_extra(name, ours[name], layout, target)}
    values = {ours[name]: value for name, value in state.items() if name not in ignored}
    if layout.role == "encoder":
        values = _fit_first_layer(values, target)
    kept = {name for name in target if layout.role == "encoder" and "encoder.encoder." not in name}
    absent = [name for name in target if name not in values and name not in kept]
    filled = [name for name in absent if name.endswith(".num_batches_tracked")]
    _check_fit(path, layout, net, values, target, missing=[name for name in absent if name not in filled])

    net.load_state_dict(target | values | {name: torch.zeros_like(target[name]) for name in filled})
    return WeightReport(
        files=files,
        layout=layout.name,
        loaded=tuple(values),
        renamed={name: our for name, our in ours.items() if our != name and name not in ignored},
        ignored=tuple(name for name in state if name in ignored),
        filled=tuple(filled),
        kept=tuple(name for name in target if name in kept),
        metadata=metadata,
        notes=_notes(layout, net, metadata),
    )


def _role(net: nn.Module) -> Role:
    roles: dict[type[nn.Module], Role] = {DepthNet: "depth", PoseNet: "pose", MVDepthNet: "mvdepthnet"}
    for kind, role in roles.items():
        if isinstance(net, kind):
            return role
    raise DepthError(f"expected a DepthNet, a PoseNet or an MVDepthNet, got {type(net).__name__}.")


def _load_file(path: Path) -> object:
    if not path.is_file():
        raise DepthError(f"{path} does not exist; give a weight file, or the folder of a monodepth2 model.")
    with path.open("rb") as file:
        if file.read(1) not in (b"P", b"\x80"):  # a zip archive, or a pickle as PyTorch made them before 1.6
            raise DepthError(f"{path} is no PyTorch weight file; give one that torch.save has written.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DepthError(
            f"{path} holds other objects beside tensors (such as a configuration), which are not read because reading "
            "them can run code; if you trust the file, convert it once: torch.save({'state_dict': "
            "torch.load(old, weights_only=False)['state_dict']}, new)."
        ) from error
    except Exception as error:  # A damaged pickle can fail with any exception there is.
        raise DepthError(f"{path} is damaged or no PyTorch weight file; get it again ({error}).") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file by name, without the prefix of data-parallel training, and the plain values beside."""
    content = _load_file(path)
    if not isinstance(content, Mapping):
        raise DepthError(f"{path} holds a {type(content).__name__}, expected weights by name.")
    weights = content["state_dict"] if isinstance(content.get("state_dict"), Mapping) else content
    for part in PARTS:
        if isinstance(content.get(part), Mapping):
            weights = {**weights, **{f"{part}.{name}": value for name, value in content[part].items()}}
    state = {str(name).removeprefix("module."): v for name, v in weights.items() if isinstance(v, Tensor)}
    plain: dict[str, Any] = {str(name): v for name, v in content.items() if isinstance(v, int | float | str | bool)}
    if isinstance(content.get("network"), Mapping):
        plain["network"] = dict(content["network"])
    return state, plain


def _monodepth2_files(folder: Path, role: Role, net: nn.Module) -> tuple[tuple[Path, ...], Layout]:
    if role == "depth":
        return (folder / "encoder.pth", folder / "depth.pth"), MONODEPTH2_DEPTH
    if isinstance(net, PoseResNet):
        encoder = "encoder.pth" if net.is_shared else "pose_encoder.pth"
        return (folder / encoder, folder / "pose.pth"), MONODEPTH2_POSE
    if role == "pose":
        return (folder / "pose.pth",), MONODEPTH2_POSE_CNN
    raise DepthError(f"{folder} is a folder; the weights of {KINDS[role]} are one file.")


def _recognise(path: Path, state: Mapping[str, Tensor], role: Role) -> Layout:
    found = [layout for layout in LAYOUTS if any(re.search(layout.marker, name) for name in state)]
    for layout in found:
        if layout.role == role or (layout.role == "encoder" and role in ("depth", "pose")):
            return layout
    if found:
        held = f"{KINDS[found[0].role]} in the {found[0].name} layout"
        raise DepthError(f"{path} holds {held}, but {KINDS[role]} is to be filled; give the file of that network.")
    if any(re.search(MONODEPTH2_PART, name) for name in state):
        raise DepthError(f"{path} is one file of a monodepth2 model; give the folder that it lies in.")
    raise DepthError(f"{path} is in no known layout of {KINDS[role]}; it holds {_quote(state) or 'no tensors'}.")


def _is_extra(name: str, our: str, layout: Layout, target: Mapping[str, Tensor]) -> bool:
    if layout.is_extra(name):
        return True
    return is_unused_scale(our) and any(is_unused_scale(key) for key in target)


def _fit_first_layer(values: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An image encoder's first layer, repeated where the network stacks several images."""
    fitted = dict(values)
    for name, value in values.items():
        if name.endswith("encoder.encoder.conv1.weight") and name in target:
            fitted[name] = stacked_image_weight(value, max(target[name].shape[1] // value.shape[1], 1))
    return fitted


def _check_fit(
    path: Path,
    layout: Layout,
    net: nn.Module,
    values: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    missing: list[str],
) -> None:
    unexpected = [name for name in values if name not in target]
    shapes = [name for name in values if name in target and values[name].shape != target[name].shape]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{len(names)} {word} ({_quote(names)})" for word, names in kinds if names]
    if problems:
        kind = net.config.name if isinstance(net, DepthNet) else type(net).__name__
        text = "; ".join(problems)
        raise DepthError(f"{path} ({layout.name} layout) does not fit this {kind} network, entries: {text}.")


def _notes(layout: Layout, net: nn.Module, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    if not isinstance(net, DepthNet) or layout.name == "torchvision":
        return ()
    if layout.name == "som4d":
        made_with = metadata.get("network", {})
    else:
        made_with = asdict(published_config(layout.name, net.config.name))
    settings = [name for name in ("head", "depth_range", "upsampling") if name in made_with]
    pairs = [(name, made_with[name], getattr(net.config, name)) for name in settings]
    pairs = [(name, tuple(want) if isinstance(want, list) else want, have) for name, want, have in pairs]
    return tuple(f"Made with {name} {want}; this network has {have}." for name, want, have in pairs if want != have)


def _quote(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:MAX_NAMES_SHOWN]) + (", ..." if len(names) > MAX_NAMES_SHOWN else "")
