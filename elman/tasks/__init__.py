"""The field's jobs: one file each, and a line here. None is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from elman.training.run import Run
    from elman.training.task import Task


class Entry(NamedTuple):
    """What is known of a job before it is imported.

    Attributes:
        module, name: where its class is.
        summary: what it is, in one line.
        verbs: what its trained model does, by the name of the command, in one line each.
    """

    module: str
    name: str
    summary: str
    verbs: Mapping[str, str] = {}


class Jobs(MutableMapping[str, "type[Task]"]):
    """The jobs by name; a class of one's own may be put among them."""

    def __init__(self, entries: Mapping[str, Entry]):
        self._entries = dict(entries)
        self._classes: dict[str, type[Task]] = {}

    def __getitem__(self, name: str) -> type[Task]:
        if name not in self._classes:
            entry = self._entries[name]
            self._classes[name] = getattr(import_module(entry.module), entry.name)
        return self._classes[name]

    def __setitem__(self, name: str, kind: type[Task]) -> None:
        verbs = {verb.name: verb.help for verb in kind.verbs}
        self._entries[name] = Entry(kind.__module__, kind.__name__, kind.summary(), verbs)
        self._classes[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._entries[name]
        self._classes.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # which imports none

    def that_can(self, verb: str) -> list[type[Task]]:
        """The jobs whose trained models do this; no other is imported."""
        return [self[name] for name, entry in self._entries.items() if verb in entry.verbs]

    def entries(self) -> dict[str, Entry]:
        """What is known of all of them."""
        return dict(self._entries)


TASKS = Jobs(
    {
        "language-model": Entry(
            "elman.tasks.language_model.task",
            "LanguageModeling",
            "Train a language model on one or more texts.",
            {"generate": "Let a language model write; the text appears as it is written."},
        ),
        "classify": Entry(
            "elman.tasks.classify.task",
            "Classify",
            "Tell the class of a sequence, of a text or of numbers; or a number.",
            {"predict": "Tell what a model was trained to tell of each input."},
        ),
        "tag": Entry(
            "elman.tasks.tag.task",
            "Tagger",
            "Tag each word of a sentence, find spans, or find the words of text without spaces.",
            {"predict": "Tell what a model was trained to tell of each input."},
        ),
        "extract": Entry(
            "elman.tasks.extract",
            "Extractor",
            "Find what a text names, and what that has to do with each other.",
            {"extract": "Find the entities of texts and their relations."},
        ),
        "embed": Entry(
            "elman.tasks.embed.task",
            "Embedding",
            "Learn vectors of words from one or more texts, by CBOW or skip-gram.",
            {
                "neighbours": "Find the words that are nearest to others, with the cosines of "
                "their vectors.",
                "analogy": "Find what is to the third word as the second is to the first.",
                "export-vectors": "Write word vectors in word2vec's text format, which gensim and "
                "others read.",
            },
        ),
        "translate": Entry(
            "elman.tasks.translate",
            "Translator",
            "Learn to translate from pairs of sentences.",
            {"translate": "Translate sentences."},
        ),
        "dialogue": Entry(
            "elman.tasks.dialogue.task",
            "Conversation",
            "Learn to answer, from dialogues: each turn from those before it.",
            {
                "chat": "Talk with a model: a turn a line, /new begins anew.",
                "reply": "Answer dialogues: a dialogue a line, __eou__ between its turns.",
            },
        ),
        "arithmetic": Entry(
            "elman.tasks.arithmetic",
            "Arithmetic",
            "Learn to add, subtract or multiply, from numbers written out.",
            {"calculate": "Work out exercises."},
        ),
        "dates": Entry(
            "elman.tasks.dates",
            "Dates",
            "Learn to write dates, however they are written, as 2021-03-31.",
            {"convert": "Write dates as ISO 8601 has them."},
        ),
        "lyrics": Entry(
            "elman.tasks.lyrics.task",
            "Lyrics",
            "Learn verse by its tunes, and write in their forms.",
            {"generate": "Let a language model write; the text appears as it is written."},
        ),
    }
)


def __getattr__(name: str) -> Any:
    """The class of a job, such as ``elman.tasks.Tagger``, imported when it is asked for."""
    for job, entry in TASKS.entries().items():
        if entry.name == name:
            return TASKS[job]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def restore(run: Run, cell: str | None = None) -> Task:
    """The job of a run without its weights; see :func:`elman.training.opening.restore`."""
    from elman.training import opening

    return opening.restore(TASKS, run, cell)


def open_run(path: Path | str, device: str = "auto", cell: str | None = None) -> Task:
    """The job of the run in ``path``, with its weights, ready to evaluate or to generate.

    Args:
        path: the folder of the run.
        device: where to compute.
        cell: ``file.py:ClassName`` again, where the run was trained with a cell of one's own.

    Raises:
        ElmanError: the folder is not a run, is damaged, or needs ``cell``.
    """
    from elman.training import opening

    return opening.open_job(TASKS, Path(path), device, cell)


__all__ = ["TASKS", "Entry", "Jobs", "open_run", "restore"]
