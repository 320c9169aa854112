"""Files, once for the whole program: atomic writing here; images, arrays and text in the modules of these names."""

from flow.io.atomic import atomic_path, link_file, write_bytes, write_text, write_together

__all__ = ["atomic_path", "link_file", "write_bytes", "write_text", "write_together"]
