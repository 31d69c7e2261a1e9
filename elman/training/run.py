"""The folder of a run: everything a training leaves behind, readable without elman."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from elman import files
from elman.errors import ElmanError, brief, one_line
from elman.training import schema, storage
from elman.training.lock import Lock
from elman.training.weights import give_weights

FORMAT = 2
_TENSORS = "tensors.safetensors"

_CONFIG = schema.record(
    {
        "format": schema.whole(),
        "task": schema.text(),
        "data": schema.listed(schema.text()),
        "settings": schema.record({}, others=schema.anything),
        "fingerprints": schema.record({}, others=schema.whole()),
    },
    others=schema.anything,
)
_SAMPLE = r"== epoch (\d{1,18}) =="


class Run:
    """A run folder.

    ``config.json`` (task, data, settings), ``assets/`` (what the job needs beside them, such as a
    vocabulary), ``model.safetensors`` (the best weights), ``checkpoint/`` (all that resuming
    needs), ``metrics.jsonl`` (a line an epoch), ``curves.png``, ``samples.txt``. Every file is
    replaced as a whole. A run knows nothing of its job.
    """

    def __init__(self, path: Path, config: dict[str, Any]):
        self.path, self.config = path, config
        self._made: list[Path] = []  # the folders that were made for it, the innermost first
        self._lock: Lock | None = None

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> Run:
        """Make the folder of a new run, with its ``config.json``.

        Raises:
            ElmanError: the folder is there already, or cannot be made.
        """
        run = cls.begin(path, config)
        run.settle()
        run.unlock()
        return run

    @classmethod
    def begin(cls, path: Path, config: dict[str, Any]) -> Run:
        """Make the folder of a new run aside, as ``.NAME.making``, locked.

        :meth:`settle` moves it to its place once there is something to go on from. So at no moment
        is there a folder in its place that can be neither resumed nor made again; what a killed
        process has left aside, the next one that makes the same run clears away.

        Raises:
            ElmanError: the folder is there already, is being made, or cannot be made.
        """
        from elman.version import __version__

        refuse_existing(path)
        aside = _aside(path)
        run = cls(aside, {"format": FORMAT, "elman": __version__, **config})
        run._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        if aside.is_symlink():
            raise ElmanError(f"{aside} is a link: delete it, or name another folder with `run`.")
        try:
            aside.mkdir(parents=True, exist_ok=True)
            run.lock()
            for left in aside.iterdir():
                folder = left.is_dir() and not left.is_symlink()
                shutil.rmtree(left) if folder else left.unlink()
            (aside / "checkpoint").mkdir()
        except OSError as error:
            run.unlock()
            raise ElmanError(f"the folder {path} cannot be made ({error.strerror}).") from error
        try:
            storage.write_json(aside / "config.json", run.config)
        except ElmanError:
            run.remove()
            raise
        return run

    def settle(self) -> None:
        """Move a run that was begun to its place.

        Raises:
            ElmanError: something else has come to be there.
        """
        path = self.place
        try:
            # Onto nothing, or onto an empty folder, and in one stroke.
            os.rename(self.path, path)
        except OSError:
            refuse_existing(path)
            raise
        self.path = path

    @property
    def place(self) -> Path:
        """Where the run is once it has been made; elsewhere it is at :attr:`path` already."""
        name = self.path.name
        making = name.startswith(".") and name.endswith(_MAKING)
        return self.path.with_name(name[1 : -len(_MAKING)]) if making else self.path

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open the folder of an earlier run.

        Raises:
            ElmanError: it is not there, is damaged, or another version of elman wrote it.
        """
        if not path.is_dir():
            raise ElmanError(f"no run {str(path)!r}: expected a folder that elman train has made.")
        config = storage.read_json(path / "config.json")
        if not isinstance(config, dict) or "format" not in config:
            raise ElmanError(f"{path / 'config.json'} is not that of a run: name another folder.")
        if type(config["format"]) is int and config["format"] != FORMAT:
            version, format = config.get("elman"), brief(config["format"])
            raise ElmanError(
                f"{path} was written by elman {one_line(version, 40)} in format {format}; "
                f"this elman reads format {FORMAT}: use that version, or train anew."
            )
        try:
            _CONFIG(config, "")
        except schema.Mismatch as why:
            raise storage.damaged(path / "config.json", why) from None
        return cls(path, config)

    def reconfigure(self, settings: dict[str, Any]) -> None:
        """Keep changed settings."""
        self.config["settings"] = settings
        storage.write_json(self.path / "config.json", self.config)

    def remove(self) -> None:
        """Take the folder away again, where its run could not even start.

        Those above it that were made for it go too, unless there is something else in them.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            for folder in self._made[1:]:
                folder.rmdir()

    # -- one process at a time ----------------------------------------------------------------

    def lock(self) -> None:
        """Let nobody else train this run, until :meth:`unlock`.

        Raises:
            ElmanError: it is being trained already.
        """
        if self._lock is not None:
            return
        lock = Lock(self.path)
        if not lock.taken:
            what = "trained" if self.place == self.path else "made"
            raise ElmanError(
                f"{self.place} is being {what} already: wait for that to end, or train anew."
            )
        self._lock = lock

    def unlock(self) -> None:
        """Let others train this run again."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    # -- what the job needs -------------------------------------------------------------------

    def save_assets(self, assets: Mapping[str, Any]) -> None:
        """Keep what a job gave: JSON as ``NAME.json``, tensors together, files in ``files/``."""
        folder = self.path / "assets"
        folder.mkdir(exist_ok=True)
        tensors = {name: value for name, value in assets.items() if isinstance(value, Tensor)}
        for name, value in assets.items():
            if isinstance(value, Path):
                (folder / "files").mkdir(exist_ok=True)
                files.copy_file(value, folder / "files" / name)
            elif name not in tensors:
                storage.write_json(folder / f"{name}.json", value)
        if tensors:
            storage.write_tensors(folder / _TENSORS, tensors)

    def load_assets(self) -> storage.Assets:
        """What :meth:`save_assets` kept, by name.

        Raises:
            ElmanError: some of it is damaged, or the folder is missing.
        """
        folder = self.path / "assets"
        found = storage.Assets()
        if not folder.is_dir():
            raise ElmanError(f"{folder} is missing: expected the folder of a run, whole.")
        for path in sorted(folder.iterdir()):
            if path.name == _TENSORS:
                found.update(storage.read_tensors(path)[0])
            elif path.suffix == ".json":
                found[path.stem] = storage.read_json(path)
        found.update({path.name: path for path in folder.glob("files/*")})
        return found

    # -- weights and checkpoints --------------------------------------------------------------

    def save_model(self, state: dict[str, Tensor]) -> None:
        """Keep the model's weights."""
        storage.write_tensors(self.path / "model.safetensors", state)

    @property
    def has_model(self) -> bool:
        """Whether weights have been kept yet."""
        return (self.path / "model.safetensors").exists()

    def load_model(self) -> dict[str, Tensor]:
        """The kept weights, as they are."""
        return storage.read_tensors(self.path / "model.safetensors")[0]

    def give_weights(self, model: nn.Module) -> None:
        """Give a model the kept weights.

        Raises:
            ElmanError: they are missing, damaged or another model's.
        """
        kept = self.load_model()
        try:
            give_weights(model, kept)
        except schema.Mismatch as why:
            raise ElmanError(
                f"{self.path / 'model.safetensors'} does not fit its config.json "
                f"({one_line(why)}): restore it or train anew."
            ) from None

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Keep all that resuming needs: any nesting of numbers, texts and tensors."""
        storage.write_tree(self.checkpoint, state)

    def load_checkpoint(self) -> dict[str, Any]:
        """What :meth:`save_checkpoint` kept.

        Raises:
            ElmanError: there is no checkpoint, or it is damaged.
        """
        if not self.checkpoint.is_file():
            raise ElmanError(f"{self.path} has no checkpoint to resume from: train anew.")
        return storage.read_tree(self.checkpoint)

    def save_share(self, rank: int, moment: str, own: dict[str, Any]) -> None:
        """Keep what is one process's own, of several that train, at a moment of the training."""
        storage.write_tree(self._share(rank, moment), own)

    def load_share(self, rank: int, moment: str) -> dict[str, Any]:
        """What :meth:`save_share` kept.

        Raises:
            ElmanError: it is missing or damaged.
        """
        return storage.read_tree(self._share(rank, moment))

    def forget_shares(self, moment: str) -> None:
        """Take away what processes kept at other moments than this one."""
        for path in self.checkpoint.parent.glob("process-*-*.safetensors"):
            if path.stem.split("-", 2)[2] != moment:
                path.unlink(missing_ok=True)

    def _share(self, rank: int, moment: str) -> Path:
        return self.checkpoint.with_name(f"process-{rank}-{moment}.safetensors")

    @property
    def checkpoint(self) -> Path:
        """The file of all that resuming needs."""
        return self.path / "checkpoint" / "state.safetensors"

    def clear_temporary(self) -> None:
        """Take away what killed writes have left; only who has the lock may."""
        for folder in (self.path, self.path / "checkpoint"):
            if folder.is_dir():
                files.clear_temporary(folder)

    # -- what it tells people -----------------------------------------------------------------

    def add_metrics(self, measures: dict[str, Any]) -> None:
        """Append the measures of an epoch."""
        self.append("metrics.jsonl", storage.to_json(measures) + "\n")

    def metrics(self, *needed: str) -> list[dict[str, Any]]:
        """The measures of every epoch so far; those that are not finite are None.

        Args:
            needed: what every line must have beside its epoch. Lines that have not, or are damaged
                otherwise, are left out.
        """
        return self.checked_metrics(*needed)[0]

    def checked_metrics(self, *needed: str) -> tuple[list[dict[str, Any]], list[str]]:
        """As :meth:`metrics`, and what is wrong with each line that is left out."""
        return storage.read_lines(self.path / "metrics.jsonl", _measures(needed))

    def forget_after(self, epoch: int, *needed: str) -> list[str]:
        """Drop the measures and samples of epochs after ``epoch``: they will come again.

        Damaged lines go, too; what was wrong with each is returned.
        """
        known, faults = self.checked_metrics(*needed)
        kept = [line for line in known if line["epoch"] <= epoch]
        text = "".join(storage.to_json(line) + "\n" for line in kept)
        files.write_bytes(self.path / "metrics.jsonl", text.encode())
        samples = self.path / "samples.txt"
        if samples.is_file():
            text = samples.read_text(encoding="utf-8", errors="replace")
            parts = re.split(rf"(?m)^(?={_SAMPLE}$)", text)
            starts = [re.match(_SAMPLE, part) for part in parts]
            old = [p for p, m in zip(parts, starts, strict=True) if m and int(m[1]) <= epoch]
            files.write_bytes(samples, "".join(old).encode())
        return faults

    def add_sample(self, epoch: int, text: str) -> None:
        """Append something that the model made."""
        self.append("samples.txt", f"== epoch {epoch} ==\n{text}\n\n")

    def append(self, name: str, text: str) -> None:
        """Append ``text`` to the file of that name."""
        path = self.path / name
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise ElmanError(
                f"{path} could not be written ({error.strerror}): free some space, "
                f"then go on with `resume` {shlex.quote(str(self.path))}."
            ) from error


