"""The built-in demo scene: its things, their textures and motion, a small renderer, and the data set made of them."""

from som.data.demo.generate import cache_folder, generate_demo, load_demo

__all__ = ["cache_folder", "generate_demo", "load_demo"]
