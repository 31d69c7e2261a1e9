from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from elman.errors import ElmanError, InputError
from elman.tasks.language_model.task import LanguageModelSettings
from elman.training.settings import Settings, TrainingSettings, option, read_recipe


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


NUMERIC = [
    (f.name, kind)
    for f in fields(LanguageModelSettings)
    for kind in (int, float)
    if kind in (get_type_hints(LanguageModelSettings)[f.name], *get_args(
        get_type_hints(LanguageModelSettings)[f.name]
    ))
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), NUMERIC)
def test_no_setting_takes_a_number_that_torch_cannot(name, kind):
    listed = name == "hidden_sizes"
    integers = (2**63, -(2**63) - 1, 1.5) if kind is int else (10**400, -(10**400))
    for value in (*integers, 10**5000, math.inf, -math.inf, math.nan):
        with pytest.raises(InputError, match=f"^{name} must be ") as caught:
            LanguageModelSettings.of({name: [value] if listed else value})
        assert len(str(caught.value)) < 120
        assert "\n" not in str(caught.value)


SIZES = ["hidden", "layers", "embedding", "batch", "steps", "sample_length", "hidden_sizes"]


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_bounded_by_what_any_machine_has(name):
    value = 2**31
    with pytest.raises(InputError, match=f"^{name} must be less than .*, received 2147483648"):
        LanguageModelSettings.of({name: [value] if name == "hidden_sizes" else value})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rate": 0}, "rate must be more than 0, received 0"),
        ({"rate": 1.0}, "rate must be less than 1, received 1"),
        ({"sizes": [4, 0]}, "sizes must be at least 1, received 0"),
        ({"name": "c" * 999}, r"received 'c+\.\.\.c+'\.$"),
        ({"z\n" * 999: 1}, r"unknown setting 'z.*\.\.\..*'; known"),
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
    for declared in fields(LanguageModelSettings):
        assert declared.metadata["help"].endswith((".", "…")), declared.name


def test_recipes(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('data = ["x"]\nepochs = 3\n')
    assert read_recipe(recipe) == {"data": ["x"], "epochs": 3}
    recipe.write_text("epochs = = 3")
    with pytest.raises(ElmanError, match="is not TOML"):
        read_recipe(recipe)
    with pytest.raises(ElmanError, match="no recipe"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(ElmanError, match="'/dev/zero' is no recipe"):
        read_recipe(Path("/dev/zero"))
    with pytest.raises(ElmanError, match="cannot be read"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = " + "[" * 10_000, "nested too deeply"),
        ("epochs = " + "9" * 5000, "Exceeds the limit"),
        (b"a = '\xff'", "codec can't decode"),
    ],
)
def test_recipes_that_cannot_be_used(tmp_path, content, words):
    recipe = tmp_path / "r.toml"
    recipe.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ElmanError, match=rf"is not TOML \(.*{words}.*\): mend it") as caught:
        read_recipe(recipe)
    assert len(str(caught.value).replace(str(recipe), "")) < 280
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"reach": 9, "learning": "rtrl"}, "only where `learning` is tbptt, received rtrl"),
        ({"learning": "rtrl", "precision": "bf16-mixed"}, "`precision` bf16-mixed"),
        ({"learning": "tbptt", "watch_gradients": True}, "`watch_gradients`"),
    ],
)
def test_what_would_do_nothing_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        TrainingSettings.of(given)
    assert TrainingSettings.of({"learning": "tbptt", "reach": 9}).reach == 9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"average_decay": 0.9},
            "`average_decay` has an effect only where `average` is exponential",
        ),
        ({"division": 2.0}, "only where `schedule` is plateau, received constant"),
        ({"watch_every": 7}, "only where `watch_gradients` is on, received off"),
        ({"reach": 3}, "only where `learning` is tbptt, received none"),
    ],
)
def test_what_has_no_effect_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        TrainingSettings(**given)
    TrainingSettings(average="exponential", average_decay=0.9, schedule="plateau", division=2.0)
