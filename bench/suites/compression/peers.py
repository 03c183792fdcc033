"""The same one-shot compression by an established library: accuracy at equal sparsity or rank, nothing trained.

In: a teacher and its data. Out: a :class:`Pair` a comparison, kept as a small JSON file each.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.packages import cache_directory
from bench.peers import modelopt_pruning
from bench.peers.sklearn_svd import open_sklearn, truncate_checkpoint
from bench.peers.torch_pruning import Pruning, open_torch_pruning, prune_checkpoint
from bench.subjects.texts import encode_texts, open_tokenizer
from bench.suites.compression.data import MOVIES, TaskData
from bench.suites.compression.make import CONFIG, TOKENIZER, WEIGHTS, Bench, Teacher, start_anew
from bench.suites.compression.records import Origin, describe_origin, keep
from bench.suites.goals import Goal, decide
from runtimes.artifact import hash_file
from runtimes.atomic import write_text

# What both sides look at.
_SAMPLES, _MAX_LENGTH = 512, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a library is given; ``ours`` is the checkpoint that we made of the same."""

    teacher: Path
    ours: Path
    data: TaskData
    cache: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One comparison: the steps of our recipe, and what makes their checkpoint into a folder."""

    title: str
    tool: str
    steps: str
    make: Callable[[Given, Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Accuracy on the test texts: of the teacher, of ours and of theirs."""

    key: str
    origin: Origin
    teacher: float
    ours: float
    theirs: float

    def judge(self) -> Goal:
        """Met where ours is at least as accurate."""
        return Goal(
            name=f"{PEERS[self.key].title}: accuracy, against {PEERS[self.key].tool}",
            wanted=f">= {100 * self.theirs:.2f} %",
            measured=f"{100 * self.ours:.2f} % (uncompressed {100 * self.teacher:.2f} %)",
            verdict=decide(self.ours >= self.theirs),
        )


def _prune_by_torch_pruning(pruning: Pruning, given: Given, out: Path) -> None:
    python = open_torch_pruning(given.cache)
    prune_checkpoint(python, given.teacher, out, read_samples(given.data, given.teacher), pruning)


def _prune_by_modelopt(method: modelopt_pruning.Method, given: Given, out: Path) -> None:
    python = modelopt_pruning.open_modelopt_pruning(given.cache)
    samples = read_samples(given.data, given.teacher)
    del samples["labels"]
    modelopt_pruning.prune_checkpoint(python, given.teacher, out, samples, method=method)


def _truncate_by_sklearn(given: Given, out: Path) -> None:
    """Take the layers and ranks that ours took: what was not faster in two factors stays whole on both sides."""
    record = json.loads((given.ours / "stepdown.json").read_text(encoding="utf-8"))
    ranks = {f"{name}.weight": rank for name, rank in record["steps"][-1]["facts"]["ranks"].items()}
    truncate_checkpoint(open_sklearn(given.cache), given.teacher, out, ranks)


def _steps(do: str, *lines: str) -> str:
    return "\n".join(["[[steps]]", f'do = "{do}"', *lines, ""])


def _structured(what: str, step: str, units: str, importance: str, sparsity: float) -> Peer:
    pruning = Pruning(units=units, importance=importance, sparsity=sparsity)  # type: ignore[arg-type] # of the table
    return Peer(
        title=what,
        tool="torch-pruning",
        steps=_steps(step, f"sparsity = {sparsity}", f'importance = "{importance}"', f"samples = {_SAMPLES}"),
        make=partial(_prune_by_torch_pruning, pruning),
    )


