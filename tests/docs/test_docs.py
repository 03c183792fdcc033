"""The documents say what is so: commands run, links lead somewhere, tables match the code."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.assets import smollm2
from exporter.cli.main import main
from exporter.cli.reference import render_reference
from runtimes import errors
from tests.cli.tiny_artifact import write_classifier, write_texts, write_tokenizer
from tests.unit.runtimes.generation.tiny_decoder import write_artifact as write_decoder

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What makes or installs an environment is checked without doing it.
OUTER = ("make ", "pip install ")


def read_blocks(name: str) -> list[tuple[str, str]]:
    """Return (language, text) of each fenced block."""
    return BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))


def read_commands(name: str) -> list[str]:
    blocks = [text for language, text in read_blocks(name) if language == "sh"]
    return [line for text in blocks for line in text.splitlines() if line]


def make_script(name: str) -> str:
    """Return the document's shell and Python blocks as one script, in order."""
    parts = []
    for language, text in read_blocks(name):
        if language == "python":
            parts.append(f"{sys.executable} - <<'END'\n{text}END")
        if language == "sh":
            parts += [line for line in text.splitlines() if not line.startswith(OUTER)]
    return "\n".join(parts)


def run_document(name: str, folder: Path, places: dict[str, str]) -> None:
    environment = {**os.environ, **places, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", make_script(name)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def export_decoder(output: Path) -> Path:
    """Return SmolLM2 as the documents export it."""
    assert main(["export", str(smollm2()), "--precision", "fp32", "-o", str(output)]) == 0
    return output


WITH_COMMANDS = [name for name in NAMES if make_script(name)]


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_run_on_a_small_model(name, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    write_classifier(model / "model.onnx")
    write_tokenizer(model)
    (model / "config.json").write_text("{}")
    words = ["good film", "bad film", "very good", "the bad", "a film", "very bad film", "good bad"]
    texts = [{"text": f"{word} {other}"} for word in words for other in words]
    pairs = [{"text_a": a, "text_b": b, "score": len(a) - len(b)} for a in words for b in words]
    places = {
        "MODEL": str(model / "model.onnx"),
        "TEXTS": str(write_texts(tmp_path / "texts.jsonl", texts)),
        "PAIRS": str(write_texts(tmp_path / "pairs.jsonl", pairs)),
        "EXPORTED": str(write_decoder(tmp_path / "decoder")),
    }
    run_document(name, tmp_path, places)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_run_on_a_real_model(name, tmp_path, minilm_dir, lee_corpus, wordsim353_file):
    places = {"MODEL": str(minilm_dir), "TEXTS": str(lee_corpus.background), "PAIRS": str(wordsim353_file)}
    if "EXPORTED" in make_script(name):
        places["EXPORTED"] = str(export_decoder(tmp_path / "exported"))
    run_document(name, tmp_path, places)


@pytest.mark.parametrize("command", sorted({c for name in NAMES for c in read_commands(name) if c.startswith("make ")}))
def test_make_knows_the_target(command):
    done = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_extras_in_documents_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"pip install '(?:\.|stepdown)\[([\w-]+)\]'", text))
    assert named
    assert named <= set(project["optional-dependencies"])


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if "://" not in t and not ((ROOT / name).parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_json_examples_are_json(name):
    for language, text in read_blocks(name):
        if language == "json":
            json.loads(text)


def test_the_reference_is_what_the_parsers_say():
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == render_reference(), "run `make docs`"


def test_the_table_of_errors_is_what_the_classes_say():
    table = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    written = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| `(\w+)`", table, re.MULTILINE)}
    classes = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.StepdownError)}
    assert written == {name: cls.exit_code for name, cls in classes.items()}


def test_every_document_is_reachable_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in readme] == []