def _measures(needed: Sequence[str]) -> schema.Rule:
    """The rule of a line of metrics. The measures differ by task; what is not finite is null."""
    value = schema.optional(schema.number(finite=False))
    known = {
        "epoch": schema.whole(1), "update": schema.whole(), "seconds": schema.number(0),
        "loss": schema.number(), "gradient_norm": schema.number(0),
    }  # fmt: skip
    required = {name: known.get(name, value) for name in ("epoch", *needed)}
    return schema.record(required, {**known, "partial": schema.flag}, others=value)


def refuse_existing(path: Path) -> None:
    """Raise an error where a new run's folder is there already."""
    if not os.path.lexists(path):  # a link that leads nowhere is there, too
        return
    if (path / "checkpoint" / "state.safetensors").is_file():
        first = f"go on with that run with `resume` {shlex.quote(str(path))}, or "
    elif path.is_dir() and (not any(path.iterdir()) or (path / "checkpoint").is_dir()):
        first = "nothing in it can be gone on with: delete it, or "
    else:
        first = ""
    raise ElmanError(f"{path} is there already: {first}name another folder with `run`.")


def free_folder(name: str, root: Path = Path("runs")) -> Path:
    """``runs/name``, or with the next number behind it where that is taken or being made."""
    path, k = root / name, 1
    while path.exists() or _being_made(path):
        k += 1
        path = root / f"{name}-{k}"
    return path


# -- a new run, aside -----------------------------------------------------------------------------

_MAKING = ".making"


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_MAKING}")


def _being_made(path: Path) -> bool:
    try:
        lock = Lock(_aside(path))
    except OSError:
        return False
    lock.release()
    return not lock.taken
