"""The field's jobs: one file each, and a line here."""

from elman.tasks.language_model import LanguageModeling
from elman.training.task import Task

TASKS: dict[str, type[Task]] = {task.name: task for task in (LanguageModeling,)}

__all__ = ["TASKS"]
