"""What word vectors are good for: neighbours, analogies, other programs; and how good they are."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elman.data.corpora import find
from elman.data.normalization import normalized
from elman.data.vectors import Vectors, write_vectors
from elman.errors import ElmanError, InputError
from elman.training.settings import Settings, option
from elman.training.task import Verb

if TYPE_CHECKING:
    from elman.tasks.embed.task import Embedding

SIMILARITIES = {"SimLex-999": "EN-SIMLEX-999.txt", "RG-65": "EN-RG-65.txt"}
ANALOGIES = "questions-words.txt"
# What the names of the analogies' sections begin with that are of grammar.
_SYNTACTIC = "gram"
# Words on a map, the most frequent ones.
_MAPPED = 300

_logger = logging.getLogger("elman")


def nearest(
    vectors: Vectors, plus: Sequence[str], count: int, minus: Sequence[str] = ()
) -> list[tuple[str, float]]:
    """The words whose vectors point where others point together, and the cosines.

    Each vector is scaled to length 1, those of ``plus`` are added and those of ``minus`` taken away
    (3CosAdd: Mikolov, Yih & Zweig, 2013).

    Args:
        vectors: of all words.
        plus, minus: words; they are not among those that are found.
        count: how many to find.

    Raises:
        InputError: a word has no vector.
    """
    place = {word: k for k, word in enumerate(vectors.words)}
    for word in (*plus, *minus):
        if word not in place:
            near = difflib.get_close_matches(word, vectors.words, n=3)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise InputError(
                f"{word!r} has no vector{hint}: expected one of the {len(place):,} words that come "
                "often enough in the texts that were learned from."
            )
    lengths = np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    unit = vectors.matrix / np.maximum(lengths, 1e-12)
    given = [place[word] for word in (*plus, *minus)]
    signs = np.array([1.0] * len(plus) + [-1.0] * len(minus), np.float32)
    direction = signs @ unit[given]
    cosines = unit @ (direction / max(1e-12, float(np.linalg.norm(direction))))
    cosines[given] = -np.inf
    count = min(count, len(place) - len(set(given)))
    best = np.argsort(-cosines, kind="stable")[:count]
    return [(vectors.words[k], float(cosines[k])) for k in best]


# -- how good they are ----------------------------------------------------------------------------


def judge(vectors: Vectors) -> dict[str, Any]:
    """How well vectors agree with people's judgements of English words, scored by gensim.

    ``similarities``: Spearman's rank correlation of cosines with the similarity that people see in
    pairs of words, for SimLex-999 (Hill et al., 2015) and RG-65 (Rubenstein & Goodenough, 1965).
    ``analogies``: the share that is right of questions such as Athens : Greece = Baghdad : ?
    (Mikolov et al., 2013). ``known`` is the share of pairs or questions whose words all have a
    vector: the others are left out. Where nothing is known, nothing is said; where the judgements
    or gensim are not there, a warning says so.
    """
    try:
        from gensim.models import KeyedVectors

        files = {path.name: path for path in find("word-judgements").paths()}
    except ImportError:
        _logger.warning("similarities are left out: `pip install gensim` to have them.")
        return {}
    except ElmanError as why:
        _logger.warning("similarities are left out: %s", why)
        return {}
    keyed = KeyedVectors(vectors.width)
    keyed.add_vectors(vectors.words, vectors.matrix)
    found = {
        "similarities": _similarities(keyed, files),
        "analogies": _analogies(keyed, files[ANALOGIES]),
    }
    return {name: rows for name, rows in found.items() if rows}


def _similarities(keyed: Any, files: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    words = {word.upper() for word in keyed.index_to_key}
    found = {}
    for name, file in SIMILARITIES.items():
        lines = files[file].read_text("utf-8").splitlines()
        known = sum(words.issuperset(line.upper().split("\t")[:2]) for line in lines)
        if known > 2:  # fewer have no correlation to speak of
            _, (spearman, _), _ = keyed.evaluate_word_pairs(str(files[file]))
            found[name] = {"spearman": float(spearman), "known": known / len(lines)}
    return found


def _analogies(keyed: Any, questions: Path) -> dict[str, dict[str, float]]:
    there, section = Counter[str](), ""
    for line in questions.read_text("utf-8").splitlines():
        section = line[2:] if line.startswith(":") else section
        there[section] += not line.startswith(":")
    *sections, _ = keyed.evaluate_word_analogies(str(questions))[1]
    kinds = {
        "semantic": [s for s in sections if not s["section"].startswith(_SYNTACTIC)],
        "syntactic": [s for s in sections if s["section"].startswith(_SYNTACTIC)],
        "all": sections,
    }
    found = {}
    for kind, some in kinds.items():
        right = sum(len(s["correct"]) for s in some)
        known = right + sum(len(s["incorrect"]) for s in some)
        if known:
            whole = sum(there[s["section"]] for s in some)
            found[kind] = {"accuracy": right / known, "known": known / whole}
    return found


def draw_map(vectors: Vectors, path: Path, words: Sequence[str] = (), title: str = "") -> None:
    """Draw words on a plane, near each other where their vectors point the same way (t-SNE).

    The plane is that of van der Maaten & Hinton (2008), for cosines, from the first two principal
    components on.

    Args:
        vectors: of all words.
        path: the picture.
        words: those to draw; by default the most frequent that have a letter.
        title: of the picture.

    Raises:
        InputError: there are fewer than three.
    """
    from sklearn.manifold import TSNE

    from elman.plots.word_map import draw_word_map

    shown = list(words) or [word for word in vectors.words if word[0].isalpha()][:_MAPPED]
    if len(shown) < 3:
        raise InputError(f"a map needs three words at least, received {len(shown)}: name more.")
    place = {word: k for k, word in enumerate(vectors.words)}
    matrix = vectors.matrix[[place[word] for word in shown]]
    matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    perplexity = min(30.0, (len(shown) - 1) / 3)
    plane = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(matrix)
    draw_word_map(plane, shown, path, title)


# -- what is asked of them ------------------------------------------------------------------------


@dataclass
class NeighbourSettings(Settings):
    """What can be told to whoever asks for words that are near."""

    count: int = option(10, "How many words.", least=1)


@dataclass
class ExportSettings(Settings):
    """Where vectors are to go."""

    vectors: str = option("vectors.txt", "The file to write, which is replaced if it is there.")


def _words(task: Embedding, inputs: Iterable[str]) -> list[str]:
    """What was typed, word by word, normalised as the texts were."""
    return "".join(normalized([" ".join(inputs)], task.settings.normalize)).split()


def _neighbours(
    task: Embedding, inputs: Iterable[str], settings: NeighbourSettings
) -> Iterator[dict[str, Any]]:
    vectors = task.vectors()
    for word in _words(task, inputs):
        for near, cosine in nearest(vectors, [word], settings.count):
            yield {"word": word, "neighbour": near, "cosine": cosine}


def _analogy(
    task: Embedding, inputs: Iterable[str], settings: NeighbourSettings
) -> Iterator[dict[str, Any]]:
    words = _words(task, inputs)
    if not words or len(words) % 3:
        raise InputError(
            f"an analogy needs three words, such as man king woman, received {len(words)}: "
            "give three, or three for each of several."
        )
    vectors = task.vectors()
    for a, b, c in zip(*[iter(words)] * 3, strict=True):
        for near, cosine in nearest(vectors, [b, c], settings.count, [a]):
            yield {"question": f"{a} : {b} = {c} : ?", "answer": near, "cosine": cosine}


def _export(
    task: Embedding, inputs: Iterable[str], settings: ExportSettings
) -> Iterator[dict[str, Any]]:
    vectors = task.vectors()
    write_vectors(Path(settings.vectors), vectors.words, vectors.matrix)
    yield {"words": len(vectors.words), "width": vectors.width, "file": settings.vectors}


VERBS = (
    Verb(
        "neighbours",
        "Find the words that are nearest to others, with the cosines of their vectors.",
        "RUN king queen\nRUN king --count 20 --json",
        _neighbours,
        "Words",
        Settings=NeighbourSettings,
    ),
    Verb(
        "analogy",
        "Find what is to the third word as the second is to the first.",
        "RUN man king woman",
        _analogy,
        "Words, three for each analogy",
        Settings=NeighbourSettings,
    ),
    Verb(
        "export-vectors",
        "Write word vectors in word2vec's text format, which gensim and others read.",
        "RUN --vectors vectors.txt",
        _export,
        Settings=ExportSettings,
    ),
)
