"""What tests of kernels share."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shim():
    """``shim.py``: kernels on the CPU."""
    spec = importlib.util.spec_from_file_location("shim", Path(__file__).parent / "shim.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