PEERS: Mapping[str, Peer] = {
    "peer-neurons-taylor": _structured("FFN neurons, half, Taylor", "prune-neurons", "neurons", "taylor", 0.5),
    "peer-neurons-magnitude": _structured("FFN neurons, half, magnitude", "prune-neurons", "neurons", "magnitude", 0.5),
    "peer-heads-taylor": _structured("heads, a quarter, Taylor", "prune-heads", "heads", "taylor", 0.25),
    "peer-2of4-second-order": Peer(
        title="2:4, second-order",
        tool="NVIDIA ModelOpt's SparseGPT",
        steps=_steps("prune", 'method = "second-order"', 'pattern = "2:4"', f"samples = {_SAMPLES}"),
        make=partial(_prune_by_modelopt, "sparsegpt"),
    ),
    "peer-2of4-magnitude": Peer(
        title="2:4, magnitude",
        tool="NVIDIA ModelOpt's sparse_magnitude",
        steps=_steps("prune", 'pattern = "2:4"', "permute = true"),
        make=partial(_prune_by_modelopt, "sparse_magnitude"),
    ),
    "peer-svd": Peer(
        title="linears at rank 128",
        tool="scikit-learn's TruncatedSVD",
        steps=_steps("low-rank", "rank = 128"),
        make=_truncate_by_sklearn,
    ),
}


def compare_with_peer(key: str, bench: Bench, data: TaskData, teacher: Teacher) -> Pair:
    """Make both checkpoints and judge them, unless that was done.

    Raises:
        MissingDependency: the library cannot be installed.
        UnsupportedModel: a side failed; the message says what was said.
        Inconclusive: the time is up.
    """
    peer, folder = PEERS[key], bench.work / f"{data.name}-{key}"
    origin = describe_origin(peer.steps, data)
    kept = _read_pair(bench.records, key)
    if kept is not None and kept.origin.data_sha256 == origin.data_sha256:
        return kept
    start_anew(folder, {"teacher": hash_file(teacher.checkpoint / WEIGHTS), "steps": peer.steps})
    ours, theirs = folder / "ours", folder / "theirs"
    if not ours.is_dir():
        write_text(folder / "recipe.toml", f'name = "{key}"\n\n{peer.steps}')
        words = ["compress", teacher.checkpoint, "--recipe", folder / "recipe.toml", "--data", data.train]
        bench.commands.run(*words, "--held-out", data.held_out, "-o", ours)
    if not theirs.is_dir():
        peer.make(Given(teacher=teacher.checkpoint, ours=ours, data=data, cache=cache_directory()), theirs)
    for name in (TOKENIZER, CONFIG):
        if not (theirs / name).is_file():
            shutil.copyfile(teacher.checkpoint / name, theirs / name)
    words = ["--data", data.test, "--metric", "accuracy"]
    found = {
        name: bench.commands.run("eval", path, *words)["value"] for name, path in (("ours", ours), ("theirs", theirs))
    }
    pair = Pair(key=key, origin=origin, teacher=teacher.quality.accuracy, **found)
    keep(_find_pair(bench.records, key), asdict(pair))
    return pair


def read_pairs(records: Path) -> tuple[Pair, ...]:
    """Return every comparison there is."""
    found = (_read_pair(records, key) for key in PEERS)
    return tuple(pair for pair in found if pair is not None)


def read_samples(data: TaskData, checkpoint: Path) -> dict[str, NDArray[np.int64]]:
    """Return the first texts to learn from as one padded batch, with ``labels`` as the checkpoint counts them."""
    lines = data.train.read_text(encoding="utf-8").splitlines()[:_SAMPLES]
    rows = [json.loads(line) for line in lines]
    tokenizer = open_tokenizer(checkpoint / TOKENIZER, max_length=_MAX_LENGTH)
    places = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))["label2id"]
    labels = np.array([places[str(row["label"])] for row in rows], np.int64)
    return {**encode_texts(tokenizer, [row["text"] for row in rows]), "labels": labels}


def _find_pair(records: Path, key: str) -> Path:
    return records / f"{MOVIES}-{key}.json"


def _read_pair(records: Path, key: str) -> Pair | None:
    path = _find_pair(records, key)
    if not path.is_file():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    origin = Origin(**told.pop("origin"))
    return Pair(**told, origin=origin) if origin.is_of(PEERS[key].steps) else None
