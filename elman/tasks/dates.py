"""Dates: from the many ways to write one to ISO 8601, character by character."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from random import Random

from elman.tasks.pairs.generated import Generated, GeneratedSettings, solving
from elman.training.settings import option

_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_FIRST, _LAST = date(1970, 1, 1).toordinal(), date(2069, 12, 31).toordinal()


def _month(d: date) -> str:
    return _MONTHS[d.month - 1]


def _day(d: date) -> str:
    return _DAYS[d.weekday()]


def _ordinal(d: date) -> str:
    teens = 11 <= d.day <= 13
    return f"{d.day}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(d.day % 10, 'th')}"


def _short(d: date) -> str:
    return f"{d.year % 100:02d}"


_ENGLISH: tuple[Callable[[date], str], ...] = (
    lambda d: f"{d.day} {_month(d)} {d.year}",
    lambda d: f"{d.day} {_month(d)[:3]} {d.year}",
    lambda d: f"{d.day}-{_month(d)[:3]}-{_short(d)}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.day}.{d.month}.{_short(d)}",
    lambda d: f"{d.day:02d}.{d.month:02d}.{d.year}",
    lambda d: f"{d.month}/{d.day}/{d.year}",
    lambda d: f"{d.month:02d}/{d.day:02d}/{_short(d)}",
    lambda d: f"{d.year}/{d.month}/{d.day}",
    lambda d: f"{d.year}{d.month:02d}{d.day:02d}",
    lambda d: f"{_month(d)} {d.day}, {d.year}",
    lambda d: f"{_month(d)[:3]} {d.day}, {d.year}",
    lambda d: f"{_month(d)[:3]}. {_ordinal(d)} '{_short(d)}",
    lambda d: f"{_month(d)} {_ordinal(d)}, {d.year}",
    lambda d: f"the {_ordinal(d)} of {_month(d)} {d.year}",
    lambda d: f"{_day(d)}, {d.day} {_month(d)} {d.year}",
    lambda d: f"{_day(d)} {_month(d)} {_ordinal(d)} {d.year}",
    lambda d: f"{_day(d)[:3]} {d.day} {_month(d)[:3]} {d.year}",
)
"""With dots the day comes first, with slashes the month, as in Germany and the United States."""

_DIGITS = "〇一二三四五六七八九"


def _counted(number: int) -> str:
    """A number below 100 in Chinese: 三, 十, 二十一."""
    tens, ones = divmod(number, 10)
    ten = {0: "", 1: "十"}.get(tens, f"{_DIGITS[tens]}十")
    return ten + (_DIGITS[ones] if ones or not tens else "")


def _read_out(year: int) -> str:
    return "".join(_DIGITS[int(digit)] for digit in str(year))


def _weekday(d: date) -> str:
    return "一二三四五六日"[d.weekday()]


_CHINESE: tuple[Callable[[date], str], ...] = (
    lambda d: f"{d.year}年{d.month}月{d.day}日",
    lambda d: f"{d.year}年{d.month:02d}月{d.day:02d}日",
    lambda d: f"{d.year} 年 {d.month} 月 {d.day} 日",
    lambda d: f"{_short(d)}年{d.month}月{d.day}号",
    lambda d: f"{d.year}年{d.month}月{d.day}日星期{_weekday(d)}",
    lambda d: f"{d.year}年{d.month}月{d.day}日(周{_weekday(d)})",
    lambda d: f"{_read_out(d.year)}年{_counted(d.month)}月{_counted(d.day)}日",
    lambda d: f"{_read_out(d.year).replace('〇', '零')}年{_counted(d.month)}月{_counted(d.day)}号",
    lambda d: f"公元{_read_out(d.year)}年{_counted(d.month)}月{_counted(d.day)}日",
    lambda d: f"{_read_out(d.year)}年{_counted(d.month)}月{_counted(d.day)}日 星期{_weekday(d)}",
)

FORMATS = {"en": _ENGLISH, "zh": _CHINESE, "both": _ENGLISH + _CHINESE}


@dataclass
class DatesSettings(GeneratedSettings):
    """What the reading of dates can be told."""

    language: str = option("en", "In which language dates are written.", choices=tuple(FORMATS))


class Dates(Generated):
    """Learn to write dates, however they are written, as 2021-03-31."""

    name, made = "dates", "dates"
    example = "--language both"
    Settings = DatesSettings
    settings: DatesSettings
    verbs = (
        solving(
            "convert", "Write dates as ISO 8601 has them.", "RUN 'the 3rd of May 2021'", "Dates",
            "date",
        ),
    )  # fmt: skip

    def draw(self, random: Random) -> tuple[str, str]:
        """A day of the hundred years in which two digits name a year, in one of the formats."""
        write = random.choice(FORMATS[self.settings.language])
        day = date.fromordinal(random.randint(_FIRST, _LAST))
        return write(day), day.isoformat()
