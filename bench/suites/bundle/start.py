"""From nothing to the first answer: a new process that imports, opens a model, and answers one text.

In: subjects, each a program with the Python it runs in. Out: wall time from the start of the process to its answer, its
peak memory, and the answer, in rounds in which the subjects take turns. Files are in the page cache from the first
round on, which does not count. Linux only: peak memory is the kernel's (VmHWM).
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from runtimes.errors import SubjectFailed

TEXT = "A step-down transformer lowers the voltage."

_END = """
import json, re, sys
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
print(json.dumps({"vector": vector, "peak_bytes": peak}), flush=True)
"""
# Each gets the model, the number of threads and the text, and ends with `vector`, a list of floats.
BUNDLE = (
    """
import sys
from runtimes.bundle.open_variant import ServeOptions
from runtimes.serving.bundle import open_bundle
with open_bundle(sys.argv[1]).session(ServeOptions(threads=int(sys.argv[2]))) as session:
    vector = session(sys.argv[3]).value
"""
    + _END
)
ONNX_RUNTIME = (
    """
import sys
import numpy, onnxruntime, tokenizers
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", options, providers=["CPUExecutionProvider"])
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
tokenizer.no_padding()
encoding = tokenizer.encode(sys.argv[3])
known = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}
feeds = {spec.name: numpy.array([known[spec.name]], numpy.int64) for spec in session.get_inputs()}
hidden = session.run(None, feeds)[0]
vector = hidden[0].mean(axis=0).tolist()
"""
    + _END
)
TRANSFORMERS = (
    """
import sys
import torch
from transformers import AutoModel, AutoTokenizer
torch.set_num_threads(int(sys.argv[2]))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModel.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    hidden = model(**tokenizer(sys.argv[3], return_tensors="pt")).last_hidden_state
vector = hidden[0].mean(dim=0).tolist()
"""
    + _END
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A program, the Python it runs in, and the model it is given."""

    python: Path
    program: str
    model: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start: wall time to the answer, peak resident memory until then, and the answer."""

    seconds: float
    peak_bytes: int
    vector: tuple[float, ...]


def measure_starts(
    subjects: Mapping[str, Subject], *, rounds: int, threads: int, seed: int = 0
) -> dict[str, tuple[Start, ...]]:
    """Start every subject once a round, in an order drawn anew for each; a first round fills the page cache.

    Raises:
        SubjectFailed: a program ended without an answer.
    """
    draw = random.Random(seed)
    found: dict[str, list[Start]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name in draw.sample(list(subjects), len(subjects)):
            start = start_once(name, subjects[name], threads)
            if number:
                found[name].append(start)
    return {name: tuple(starts) for name, starts in found.items()}


def start_once(name: str, subject: Subject, threads: int) -> Start:
    """Start one process and wait for its answer."""
    command = [str(subject.python), "-P", "-c", subject.program, str(subject.model), str(threads), TEXT]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - begin
        _, said = process.communicate()
    if process.returncode != 0 or not line:
        raise SubjectFailed(
            f"it ended with {process.returncode} and no answer: {said.strip()[-600:]}",
            where=name,
            cure="run its program by hand",
        )
    told = json.loads(line)
    return Start(seconds=seconds, peak_bytes=told["peak_bytes"], vector=tuple(told["vector"]))


def median_ratio(starts: Sequence[Start], reference: Sequence[Start]) -> float:
    """Return the median over rounds of how many times as long ``reference`` took in the same round."""
    return median(other.seconds / own.seconds for own, other in zip(starts, reference, strict=True))


def cosine(left: Start, right: Start) -> float:
    """Return how alike two answers are: a start that answers otherwise did other work."""
    a, b = np.array(left.vector), np.array(right.vector)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
