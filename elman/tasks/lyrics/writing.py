"""Writing verse: a form is chosen, and a model is told it, place by place."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from elman.data.forms import Form
from elman.decoding import sample
from elman.errors import InputError, brief
from elman.tasks.language_model.generation import SamplingSettings, prompt_ids
from elman.tasks.lyrics.network import Guided
from elman.training.settings import option
from elman.training.task import Verb

if TYPE_CHECKING:
    from elman.tasks.lyrics.prosody import Prosody
    from elman.tasks.lyrics.task import Lyrics

_OF_THE_TUNE = ("commonest", "drawn")


@dataclass
class VerseSettings(SamplingSettings):
    """What a model that writes verse can be told."""

    tune: str | None = option(None, "Of verse: its tune, such as 浣溪沙.", unset="drawn")
    first_line: str = option("", "Of verse: what it begins with, such as 一曲新词酒一杯.")
    form: str = option(
        "commonest",
        "Of verse: the tune's commonest; drawn among the tune's; or lengths, a line each, such as "
        "7,7,7,3,3,7, or such as 7。/7，7。 with marks, and strokes between lines.",
    )
    poems: int = option(1, "Of verse: how many.", least=1)
    mask: bool = option(True, "Of verse: bar what breaks the form, which the network is told.")


def _write(
    task: Lyrics, inputs: Iterable[str], settings: VerseSettings
) -> Iterator[dict[str, Any]]:
    """Poems, each with its text, tune, form and seed; those of the next ones follow the first's."""
    its, vocabulary = settings, task.prosody.vocabulary
    if not (task.settings.form or its.mask or its.form in _OF_THE_TUNE):
        raise InputError(
            "the network is not told a form, and without `mask` nothing keeps one: leave out "
            "`form`, or let there be a mask."
        )
    if its.first_line:
        prompt_ids(vocabulary, its.first_line, "none", "first line")
    sampling = its.sampling()
    first = secrets.randbits(32) if its.seed is None else its.seed
    for seed in range(first, first + its.poems):
        tune, form = choose(task.prosody, its.tune, its.first_line, its.form, random.Random(seed))
        ids = compose(task, tune, form, its.first_line, its.mask, **sampling | {"seed": seed})
        text = "\n".join([tune] * bool(tune) + [vocabulary.decode(ids).rstrip("\n"), ""])
        yield {"text": text, "tune": tune, "form": str(form), "seed": seed}


WRITING_VERSE = Verb(
    "generate",
    "Let a language model write; the text appears as it is written.",
    "RUN --tune 浣溪沙 --first-line 一曲新词酒一杯 --poems 3",
    _write,
    Settings=VerseSettings,
)


def choose(
    prosody: Prosody, tune: str | None, first_line: str, form: str, draw: random.Random
) -> tuple[str, Form]:
    """The tune and the form of a poem that can begin with ``first_line``.

    Args:
        prosody: what is known of forms.
        tune: its name; None draws one, as often as there are poems of it.
        first_line: what the poem begins with, or nothing.
        form: "commonest" or "drawn", of the tune's; or one that is written down.
        draw: where draws come from.

    Raises:
        InputError: the tune is unknown, the form is none, or the first line does not fit it.
    """
    forms = prosody.forms
    if form not in _OF_THE_TUNE:
        if tune:
            prompt_ids(prosody.vocabulary, tune, "none", "tune")
        asked = Form.of_lengths(form, forms.usual_end()) or Form.parse(form)
        prosody.check(asked)
        every = [(tune or "", asked, 1)]
    elif tune is None or tune in forms:
        every = [each for each in forms.all() if tune in (None, each[0])]
    else:
        near = forms.near(tune)
        hint = f"did you mean {' or '.join(near)}?" if near else "give a `form` for it."
        raise InputError(f"the model has read no poem of the tune {brief(tune)}: {hint}")
    opening = prosody.tokens(prosody.encode(first_line))
    fitting = [each for each in every if each[1].begins(opening)]
    if not fitting:
        raise InputError(_does_not_fit(first_line, tune, every))
    its, chosen, _ = draw.choices(fitting, [count for _, _, count in fitting])[0]
    if form == "commonest":
        same = [each for each in fitting if each[0] == its]
        chosen = max(same, key=lambda each: each[2])[1]
    return its, chosen


def _does_not_fit(first_line: str, tune: str | None, every: Sequence[tuple[str, Form, int]]) -> str:
    whose = f"of {tune}" if tune else "of those there are"
    usual = max(every, key=lambda each: each[2])[1]
    return (
        f"no form {whose} begins as the first line {brief(first_line)} does: expected such as "
        f"{Form(usual.lines[:1])}; shorten it, or choose another `form`."
    )


def compose(
    task: Lyrics, tune: str, form: Form, opening: str = "", mask: bool = True, **sampling: Any
) -> list[int]:
    """The tokens of a poem, what it begins with among them.

    Args:
        task: the job, its model in evaluation mode.
        tune: the heading.
        form: what the network is told, if it is one that is told, and what the mask lets pass.
        opening: what the poem begins with.
        mask: whether there is a mask.
        sampling: as :func:`elman.decoding.sample` takes it.
    """
    prosody, device = task.prosody, task.model.device
    heading, begun = prosody.heading(tune), prosody.encode(opening)
    conditions = allowed = None
    length = prosody.longest  # where nothing tells how long it is
    if task.settings.form:
        asked = prosody.conditions(tune, form, len(heading))
        conditions = torch.from_numpy(asked).to(device, torch.long)
    if mask:
        allowed = prosody.allowed(form, len(heading)).to(device)
    if task.settings.form or mask:
        length = sum(1 for _ in form.places())
    unknown = prosody.vocabulary.unknown_id
    written = sample(
        Guided(task.model, conditions, allowed),
        torch.tensor(heading + begun, device=device),
        max(1, length - len(begun)),
        barred=() if unknown is None else (unknown,),
        **sampling,
    )
    return [*begun, *_to_the_end(written, prosody.end)]


def _to_the_end(ids: Iterator[int], end: int) -> Iterator[int]:
    """Tokens up to the empty line that ends a poem, with it."""
    last = None
    for id in ids:
        yield id
        if id == last == end:
            return
        last = id
