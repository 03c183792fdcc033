"""One artifact, one answer: onnxruntime-genai, transformers' pipeline and ``stepdown run`` say the same tokens.

Streams beside each other are not mixed, and memory stays flat. In: a workplace. Out: how many prompts agree, every
other one a conversation, and what memory was held over many generations.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.generation.decoding import Rows
from bench.peers.stepdown_cli import run_measured
from bench.processes.memory import read_resident_bytes
from bench.suites.decoder.models import PRECISIONS, Workplace, name_export
from bench.suites.decoder.prompts import ask_in_chat, write_prompts
from bench.suites.goals import Goal, decide
from bench.table import render_markdown
from runtimes.generation.generator import Generator, Prompt, open_generator
from runtimes.generation.options import GenerationOptions

_NEW_TOKENS = 64
_STREAMS = 8
_WAYS = {"pipeline": "transformers pipeline", "command": "stepdown run", "streams": f"{_STREAMS} streams at once"}
# A generation of those over which memory must stay flat; the first share of them fills what is filled once.
_SHORT_TOKENS, _FILLING = 4, 0.1
# What may come on top over all others: less than a copy of the smallest cache, so that a leak of one a run shows.
_LARGEST_GROWTH_BYTES = 8_000_000

# In a process of its own: the bench imports no torch. What the pipeline was asked is part of what it gives back: other
# tokens than ours are another question.
_PIPELINE = """
import json, sys
from pathlib import Path
import transformers
from exporter.tracing.exported_decoder import load_for_transformers

directory, asked, out, count, threads = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
model = load_for_transformers(directory, threads=int(threads))
pipeline = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
answers = []
for prompt, row in json.loads(Path(asked).read_text()):
    said = pipeline(prompt, max_new_tokens=int(count), do_sample=False, return_tensors=True)[0]["generated_token_ids"]
    answers.append(said[len(row):] if said[:len(row)] == row else None)
Path(out).write_text(json.dumps(answers))
"""


def measure_agreement(work: Workplace, *, prompts: int, generations: int) -> dict[str, Mapping[str, Any]]:
    """Return by precision how far all ways of running an artifact agree."""
    texts = write_prompts(work.texts.test, prompts)
    return {precision: _measure(work, precision, texts, generations) for precision in PRECISIONS}


def render_agreement(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown."""
    rows = [
        [
            precision,
            *(f"{one[way]} of {one['prompts']}" for way in _WAYS),
            f"{one['growth_bytes'] / 1e6:+.1f} MB in {one['generations']}",
        ]
        for precision, one in found.items()
    ]
    kinds = "half of the prompts as conversations, where the model has a chat template"
    caption = f"{_NEW_TOKENS} greedy tokens as onnxruntime-genai says them; {kinds}:"
    return f"{caption}\n\n{render_markdown(['artifact', *_WAYS.values(), 'memory'], rows)}"


def count_mixed(generator: Generator, rows: Rows, expected: Rows) -> int:
    """Return how many rows are answered otherwise when threads answer them side by side."""
    options = GenerationOptions(max_new_tokens=max(map(len, expected)))
    with ThreadPoolExecutor(_STREAMS) as pool:
        said = list(pool.map(lambda row: generator.complete_ids([row], options)[0], rows))
    return sum(one != other for one, other in zip(said, expected, strict=True))


def measure_growth(generator: Generator, rows: Rows, generations: int) -> int:
    """Return how many bytes more are held after so many generations than after the first tenth of them."""
    options = GenerationOptions(max_new_tokens=_SHORT_TOKENS)
    filled = 0
    for number in range(generations):
        if number == int(_FILLING * generations):
            filled = read_resident_bytes()
        generator.complete_ids([rows[number % len(rows)]], options)
    return read_resident_bytes() - filled


def judge_agreement(precision: str, found: Mapping[str, Any]) -> tuple[Goal, ...]:
    """Judge one artifact: all prompts agree, some were asked, and memory stayed flat over some generations."""
    total, generations, growth = found["prompts"], found["generations"], found["growth_bytes"]
    ways = [
        Goal(
            name=f"{precision}, {title}: the tokens of onnxruntime-genai",
            wanted=f"{total} of {total}",
            measured=f"{found[way]} of {total}",
            verdict=decide(found[way] == total > 0),
        )
        for way, title in _WAYS.items()
    ]
    memory = Goal(
        name=f"{precision}, memory over {generations} generations",
        wanted=f"<= +{_LARGEST_GROWTH_BYTES / 1e6:.0f} MB",
        measured=f"{growth / 1e6:+.1f} MB",
        verdict=decide(growth <= _LARGEST_GROWTH_BYTES and generations > 0),
    )
    return (*ways, memory)


