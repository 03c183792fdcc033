"""The folder beside the output in which a run keeps what it needs to go on after a kill.

::

    DIR.partial/
      run.json            what this run is: recipe, model, data
      metrics.jsonl       everything measured so far
      0-prune/            the checkpoint behind the last step that is done
      1-finetune.work/    of the step under way: tokenizer files, and the states of its trainings

In: a path and what the run is. Out: places. Must not import torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compression.training.journal import Journal
from runtimes.atomic import make_directory, write_text
from runtimes.errors import UsageError

#: How the kept state of a training ends.
STATE_SUFFIX = ".state.safetensors"
_RUN, _METRICS, _WORK = "run.json", "metrics.jsonl", ".work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """The folder of one run; ``steps`` are the names of the recipe's steps in order."""

    folder: Path
    steps: tuple[str, ...]

    @property
    def journal(self) -> Journal:
        """The metrics of the whole run."""
        return Journal(path=self.folder / _METRICS)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint behind ``step`` is or will be."""
        return self.folder / f"{step}-{self.steps[step]}"

    def count_done(self) -> int:
        """Return how many steps are done."""
        return max((step + 1 for step in range(len(self.steps)) if self.checkpoint(step).is_dir()), default=0)

    def open_step(self, step: int) -> Path:
        """Return the folder of a step's own files, those of a killed run of it included."""
        place = self.folder / f"{step}-{self.steps[step]}{_WORK}"
        make_directory(place)
        if not any(place.glob(f"*{STATE_SUFFIX}")):
            self.journal.drop_from(step)  # nothing was kept, so the step starts anew, and its metrics with it
        return place

    def give_up(self, step: int) -> None:
        """Remove what is kept of a step under way, which would only come to the same end again."""
        shutil.rmtree(self.folder / f"{step}-{self.steps[step]}{_WORK}")

    def remove_all_but(self, step: int) -> None:
        """Remove what the checkpoint behind ``step`` has made needless."""
        for path in self.folder.iterdir():
            if path.is_dir() and path != self.checkpoint(step):
                shutil.rmtree(path)


@contextmanager
def open_workplace(folder: Path, run: Mapping[str, Any]) -> Iterator[Workplace]:
    """Make the folder, or open that of a run that was killed or failed, for this process alone.

    Args:
        folder: The folder.
        run: What must be the same for a run to go on, plain JSON data; the steps at ``recipe.steps`` may differ from
            the first one on that is not done and of whose trainings nothing is kept.

    Raises:
        UsageError: it belongs to another run, or another process is at work in it.
        OutputError: it cannot be made.
    """
    make_directory(folder)
    with _hold(folder):
        for path in folder.glob(".*"):  # what a killed run left half-written
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _take_over(folder, json.loads(json.dumps(run)))
        yield Workplace(folder=folder, steps=_name_steps(run))


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    held = os.open(folder, os.O_RDONLY)
    try:
        _lock(held, folder)
        yield
    finally:
        os.close(held)


def _lock(held: int, folder: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            "another process is at work there", where=str(folder), cure="wait for it, or choose another -o"
        ) from error


def _take_over(folder: Path, run: Mapping[str, Any]) -> None:
    """Let what was begun go on as ``run``, unless something that was made there would be lost."""
    path = folder / _RUN
    if path.is_file():
        begun = _read_begun(path)
        done = Workplace(folder=folder, steps=_name_steps(begun)).count_done()
        trains = any(folder.glob(f"*{_WORK}/*{STATE_SUFFIX}"))
        _require_same(begun, run, done + 1 if trains else done, folder)
    write_text(path, json.dumps(run, indent=2) + "\n")


def _read_begun(path: Path) -> dict[str, Any]:
    try:
        begun: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _name_steps(begun)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"the run begun there cannot be read: {error}", where=str(path), cure=_name_cure(path.parent)
        ) from error
    return begun


def _require_same(begun: Mapping[str, Any], run: Mapping[str, Any], made: int, folder: Path) -> None:
    # Where nothing is left to begin, all steps are looked at: the last checkpoint tells of the recipe that made it.
    end = made if made < len(_list_steps(run)) else None
    old, new = ({**one, "recipe": {**one["recipe"], "steps": _list_steps(one)[:end]}} for one in (begun, run))
    difference = find_difference(old, new)
    if difference is not None:
        raise UsageError(f"a run begun there was another: {difference}", where=str(folder), cure=_name_cure(folder))


def _name_cure(folder: Path) -> str:
    return f"go on with what it was begun with, or remove {folder} to begin anew"


def _list_steps(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps: list[Mapping[str, Any]] = run["recipe"]["steps"]
    return steps


def _name_steps(run: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(step["do"]) for step in _list_steps(run))


def find_difference(old: object, new: object, where: str = "") -> str | None:
    """Return where two JSON values first differ, in words; None where they are equal."""
    if isinstance(old, dict) and isinstance(new, dict) and where:
        pairs = [(f"{where}.{key}", old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(old, dict) and isinstance(new, dict):
        pairs = [(str(key), old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{where}[{place}]", left, right) for place, (left, right) in enumerate(zip(old, new, strict=True))]
    else:
        return None if old == new else f"{where} was {_shorten(old)}, is {_shorten(new)}"
    return next((found for place, left, right in pairs if (found := find_difference(left, right, place))), None)


def _shorten(value: object) -> str:
    text = f"{len(value)} long" if isinstance(value, list) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
