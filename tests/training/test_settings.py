from __future__ import annotations

from dataclasses import dataclass

import pytest

from elman.errors import ElmanError, InputError
from elman.tasks.language_model import LanguageModelSettings
from elman.training.settings import Settings, option, read_recipe


@dataclass
class Small(Settings):
    rate: float = option(0.1, "A rate.", above=0, below=1)
    sizes: list[int] = option([1], "Sizes.", least=1)
    name: str = option("a", "A name.", choices=("a", "b"))
    limit: int | None = option(None, "A limit.", least=2)
    flag: bool = option(False, "A flag.")


def test_later_groups_override_earlier_ones_and_dashes_are_underscores():
    class_ = LanguageModelSettings
    settings = class_.of({"learning-rate": 1, "batch": 4}, {"batch": 8})
    assert (settings.learning_rate, settings.batch) == (1.0, 8)
    assert isinstance(settings.learning_rate, float)


def test_to_json_and_back():
    settings = LanguageModelSettings.of({"hidden_sizes": [3, 4], "prompts": ["a"], "limit": 10})
    assert LanguageModelSettings.of(settings.to_json()) == settings


def test_a_list_is_not_shared_between_jobs():
    first, second = Small(), Small()
    first.sizes.append(2)
    assert second.sizes == [1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rate": 0}, "rate must be more than 0, received 0"),
        ({"rate": 1.0}, "rate must be less than 1, received 1"),
        ({"sizes": [4, 0]}, "sizes must be at least 1, received 0"),
        ({"sizes": 4}, "sizes must be a list of int, received 4"),
        ({"name": "c"}, "name must be one of a, b, received 'c'"),
        ({"limit": 1}, "limit must be at least 2, received 1"),
        ({"limit": "2"}, "limit must be an integer, received '2'"),
        ({"limit": True}, "limit must be an integer, received True"),
        ({"flag": 1}, "flag must be true or false, received 1"),
        ({"rates": 1}, "unknown setting 'rates': did you mean 'rate'"),
        ({"zzz": 1}, "unknown setting 'zzz'; known: rate, sizes"),
    ],
)
def test_what_is_wrong_is_named(given, words):
    with pytest.raises(InputError, match=words):
        Small.of(given)


def test_every_setting_says_what_it_is_for():
    for name, declared in LanguageModelSettings.__dataclass_fields__.items():
        assert declared.metadata["help"].endswith((".", "…")), name


def test_recipes(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('data = ["x"]\nepochs = 3\n')
    assert read_recipe(recipe) == {"data": ["x"], "epochs": 3}
    recipe.write_text("epochs = = 3")
    with pytest.raises(ElmanError, match="is not TOML"):
        read_recipe(recipe)
    with pytest.raises(ElmanError, match="no recipe"):
        read_recipe(tmp_path / "none.toml")
