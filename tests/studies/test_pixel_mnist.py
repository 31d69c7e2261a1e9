"""Digits, pixel by pixel."""

from __future__ import annotations

import gzip

import pytest
import torch

from elman.errors import InputError
from elman.studies.pixel_mnist import PixelMNIST
from elman.studies.series import train_all


@pytest.mark.parametrize("plain", [False, True])
def test_pixel_mnist_learns_and_judges(plain, tmp_path, monkeypatch):
    """Digits that a 28 × 28 picture of one grey tells apart are told apart."""
    monkeypatch.setenv("ELMAN_DATA", str(tmp_path))
    monkeypatch.setattr("elman.studies.pixel_mnist.HELD_OUT", 20)
    (tmp_path / "mnist").mkdir()
    for part, count in (("train", 80), ("t10k", 30)):
        labels = torch.arange(count, dtype=torch.uint8) % 2
        images = (labels * 200).unsqueeze(1).expand(-1, 784)
        files = {"images-idx3": images.reshape(-1, 28, 28), "labels-idx1": labels}
        for kind, array in files.items():
            header = bytes([0, 0, 8, array.dim()])
            header += b"".join(length.to_bytes(4, "big") for length in array.shape)
            content = gzip.compress(header + bytes(array.flatten().tolist()))
            (tmp_path / "mnist" / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    settings = PixelMNIST.Settings(
        cell="lru", hidden=4, layers=2, strides=[8, 4], permuted=True, plain=plain, length=64,
        updates=40, every=20, batch=8, learning_rate=0.02,
    )  # fmt: skip
    (row,) = train_all(PixelMNIST, settings, [0], tmp_path / "study")["rows"]
    assert row["accuracy"] == 1.0 and row["reached"]
    with pytest.raises(InputError, match="leave nothing of 31 pixels"):
        PixelMNIST(PixelMNIST.Settings(layers=2, strides=[8, 4], length=31))
