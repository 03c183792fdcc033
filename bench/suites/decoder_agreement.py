"""One artifact, one answer: onnxruntime-genai, transformers' pipeline and ``stepdown run`` say the same tokens.

Streams beside each other are not mixed, and memory stays flat. In: a workplace. Out: how many prompts agree, and what
memory was held over many generations.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers.stepdown_cli import run_measured
from bench.process_memory import read_resident_bytes
from bench.suites.decoder_models import PRECISIONS, Workplace, name_export
from bench.suites.decoder_prompts import encode_plain, write_prompts
from bench.suites.encoder_goals import Goal, decide
from bench.table import render_markdown
from runtimes.generation.generator import Generator, open_generator
from runtimes.generation.options import GenerationOptions

_NEW_TOKENS = 64
_STREAMS = 8
# A generation of those over which memory must stay flat; the first share of them fills what is filled once.
_SHORT_TOKENS, _FILLING = 4, 0.1
# What may come on top over all others: less than a copy of the smallest cache, so that a leak of one a run shows.
_LARGEST_GROWTH_BYTES = 8_000_000

# In a process of its own: the bench imports no torch.
_PIPELINE = """
import json, sys
from pathlib import Path
import transformers
from exporter.tracing.exported_decoder import load_for_transformers

directory, prompts, out, count, threads = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
model = load_for_transformers(directory, threads=int(threads))
pipeline = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
answers = []
for prompt in json.loads(Path(prompts).read_text()):
    given = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    said = pipeline(prompt, max_new_tokens=int(count), do_sample=False, return_tensors=True)
    answers.append(said[0]["generated_token_ids"][len(given):])
Path(out).write_text(json.dumps(answers))
"""


def measure_agreement(work: Workplace, *, prompts: int, generations: int) -> dict[str, Mapping[str, Any]]:
    """Return by bits how far all ways of running an artifact agree."""
    found = {}
    for bits in PRECISIONS:
        directory = work.export(work.unpack(), bits)
        depends_on = {"export": name_export(directory), "prompts": prompts, "generations": generations}
        found[str(bits)] = work.record(
            f"agreement-{bits}",
            depends_on,
            partial(_measure, work, directory, bits, prompts, generations),
        )
    return found


def render_agreement(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown."""
    rows = [
        [
            f"{bits} bits",
            *(f"{one[way]} of {one['prompts']}" for way in ("pipeline", "command", "streams")),
            f"{one['growth_bytes'] / 1e6:+.1f} MB in {one['generations']}",
        ]
        for bits, one in found.items()
    ]
    header = ["artifact", "transformers pipeline", "stepdown run", f"{_STREAMS} streams at once", "memory"]
    return f"{_NEW_TOKENS} greedy tokens as onnxruntime-genai says them:\n\n{render_markdown(header, rows)}"


def count_mixed(generator: Generator, rows: list[list[int]], expected: list[list[int]]) -> int:
    """Return how many rows are answered otherwise when threads answer them side by side."""
    options = GenerationOptions(max_new_tokens=max(map(len, expected)))
    with ThreadPoolExecutor(_STREAMS) as pool:
        said = list(pool.map(lambda row: generator.complete_ids([row], options)[0], rows))
    return sum(one != other for one, other in zip(said, expected, strict=True))


def measure_growth(generator: Generator, rows: list[list[int]], generations: int) -> int:
    """Return how many bytes more are held after so many generations than after the first tenth of them."""
    options = GenerationOptions(max_new_tokens=_SHORT_TOKENS)
    filled = 0
    for number in range(generations):
        if number == int(_FILLING * generations):
            filled = read_resident_bytes()
        generator.complete_ids([rows[number % len(rows)]], options)
    return read_resident_bytes() - filled


def _measure(work: Workplace, directory: Path, bits: int, prompts: int, generations: int) -> dict[str, Any]:
    texts = write_prompts(prompts)
    rows, options = encode_plain(directory, texts), GenerationOptions(max_new_tokens=_NEW_TOKENS)
    with open_generator(directory, threads=work.commands.threads) as generator:
        expected = [generator.complete_ids([row], options)[0] for row in rows]
        mixed = count_mixed(generator, rows, expected)
        growth = measure_growth(generator, rows, generations)
    counts = {
        "pipeline": _count_equal(_ask_pipeline(directory, texts, work.commands.threads), expected),
        "command": _count_equal(_ask_command(work, directory, texts), expected),
        "streams": len(rows) - mixed,
    }
    goals = [
        Goal(
            name=f"{bits} bits, {title}: the tokens of onnxruntime-genai",
            wanted=f"{len(rows)} of {len(rows)}",
            measured=f"{counts[way]} of {len(rows)}",
            verdict=decide(counts[way] == len(rows)),
        )
        for way, title in {"pipeline": "transformers pipeline", "command": "stepdown run", "streams": "streams"}.items()
    ]
    goals.append(
        Goal(
            name=f"{bits} bits, memory over {generations} generations",
            wanted=f"<= +{_LARGEST_GROWTH_BYTES / 1e6:.0f} MB",
            measured=f"{growth / 1e6:+.1f} MB",
            verdict=decide(growth <= _LARGEST_GROWTH_BYTES),
        )
    )
    found = {**counts, "prompts": len(rows), "generations": generations, "growth_bytes": growth}
    return {**found, "goals": [asdict(goal) for goal in goals]}


def _ask_command(work: Workplace, directory: Path, texts: list[str]) -> list[list[int]]:
    words = ("--plain", "--max-new-tokens", _NEW_TOKENS, "--temperature", 0)
    given = [("run", directory, "--prompt", text, *words) for text in texts]
    return [work.commands.run(*one)["answers"][0]["ids"] for one in given]


def _ask_pipeline(directory: Path, texts: list[str], threads: int) -> list[list[int]]:
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "prompts.json", Path(folder) / "answers.json"
        given.write_text(json.dumps(texts), encoding="utf-8")
        words = [str(directory), str(given), str(out), str(_NEW_TOKENS), str(threads)]
        run_measured([sys.executable, "-c", _PIPELINE, *words])
        answers: list[list[int]] = json.loads(out.read_text(encoding="utf-8"))
        return answers


def _count_equal(said: list[list[int]], expected: list[list[int]]) -> int:
    return sum(one == other for one, other in zip(said, expected, strict=True))
