"""The commands of ``elman``, by panel: all that is known of them before any is imported."""

from __future__ import annotations

from elman.cli.app import Row
from elman.tasks import TASKS


def panels() -> dict[str, dict[str, Row]]:
    """A row a command, in the order of ``elman --help``: its module here, and what it does."""
    entries = TASKS.entries()
    jobs = {name: Row("jobs", entry.summary) for name, entry in entries.items()}
    models = {
        "train": Row("jobs", "Train a model; a sub-command for each job.", jobs),
        "evaluate": Row("jobs", "Measure a trained model on DATA, or on what was held out."),
    }
    for entry in entries.values():
        models |= {verb: Row("verbs", help) for verb, help in entry.verbs.items()}
    compare = "Train several cells and sizes on the same data and compare."
    models["compare"] = Row("jobs", compare, jobs)
    return {"Models": models, **_OTHERS}


_OTHERS = {
    "What recurrences do": {
        "cells": Row("about", "List the cells, or describe one by its equations."),
        "gradients": Row("gradients", "Where the gradient goes: vanishing and exploding."),
        "inspect": Row("gradients", "Gates and states of a model while it reads a text."),
        "compare-learning": Row("learning", "Learn the same stream by several learning rules."),
        "study": Row("study", "What they can do: counting, long time lags, chaos."),
    },
    "This machine": {
        "data": Row("about", "List the corpora, or fetch one and say where its files are."),
        "bench": Row("bench", "Compare speed and memory, pair by pair."),
        "doctor": Row("about", "Say what this machine has: versions, devices, compiler, data."),
    },
}
