"""A seed that PyTorch cannot take is told in a sentence, wherever one is given."""

import numpy as np
import pytest
import torch

from elman import InputError, cli
from elman.lens import depth, repeated_products, side_by_side
from elman.seeds import checked_seed, generator

LONG = 10**30 - 1


@pytest.mark.parametrize("seed", [LONG, -1, 2**63, 1.5, True, None, 10**5000], ids="abcdefg")
def test_what_is_no_seed(seed):
    with pytest.raises(InputError, match=r"^seed must be a whole number from 0 to .*, received "):
        checked_seed(seed)


@pytest.mark.parametrize("seed", [0, 2**63 - 1, np.int64(7), np.uint8(7)])
def test_what_is_one(seed):
    drawn = torch.randn(3, generator=generator(seed))
    assert torch.equal(drawn, torch.randn(3, generator=torch.Generator().manual_seed(int(seed))))


@pytest.mark.parametrize(
    "call",
    [
        lambda seed: side_by_side(["rnn"], [0.0], seed=seed),
        lambda seed: repeated_products(seed=seed),
        lambda seed: depth(seed=seed),
    ],
)
def test_functions_that_take_one(call):
    with pytest.raises(InputError, match="seed must be"):
        call(LONG)


@pytest.mark.parametrize(
    "command",
    [
        ("gradients",),
        ("gradients", "textbook"),
        ("train", "language-model", "time-machine"),
        ("compare", "language-model", "time-machine"),
        ("compare-learning",),
        ("study", "adding"),
        ("study", "approximation"),
    ],
)
def test_commands_that_take_one(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run([*command, "--seed", str(LONG)]) == 2
    out, errors = capsys.readouterr()
    assert not out and errors.count("\n") == 1 and "seed" in errors
