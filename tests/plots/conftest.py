"""What the tests of pictures share."""

from __future__ import annotations

import pytest

from elman.plots import canvas


@pytest.fixture
def drawn(monkeypatch):
    """The figures, in place of their files."""
    figures = []
    monkeypatch.setattr(canvas, "save", lambda figure, path: figures.append(figure))
    return figures
