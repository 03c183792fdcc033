"""What must hold of a bundle that generates text, before onnxruntime-genai or a template of it may run.

In: an unpacked variant, and the files that all share. Out: nothing, or an error. ``genai_config.json`` is a language
of its own: it may name further models, libraries of operators and of execution providers, files of profiles, and
settings of ONNX Runtime that write or read files. Here it says what `stepdown export` writes, and nothing else. Must
not import a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.bundle.description import BundleDescription, Variant
from runtimes.bundle.strict_json import Fields, corrupt, load_json, mismatch
from runtimes.bundle.tensor_file import read_tensors
from runtimes.generation.chat_template import check_chat_template
from runtimes.generation.layout import CONFIG_NAME, INPUT_NAMES, MODEL_TYPE, OUTPUT_NAMES, TASK, Layout, read_layout
from runtimes.generation.text_files import TOKENIZER, read_text_files
from runtimes.generation.token_probe import MAX_PROMPTS, MAX_STEPS, MAX_TEXT_BYTES

# Sizes that a model may have; each becomes an allocation.
_MAX_CONTEXT = 1 << 24
_MAX_WORDS = 2_000_000
_MAX_SIZE = 1 << 16
_MAX_CONFIG_BYTES = 1 << 16
_MAX_SETTING = 1e6


def check_generation(home: Path, description: BundleDescription) -> None:
    """Check what all variants share: the task, and the chat template.

    Raises:
        CorruptArtifact: what generates is not said to, or what is said to generate does not; the template is made of
            what no chat template needs.
        MissingDependency: ``jinja2`` is needed and not installed.
    """
    generating = [variant.name for variant in description.variants if variant.generates]
    is_said = description.task == TASK
    if len(generating) != (len(description.variants) if is_said else 0):
        task = f"its task is {description.task}, and what generates is: {', '.join(generating) or 'nothing'}"
        raise corrupt(f"a bundle generates text with every variant, or with none; {task}", "bundle.json:task")
    if not is_said:
        return
    if TOKENIZER not in description.files:
        raise corrupt("what generates text has a tokenizer", f"shared: {TOKENIZER}")
    check_chat_template(read_text_files(home / "shared", description.files))


def check_decoder(folder: Path, variant: Variant) -> None:
    """Check the files of a variant that generates, once its graph was checked.

    Raises:
        CorruptArtifact: the configuration says more than it may, or the parts do not fit each other.
    """
    check_config(folder, variant)
    layout = read_layout(folder)
    inputs = read_tensors(folder / variant.probe.inputs, f"{variant.name}: {variant.probe.inputs}")
    outputs = read_tensors(folder / variant.probe.outputs, f"{variant.name}: {variant.probe.outputs}")
    _check_probe(inputs, outputs, layout, f"{variant.name}: {variant.probe.inputs}")


def check_config(folder: Path, variant: Variant) -> None:
    """Check ``genai_config.json``: what it says is known, in bounds, and names nothing but the model beside it.

    Raises:
        CorruptArtifact: it is not so.
    """
    where = f"{variant.name}: {CONFIG_NAME}"
    path = folder / CONFIG_NAME
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise corrupt(f"a configuration of more than {_MAX_CONFIG_BYTES:,} bytes", where)
    if PurePosixPath(variant.model).name != variant.model or variant.runtime != "onnxruntime":
        raise corrupt("what generates is a model of ONNX Runtime, beside its configuration", where)
    config = Fields(load_json(path.read_bytes(), where), where)
    config.nested("model", lambda value, place: _check_model(value, place, variant.model))
    config.nested("search", _check_search)
    config.close()


def _check_model(value: object, where: str, model: str) -> None:
    fields = Fields(value, where)
    _require(fields, "type", MODEL_TYPE)
    fields.integer("vocab_size", 1, _MAX_WORDS)
    fields.integer("context_length", 1, _MAX_CONTEXT)
    fields.items("eos_token_id", _check_id)
    fields.integer("pad_token_id", 0, _MAX_WORDS)
    if "bos_token_id" in fields.all():
        fields.integer("bos_token_id", 0, _MAX_WORDS)
    fields.nested("decoder", lambda inner, place: _check_graph(inner, place, model))
    fields.close()


def _check_graph(value: object, where: str, model: str) -> None:
    fields = Fields(value, where)
    _require(fields, "filename", model)
    # Providers and their options name libraries; other settings are ONNX Runtime's, which reads and writes files.
    _require(fields, "session_options", {"provider_options": []})
    for name in ("num_hidden_layers", "num_key_value_heads", "head_size"):
        fields.integer(name, 1, _MAX_SIZE)
    _require(fields, "inputs", INPUT_NAMES)
    _require(fields, "outputs", OUTPUT_NAMES)
    fields.close()


def _check_search(value: object, where: str) -> None:
    fields = Fields(value, where)
    for name in ("do_sample", "past_present_share_buffer"):
        fields.nested(name, _check_truth)
    for name in ("temperature", "top_p", "repetition_penalty", "length_penalty"):
        fields.number(name, -_MAX_SETTING, _MAX_SETTING)
    for name in ("top_k", "no_repeat_ngram_size"):
        fields.integer(name, 0, _MAX_WORDS)
    fields.integer("max_length", 1, _MAX_CONTEXT)
    fields.close()


def _require(fields: Fields, key: str, wanted: object) -> None:
    def check(value: object, where: str) -> None:
        if value != wanted:
            raise mismatch(
                "a configuration in a bundle says this, and nothing else", where, expected=wanted, found=value
            )

    fields.nested(key, check)


def _check_id(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value < _MAX_WORDS:
        raise corrupt(f"{value!r} is no token"[:200], where)
    return value


def _check_truth(value: object, where: str) -> None:
    if not isinstance(value, bool):
        raise corrupt(f"{value!r} is neither true nor false"[:200], where)


def _check_probe(
    inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], layout: Layout, where: str
) -> None:
    """Check that a probe holds prompts and answers of this model."""
    count = len(inputs) // 2
    if not 1 <= count <= MAX_PROMPTS:
        raise corrupt(f"{count} prompts, where 1 to {MAX_PROMPTS} may be", where)
    kinds = {"text": ("uint8", MAX_TEXT_BYTES), "ids": ("int64", layout.context)}
    answers = {"tokens": ("int64", MAX_STEPS), "peaks": ("float32", MAX_STEPS), "margins": ("float32", MAX_STEPS)}
    kept = {"logits": ("float32", layout.vocabulary)}
    _check_vectors(inputs, kinds, count, where)
    _check_vectors(outputs, {**answers, **kept}, count, where)
    for number in range(count):
        _check_prompt({kind: inputs[f"{kind}.{number}"] for kind in kinds}, layout, where)
        answer = {kind: outputs[f"{kind}.{number}"] for kind in (*answers, *kept)}
        sizes = {answer[kind].size for kind in answers}
        if len(sizes) != 1 or answer["logits"].size != layout.vocabulary:
            raise corrupt(f"the answer to prompt {number} does not fit itself, or the model", where)
        _check_tokens(answer["tokens"], layout, where)
        if not all(np.isfinite(answer[kind]).all() for kind in ("peaks", "margins", "logits")):
            raise corrupt(f"the answer to prompt {number} has logits that are no numbers", where)


def _check_vectors(
    arrays: Mapping[str, NDArray[Any]], kinds: Mapping[str, tuple[str, int]], count: int, where: str
) -> None:
    expected = {f"{kind}.{number}": dtype for kind, (dtype, _) in kinds.items() for number in range(count)}
    found = {name: array.dtype.name for name, array in arrays.items()}
    if found != expected:
        raise mismatch("the probe is not one of a model that generates", where, expected=expected, found=found)
    for name, array in arrays.items():
        most = kinds[name.partition(".")[0]][1]
        if array.ndim != 1 or not 1 <= array.size <= most:
            raise corrupt(f"'{name}' has the shape {array.shape}, where up to {most:,} numbers may be", where)


def _check_prompt(prompt: Mapping[str, NDArray[Any]], layout: Layout, where: str) -> None:
    try:
        prompt["text"].tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise corrupt(f"a prompt is no text: {error}", where) from error
    _check_tokens(prompt["ids"], layout, where)


def _check_tokens(tokens: NDArray[Any], layout: Layout, where: str) -> None:
    if not ((tokens >= 0) & (tokens < layout.vocabulary)).all():
        raise corrupt("a probe has a token that the model does not have", where)
