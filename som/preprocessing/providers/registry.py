"""Providers by name. Free of heavy imports: a provider's module is imported when its name is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast

from som.errors import UserError

if TYPE_CHECKING:
    from som.preprocessing.providers.base import CameraProvider, DepthProvider, MaskProvider, TrackProvider

P = TypeVar("P")
Kind = Literal["cameras", "masks", "tracks", "depth"]


class Registry(Generic[P]):
    """The providers of one stage.

    Args:
        kind: the stage.
        providers: for each name a provider, or where to find one: "module:attribute".
    """

    def __init__(self, kind: Kind, providers: Mapping[str, P | str]):
        self.kind = kind
        self._providers: dict[str, P | str] = dict(providers)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._providers)

    def register(self, name: str, provider: P | str) -> None:
        """Makes a provider known, in place of an earlier one of this name."""
        self._providers[name] = provider

    def get(self, name: str) -> P:
        """The provider of a name.

        Raises:
            UserError: there is none.
        """
        if name not in self._providers:
            known = ", ".join(self._providers)
            raise UserError(f"`{self.kind}.provider` {name}: there is no such provider; choose one of {known}.")
        found = self._providers[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = self._providers[name] = cast(P, getattr(importlib.import_module(module), attribute))
        return found


def _built_in(module: str, **attributes: str) -> dict[str, str]:
    """Provider names, with - for _, and the attributes of a module of this package that they stand for."""
    where = f"{__package__}.{module}"
    return {name.replace("_", "-"): f"{where}:{attribute}" for name, attribute in attributes.items()}


CAMERAS: Registry[CameraProvider] = Registry(
    "cameras",
    {
        **_built_in("cameras", auto="ESTIMATE", estimate="ESTIMATE", bundle_adjustment="BUNDLE_ADJUSTMENT"),
        **_built_in("cameras", global_mapping="GLOBAL_MAPPING", static="STATIC", given="GIVEN"),
    },
)
MASKS: Registry[MaskProvider] = Registry(
    "masks",
    {
        **_built_in("masks", auto="MOTION", motion="MOTION", homography="HOMOGRAPHY", multi_view="MULTI_VIEW"),
        **_built_in("masks", none="NONE", given="GIVEN"),
    },
)
TRACKS: Registry[TrackProvider] = Registry(
    "tracks", _built_in("tracks", auto="CHAINED_FLOW", chained_flow="CHAINED_FLOW", given="GIVEN")
)
DEPTH: Registry[DepthProvider] = Registry(
    "depth", _built_in("depth", auto="AUTO", estimate="ESTIMATE", layout="LAYOUT", given="GIVEN")
)
REGISTRIES: dict[str, Registry] = {registry.kind: registry for registry in (CAMERAS, MASKS, TRACKS, DEPTH)}
"""By the name of the stage."""


def register_provider(kind: Kind, name: str, provider: object) -> None:
    """Makes a provider known under a name that ``cameras.provider``, ``masks.provider``, ``tracks.provider`` or
    ``depth.provider`` may then have; an earlier one of this name is replaced.

    Args:
        kind: the stage whose result it makes.
        provider: an object of the stage's protocol in ``som.preprocessing.providers.base``, or "module:attribute",
            which is imported when the provider is used.

    Raises:
        UserError: there is no such stage.
    """
    if kind not in REGISTRIES:
        raise UserError(f"providers make {', '.join(REGISTRIES)}, there are none of {kind!r}.")
    REGISTRIES[kind].register(name, provider)