def mix_prompts(texts: Sequence[str]) -> list[Prompt]:
    """Return two texts as they are, two as conversations, and so on: either kind has prompts of all lengths."""
    chats = ask_in_chat(texts)
    return [chats[place] if place // 2 % 2 else text for place, text in enumerate(texts)]


def _measure(work: Workplace, precision: str, texts: Sequence[str], generations: int) -> dict[str, Any]:
    directory, threads = work.export(work.unpack(), precision), work.commands.threads

    def keep(what: str, measure: Callable[[], Mapping[str, Any]], **depends_on: object) -> Mapping[str, Any]:
        known = {"export": name_export(directory), "texts": texts, "new tokens": _NEW_TOKENS}
        return work.record(f"agreement-{precision}-{what}", {**known, **depends_on}, measure)

    told = keep("expected", partial(_answer, directory, texts, threads))
    asked, rows, expected = told["asked"], told["rows"], told["said"]
    counts = {
        "pipeline": keep("pipeline", partial(_ask_pipeline, directory, asked, rows, expected, threads)),
        "command": keep("command", partial(_ask_command, work, directory, asked, expected)),
        "streams": keep("streams", partial(_ask_streams, directory, rows, expected, threads)),
    }
    grown = keep("memory", partial(_fill, directory, rows, generations, threads), generations=generations)
    agreeing = {way: one["agreeing"] for way, one in counts.items()}
    found = {**agreeing, **grown, "prompts": len(asked), "generations": generations}
    return {**found, "goals": [asdict(goal) for goal in judge_agreement(precision, found)]}


def _answer(directory: Path, texts: Sequence[str], threads: int) -> dict[str, Any]:
    options = GenerationOptions(max_new_tokens=_NEW_TOKENS)
    with open_generator(directory, threads=threads) as generator:
        asked = mix_prompts(texts) if generator.has_chat_template else texts
        rows = [generator.encode(prompt) for prompt in asked]
        said = [generator.complete_ids([row], options)[0] for row in rows]
    return {"asked": asked, "rows": rows, "said": said}


def _ask_pipeline(directory: Path, asked: Sequence[Prompt], rows: Rows, expected: Rows, threads: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "prompts.json", Path(folder) / "answers.json"
        given.write_text(json.dumps(list(zip(asked, rows, strict=True))), encoding="utf-8")
        words = [str(directory), str(given), str(out), str(_NEW_TOKENS), str(threads)]
        run_measured([sys.executable, "-c", _PIPELINE, *words])
        return _count_equal(json.loads(out.read_text(encoding="utf-8")), expected)


def _ask_command(work: Workplace, directory: Path, asked: Sequence[Prompt], expected: Rows) -> dict[str, int]:
    said = []
    for one in asked:
        way, text = ("--plain", one) if isinstance(one, str) else ("--chat", one[0]["content"])
        words = ("--prompt", text, way, "--max-new-tokens", _NEW_TOKENS, "--temperature", 0)
        said.append(work.commands.run("run", directory, *words)["answers"][0]["ids"])
    return _count_equal(said, expected)


def _ask_streams(directory: Path, rows: Rows, expected: Rows, threads: int) -> dict[str, int]:
    with open_generator(directory, threads=threads) as generator:
        return {"agreeing": len(rows) - count_mixed(generator, rows, expected)}


def _fill(directory: Path, rows: Rows, generations: int, threads: int) -> dict[str, int]:
    # The shorter half: it takes less time, and a cache that is leaked in each run shows all the same.
    shorter = sorted(rows, key=len)[: -(-len(rows) // 2)]
    with open_generator(directory, threads=threads) as generator:
        return {"growth_bytes": measure_growth(generator, shorter, generations)}


def _count_equal(said: Sequence[Sequence[int] | None], expected: Rows) -> dict[str, int]:
    return {"agreeing": sum(one == other for one, other in zip(said, expected, strict=True))}
