"""Files, once for the whole program: atomic writing, images, video, arrays, JSON and YAML."""
