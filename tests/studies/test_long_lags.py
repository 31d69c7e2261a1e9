"""What the long-lag studies ask is what their papers ask."""

from __future__ import annotations

import pytest
import torch

from elman.errors import InputError
from elman.studies import STUDIES
from elman.studies.long_lags import Adding, Copy, Multiplication, TemporalOrder, TwoSequence


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(study, count=400, length=40, **given):
    return study(study.Settings(**given)).batch(drawn(), count, length)


@pytest.mark.parametrize("study", [Adding, Multiplication])
def test_two_marks_one_in_each_half(study):
    batch = batch_of(study)
    values, marks = batch.x.unbind(-1)
    assert batch.x.shape == (40, 400, 2)
    assert (marks[:20].sum(0) == 1).all() and (marks[20:].sum(0) == 1).all()
    assert values.min() >= 0 and values.max() <= 1 and abs(values.mean() - 0.5) < 0.01
    for k in range(400):
        first, second = (float(v) for v, m in zip(values[:, k], marks[:, k], strict=True) if m)
        expected = first + second if study is Adding else first * second
        assert float(batch.target[k]) == pytest.approx(expected, abs=1e-6)


def test_temporal_order():
    batch = batch_of(TemporalOrder, length=100)
    symbols = batch.x.argmax(-1)
    assert batch.x.sum(-1).eq(1).all()
    assert (symbols[0] == 6).all() and (symbols[-1] == 7).all()
    for k in range(400):
        places = [t for t in range(1, 99) if symbols[t, k] in (4, 5)]
        assert len(places) == 2 and 10 <= places[0] < 20 and 50 <= places[1] < 60
        first, second = (int(symbols[t, k]) - 4 for t in places)
        assert int(batch.target[k]) == 2 * first + second
    assert set(batch.target.tolist()) == {0, 1, 2, 3}


def test_copy():
    batch = batch_of(Copy, length=30)
    symbols = batch.x.argmax(-1)
    assert symbols.shape == (50, 400)
    assert torch.equal(symbols[:10], batch.target)
    assert (symbols[10:39] == 8).all() and (symbols[39] == 9).all() and (symbols[40:] == 8).all()


def test_two_sequences():
    for noise in ("distractors", "inputs", "targets"):
        batch = batch_of(TwoSequence, 4000, 40, noise=noise)
        x, label = batch.x[..., 0], (batch.x[:3, :, 0].sum(0) > 0).float()
        assert (batch.lengths >= 40).all() and (batch.lengths <= 44).all()
        assert abs(float(x[3:].var()) - 0.2) < 0.01
        if noise == "distractors":
            assert torch.equal(x[:3], (2 * label - 1).expand(3, -1))
        else:
            assert abs(float((x[0] - (2 * label - 1)).std()) - 0.2**0.5) < 0.03
        off = batch.target - (0.2 + 0.6 * label if noise == "targets" else label)
        assert float(off.std()) == pytest.approx(0.32 if noise == "targets" else 0.0, abs=0.04)


@pytest.mark.parametrize(("name", "length"), [("adding", 1), ("temporal-order", 7)])
def test_sequences_that_are_too_short_are_refused(name, length):
    study = STUDIES[name]
    with pytest.raises(InputError, match=f"at least, received `length` {length}"):
        study(study.Settings(length=length))
    study(study.Settings(length=length + 1)).batch(torch.Generator(), 3, length + 1)
