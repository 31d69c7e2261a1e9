from __future__ import annotations

import itertools

import pytest
import torch

from elman import ElmanError
from elman.data.endless import AHEAD, open_endless


def _joined(stream, batch, steps, count):
    windows = itertools.islice(stream.windows(batch, steps), count)
    return [torch.cat(parts) for parts in zip(*windows, strict=True)]


@pytest.mark.parametrize("batch", [1, 3])
def test_windows_go_on_where_the_last_one_ended(batch):
    stream = open_endless("mackey-glass")
    x, target = _joined(stream, batch, 7, 30)
    whole, _ = next(stream.windows(batch, 210))
    assert torch.equal(x, whole)
    assert x.shape == (210, batch, 1)
    # The target is the input of some steps later.
    assert torch.equal(x[AHEAD:, :, 0], target[:-AHEAD].float())


def test_the_series_has_mean_0_and_variance_1_and_rows_of_its_own():
    x, _ = next(open_endless("mackey-glass").windows(2, 20_000))
    assert x.mean().abs() < 0.05
    assert abs(x.std() - 1) < 0.05
    assert not torch.allclose(x[:, 0], x[:, 1], atol=0.1)


def test_a_text_goes_round_and_each_row_starts_elsewhere(tmp_path):
    (tmp_path / "book.txt").write_text("abcdef", encoding="utf-8")
    stream = open_endless(str(tmp_path / "book.txt"))
    x, target = next(stream.windows(2, 13))
    letters = x.argmax(-1)
    assert torch.equal(letters[:6], letters[6:12])
    assert torch.equal(letters[:9, 1], letters[3:12, 0])
    assert torch.equal(target[:-1].long(), letters[1:])
    assert x.shape == (13, 2, stream.inputs)
    assert torch.equal(x.sum(-1), torch.ones(13, 2))


def test_losses_are_means_and_errors_follow(tmp_path):
    stream = open_endless("mackey-glass")
    _, target = next(stream.windows(2, 500))
    loss = stream.loss(torch.zeros(500, 2, 1), target)
    assert torch.allclose(loss, target.square().mean().float())
    assert stream.measure(0.25) == 0.5
    (tmp_path / "book.txt").write_text("abab", encoding="utf-8")
    text = open_endless(str(tmp_path / "book.txt"))
    _, target = next(text.windows(2, 5))
    uniform = text.loss(torch.zeros(5, 2, text.outputs), target)
    assert torch.allclose(uniform.exp(), torch.tensor(float(text.outputs)))


def test_what_cannot_be_predicted_is_said(tmp_path):
    with pytest.raises(ElmanError, match="no-such-stream"):
        open_endless("no-such-stream")
    (tmp_path / "one.txt").write_text("a", encoding="utf-8")
    with pytest.raises(ElmanError, match="1 characters: expected at least 2"):
        open_endless(str(tmp_path / "one.txt"))
