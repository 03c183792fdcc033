"""optimum-onnx, which writes the graphs of language models that many users have, in an environment of its own.

In: a Hugging Face directory. Out: a folder as it writes one. It pins an older transformers than ours.
"""

from __future__ import annotations

from pathlib import Path

from bench.peers.environment import open_environment
from bench.peers.stepdown_cli import run_measured

REQUIREMENTS = (
    "optimum-onnx==0.1.0",
    "optimum==2.1.0",
    "transformers==4.57.6",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "torch==2.13.0",
)
SINGLE, MERGED = "model.onnx", "decoder_model_merged.onnx"

# It writes one graph now, and still merges two as its versions before 2 did of every decoder: a graph for prompts, and
# one that reads a cache.
_MERGE = """
import sys
from pathlib import Path

from optimum.exporters.onnx import export
from optimum.exporters.tasks import TasksManager
from optimum.onnx import merge_decoders
from transformers import AutoModelForCausalLM

source, out = map(Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(source)
make = TasksManager.get_exporter_config_constructor(
    "onnx", model, task="text-generation", library_name="transformers"
)
halves = {past: out / f"decoder-{past}.onnx" for past in (False, True)}
for past, file in halves.items():
    export(model, make(model.config, use_past=True, use_past_in_inputs=past), file)
merge_decoders(halves[False], halves[True], save_path=out / "decoder_model_merged.onnx")
"""


def open_optimum_onnx(cache: Path) -> Path:
    """Return the Python that has optimum-onnx. Raises as :func:`~bench.peers.environment.open_environment`."""
    return open_environment(cache / "environment-optimum-onnx", REQUIREMENTS)


def export_decoder(python: Path, source: Path, out: Path) -> None:
    """Write a language model into ``out``: :data:`SINGLE`, :data:`MERGED`, its configuration and its tokenizer.

    Args:
        python: Of an environment with optimum-onnx.
        source: The Hugging Face directory.
        out: A folder, which is made where it is not there.

    Raises:
        UnsupportedModel: it failed; the message ends with what it said.
    """
    task = ("--task", "text-generation-with-past")
    run_measured([str(python), "-m", "optimum.exporters.onnx", "--model", str(source), *task, str(out)])
    run_measured([str(python), "-c", _MERGE, str(source), str(out)])
