"""Who makes cameras, masks, tracks and depth of a clip: providers, chosen by name (``cameras.provider`` etc.).

A provider is an object with ``options``, ``check`` and ``provide`` (``som.preprocessing.providers.base``), made known
by one line in ``registry``, or from anywhere by ``register_provider``.
"""

from som.preprocessing.providers.registry import REGISTRIES, Registry, register_provider

__all__ = ["REGISTRIES", "Registry", "register_provider"]
