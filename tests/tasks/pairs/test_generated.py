"""Pairs made by rule: right, all different, and what is held out is never learned from."""

from __future__ import annotations

from datetime import date, datetime
from random import Random

import pytest

import elman
from elman.tasks import dates
from elman.tasks.arithmetic import Arithmetic
from elman.tasks.dates import Dates

SMALL = {"count": 60, "hidden": 8, "cell": "gru", "batch": 16, "epochs": 1}


def made(kind, **settings):
    return kind.create([], kind.Settings.of(SMALL, settings))


@pytest.mark.parametrize("kind", [Arithmetic, Dates])
def test_what_is_held_out_is_never_learned_from(kind):
    task = made(kind)
    train, held_out = ([p.source for p in task.records(part)] for part in ("train", "validation"))
    assert (len(train), len(held_out)) == (54, 6)
    assert len({*train, *held_out}) == 60
    assert task.records("test") == []
    assert (
        made(kind).fingerprints() == task.fingerprints() != made(kind, data_seed=1).fingerprints()
    )


def test_exercises_are_worked_out():
    task = made(Arithmetic, operations="+-*", digits=2, count=300)
    pairs = [*task.records("train"), *task.records("validation")]
    assert all(int(pair.target) == eval(pair.source) for pair in pairs)
    assert {sign for pair in pairs for sign in pair.source if sign in "+-*"} == set("+-*")
    assert max(len(pair.source) for pair in pairs) == 5


def test_more_than_there_are_cannot_be_made():
    with pytest.raises(elman.InputError, match="`count` is 101, and 100 different exercises"):
        made(Arithmetic, digits=1, count=101)
    with pytest.raises(elman.InputError, match=r"`operations` must be some of \+-\*"):
        made(Arithmetic, operations="+/")


def test_data_is_for_judging_alone(tmp_path):
    path = tmp_path / "sums.tsv"
    path.write_text("1+1\t2\n2+2\t4\n")
    with pytest.raises(elman.InputError, match="`test_data`"):
        Arithmetic.create([str(path)], Arithmetic.Settings())
    task = made(Arithmetic, test_data=[str(path)], validation_data=[str(path)])
    assert [pair.target for pair in task.records("test")] == ["2", "4"]
    assert len(task.records("train")) == 60
    assert task.evaluate([str(path)])["part"] == "given"


DAYS = [
    date(1970, 1, 1),
    date(1999, 12, 31),
    date(2000, 2, 29),
    date(2012, 11, 10),
    date(2069, 3, 22),
]


@pytest.mark.parametrize("write", dates.FORMATS["en"])
@pytest.mark.parametrize("day", DAYS)
def test_english_dates_are_read_as_they_were_written(write, day):
    parser = pytest.importorskip("dateutil.parser")
    text = write(day)
    info = parser.parserinfo()
    info._century, info._year = 2000, 2020  # two digits stand for the years around it
    found = parser.parse(text.replace("the ", "").replace(" of", ""), info, dayfirst="." in text)
    assert found.date() == day


def test_chinese_numbers():
    told = [dates._counted(n) for n in (1, 9, 10, 11, 19, 20, 21, 30, 31)]
    assert told == ["一", "九", "十", "十一", "十九", "二十", "二十一", "三十", "三十一"]
    assert len({dates._counted(n) for n in range(1, 100)}) == 99


@pytest.mark.parametrize("language", ["zh", "both"])
def test_chinese_dates(language):
    assert dates.FORMATS["zh"][0](date(2021, 3, 5)) == "2021年3月5日"
    assert "二〇二一年三月五日" in [write(date(2021, 3, 5)) for write in dates.FORMATS[language]]
    assert "2021年3月5日星期五" in [write(date(2021, 3, 5)) for write in dates.FORMATS[language]]


def test_targets_are_days():
    task, random = made(Dates, language="both"), Random(0)
    for _ in range(200):
        source, target = task.draw(random)
        day = datetime.strptime(target, "%Y-%m-%d").date()
        assert source in [write(day) for write in dates.FORMATS["both"]]


def test_verbs_answer():
    task = Dates.train([], **SMALL)
    assert set(task.convert(["3 May 2021", ""])[0]) == {"date"}
    assert task.convert([""]) == [{"date": ""}]
    task = Arithmetic.train([], **SMALL)
    assert len(task.calculate(["1+1", "2+3"])) == 2
