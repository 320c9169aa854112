"""Makes the synthetic scenes beside these tests importable."""

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope="session")
def scenes():
    path = pathlib.Path(__file__).with_name("scenes.py")
    spec = importlib.util.spec_from_file_location("initialization_scenes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
