"""What is fuzzed of texts and tokens: tokenizers, chat templates, settings, a decoder's configuration and its probe."""

import json
from functools import cache

import numpy as np
from safetensors.numpy import load, save

from exporter.onnxruntime.genai_config import describe
from runtimes.bundle.generation_safety import check_config, check_decoder
from runtimes.bundle.tokenizer_safety import check_tokenizer
from runtimes.errors import CorruptArtifact, DataError
from runtimes.generation.chat_template import check_chat_template, read_chat_template
from runtimes.generation.layout import CONFIG_NAME
from runtimes.generation.template_fence import MAX_SOURCE
from runtimes.generation.text_files import SETTINGS, TEMPLATE, TextFiles
from runtimes.serving.tokenise import Tokeniser
from tests.fuzz_bundle.edits import Bytes, dump, edit_json
from tests.fuzz_bundle.guard import watching
from tests.fuzz_bundle.places import check_message, empty, find_place, write_files
from tests.fuzz_bundle.tiny_tokenizers import make_tokenizers
from tests.unit.runtimes.bundle import tiny_bundle
from tests.unit.runtimes.generation import tiny_decoder

_INPUTS, _OUTPUTS = "probe/inputs.safetensors", "probe/outputs.safetensors"
_ANSWER = np.array([3, 4], np.int64)
PROBE = {
    _INPUTS: {"text.0": np.frombuffer(b"Why?", np.uint8), "ids.0": np.array([1, 5, 7], np.int64)},
    _OUTPUTS: {
        "tokens.0": _ANSWER,
        "peaks.0": np.ones(2, np.float32),
        "margins.0": np.ones(2, np.float32),
        "logits.0": np.zeros(tiny_decoder.VOCABULARY, np.float32),
    },
}
SETTINGS_OF_MODEL = {
    "bos_token": "<s>",
    "eos_token": {"content": "<end>", "lstrip": False},
    "pad_token": None,
    "chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": tiny_decoder.TEMPLATE}],
}


def fuzz_tokenizer(data):
    """A tokenizer: what is accepted opens, and turns texts into tokens within bounds."""
    place = find_place()
    path = place.room / "tokenizer.json"
    path.write_bytes(data)
    try:
        check_tokenizer(path, "tokenizer")
        tokeniser = Tokeniser(path, (), 16)
        for encoding in tokeniser.encode([("A good film, was it? 123",), ("é\0", "two")]):
            assert len(encoding.ids) <= 16
    except (CorruptArtifact, DataError) as error:
        check_message(error)
    finally:
        path.unlink()


def fuzz_tokenizer_edits(data):
    """A tokenizer, by edits of good ones of each kind."""
    source = Bytes(data)
    document = source.choose(make_tokenizers())
    fuzz_tokenizer(dump(edit_json(document, source.rest())))


def fuzz_template(data):
    """A chat template: it is refused or compiled. Not watched: jinja2 makes code anew for the traceback of an error."""
    if _read_template({TEMPLATE: data}):
        assert len(data.decode("utf-8")) <= MAX_SOURCE


def fuzz_settings(data):
    """A chat template in tokenizer_config.json, among other settings or as all there is: as fuzz_template."""
    source = Bytes(data)
    form = source.take() % 4
    template = source.rest().decode("utf-8", "replace")
    told = (
        {**SETTINGS_OF_MODEL, "chat_template": template},
        {"chat_template": [{"name": "default", "template": template}]},
        edit_json(SETTINGS_OF_MODEL, source.rest()),
    )
    _read_template({SETTINGS: source.rest() if form == len(told) else dump(told[form])})


def _read_template(contents):
    """Return whether a template is there and is taken; what the sandbox gets was let through by the fence."""
    texts = TextFiles(directory=find_place().room, contents=contents)
    try:
        check_chat_template(texts)
        return read_chat_template(texts) is not None
    except CorruptArtifact as error:
        check_message(error)
        return False


def fuzz_genai_config_edits(data):
    """genai_config.json, by edits of a good one: what is accepted names the model beside it, and no library."""
    place = find_place()
    folder, told = place.room / "variant", dump(edit_json(describe(tiny_decoder.FACTS), data))
    write_files(folder, {CONFIG_NAME: told})
    try:
        with watching(place.room):
            check_config(folder, tiny_bundle.make_variant())
    except CorruptArtifact as error:
        check_message(error)
    else:
        decoder = json.loads(told)["model"]["decoder"]
        assert (decoder["filename"], decoder["session_options"]) == ("model.onnx", {"provider_options": []})
    finally:
        empty(folder)


def fuzz_decoder_probe(data):
    """The probe of a model that generates, by edits of a good one: what is accepted are prompts and answers of it."""
    place, source = find_place(), Bytes(data)
    folder = place.room / "variant"
    files = {path: save(arrays) for path, arrays in PROBE.items()}
    spoilt = source.choose([_INPUTS, _OUTPUTS])
    files[spoilt] = _spoil(files[spoilt], source)
    write_files(folder, {CONFIG_NAME: dump(describe(tiny_decoder.FACTS)), "model.onnx": make_graph(), **files})
    try:
        with watching(place.room):
            check_decoder(folder, tiny_bundle.make_variant())
    except CorruptArtifact as error:
        check_message(error)
        return
    finally:
        empty(folder)
    prompts, answers = load(files[_INPUTS]), load(files[_OUTPUTS])
    for number in range(len(prompts) // 2):
        prompts[f"text.{number}"].tobytes().decode("utf-8")
        tokens = np.concatenate([prompts[f"ids.{number}"], answers[f"tokens.{number}"]])
        assert ((tokens >= 0) & (tokens < tiny_decoder.VOCABULARY)).all()
        assert np.isfinite(answers[f"logits.{number}"]).all()


@cache
def make_graph():
    return tiny_decoder.make_decoder(0).SerializeToString()


def _spoil(packed, source):
    """Return tensors with a few bytes of their values replaced, and fields of their header."""
    size = int.from_bytes(packed[:8], "little")
    values = bytearray(packed[8 + size :])
    for _ in range(source.take() % 4):
        values[source.take(2) % len(values)] = source.take()
    header = dump(edit_json(json.loads(packed[8 : 8 + size]), source.rest(), 3))
    return len(header).to_bytes(8, "little") + header + bytes(values)
