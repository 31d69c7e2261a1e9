"""Word vectors of elman beside gensim's: the same words, the same settings, one thread each.

    python benchmarks/word_vectors.py [--method cbow] [--epochs 5] [--seeds 2]

Both learn from the same words of the Brown corpus, line by line, and gensim's own scorers judge
both. Seconds are those of the processor, in training alone, so that what else the machine does
hardly shows; gensim reads its words on a second thread, whose seconds count. The result goes to
benchmarks/results/word-vectors-METHOD.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from elman.bench import machine
from elman.data.vectors import Vectors
from elman.data.words import END
from elman.tasks.embed.similarity import judge
from elman.tasks.embed.task import Embedding
from elman.tasks.embed.word_vectors import EmbedSettings
from elman.training.start import start
from elman.training.storage import to_json

FIGURES = ("SimLex-999", "RG-65", "semantic", "syntactic", "all", "words_per_second")


def of_elman(settings: EmbedSettings) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = start(Embedding, ["brown"], settings, Path(folder, "run"))
        started = time.process_time()
        trainer.train()
        seconds = time.process_time() - started
        trainer.run.give_weights(trainer.task.model)
    return judged(trainer.task.vectors(), len(words(trainer.task)) * settings.epochs / seconds)


def of_gensim(settings: EmbedSettings, task: Any) -> dict[str, float]:
    from gensim.models import Word2Vec

    tokens = words(task)
    lines = np.split(tokens, np.flatnonzero(tokens == task.vocabulary.tokens.index(END)))
    known, names = task.counts.numpy() > 0, task.vocabulary.tokens
    sentences = [[names[k] for k in line if known[k]] for line in lines]
    model = Word2Vec(
        vector_size=settings.embedding,
        window=settings.window,
        negative=settings.negatives,
        sample=settings.subsample,
        sg=int(settings.method == "skip-gram"),
        min_count=1,
        workers=1,
        seed=settings.seed,
    )
    model.build_vocab(sentences)
    started = time.process_time()
    model.train(sentences, total_examples=len(sentences), epochs=settings.epochs)
    seconds = time.process_time() - started
    vectors = Vectors("gensim", model.wv.index_to_key, model.wv.vectors)
    return judged(vectors, len(tokens) * settings.epochs / seconds)


def words(task: Any) -> np.ndarray:
    """The words that are learned from, those that are left out among them."""
    return np.array(task.texts.sources[0].train[:])


def judged(vectors: Vectors, rate: float) -> dict[str, float]:
    found = judge(vectors)
    figures = {name: row["spearman"] for name, row in found["similarities"].items()}
    figures |= {name: row["accuracy"] for name, row in found["analogies"].items()}
    return figures | {"words_per_second": round(rate)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="cbow", choices=("cbow", "skip-gram"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"gensim": [], "elman": []}
    for seed in range(1, options.seeds + 1):
        settings = EmbedSettings(
            method=options.method, lines=True, epochs=options.epochs, seed=seed, validation=0.05,
            device="cpu",
        )  # fmt: skip
        found["gensim"].append(of_gensim(settings, Embedding.prepare(["brown"], settings)))
        found["elman"].append(of_elman(settings))
    rows = []
    for name, runs in found.items():
        row: dict[str, Any] = {"of": name}
        for figure in FIGURES:
            values = [run[figure] for run in runs]
            row[figure] = {
                "mean": mean(values), "spread": stdev(values) if len(values) > 1 else 0.0,
            }  # fmt: skip
        rows.append(row)
        shown = (f"{f} {row[f]['mean']:.4g} ± {row[f]['spread']:.2g}" for f in FIGURES)
        print(f"{name:<7} {', '.join(shown)}", flush=True)
    result = {
        "command": "python benchmarks/word_vectors.py "
        f"--method {options.method} --epochs {options.epochs} --seeds {options.seeds}",
        "rows": rows,
        "machine": machine(),
    }
    path = Path(__file__).parent / "results" / f"word-vectors-{options.method}.json"
    path.write_text(to_json(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
