"""Well-formed inputs of each target, from which a fuzzer starts; run.py writes them into the corpus."""

import json

from tests.fuzz_bundle.archive_targets import read_layout_files
from tests.fuzz_bundle.edits import dump
from tests.fuzz_bundle.model_targets import read_home_files
from tests.fuzz_bundle.text_targets import SETTINGS_OF_MODEL
from tests.fuzz_bundle.tiny_tokenizers import make_tokenizers
from tests.unit.runtimes.bundle import real_bundle, tiny_bundle
from tests.unit.runtimes.generation import tiny_decoder

TEMPLATES = (
    "{%- set ns = namespace(a=1) %}{% for m in messages[::-1] %}{{ m['role'] ~ loop.index0 }}{% break %}{% endfor %}",
    "{% macro w(x, y=2) %}{{ x | tojson(indent=4) | trim }}{% endmacro %}{{ w(messages | map(attribute='a') | list) }}",
    "{% if a is defined and not b %}{{ raise_exception('c') }}{% else %}{{ 3 * 'd' + strftime_now('%Y') }}{% endif %}",
    "{{ ''.__class__ }}{% include 'x' %}{{ m | attr('x') }}{{ '{}'.format(1) }}",
)


def make_seeds():
    """Return well-formed inputs of each target, from which a fuzzer starts."""
    tiny, edits = tiny_bundle, [bytes(range(0, 96, 3)), bytes(64), b""]
    tar = tiny.make_tar(tiny.good_members())
    key = {"key_id": "0" * 16, "algorithm": "ed25519", "signature": "A" * 86 + "=="}
    models = [
        real_bundle.make_model(),
        real_bundle.make_model(external=[("location", "model.onnx.data"), ("offset", "8"), ("length", "64")]),
    ]
    probe = dict(read_home_files())["variants/here/probe/inputs.safetensors"]
    record = {
        "library": "tensorrt", "version": "10.16.1", "sms": [89], "hardware": "this", "version_compatible": False,
        "profiles": [{"x": {"min": [1], "opt": [1], "max": [2]}}], "flags": ["a"], "settings": {"a": 1},
        "model_sha256": "0" * 64, "plan_sha256": "0" * 64, "inputs": [{"name": "x", "dtype": "int64", "shape": ["b"]}],
        "outputs": [], "expected": {"int8": [], "sparse": []}, "repeats": False, "schema": 1,
    }  # fmt: skip
    return {
        "description": [tiny.make_description().to_bytes()],
        "description_edits": edits,
        "archive": [tiny.make_gzip(tar), tiny.make_gzip(b"")],
        "tar": [tar, tiny.make_tar([tiny.good_members()[0], ("signatures.json", b"x"), *tiny.good_members()[1:]])],
        "members": edits,
        "onnx": models,
        "onnx_fields": [b"\x03\x00\x00\x01\x01\x00\x01\x02\x00\x01", *edits],
        "tensors": [probe],
        "tensors_edits": edits,
        "tokenizer": [dump(document) for document in make_tokenizers()],
        "tokenizer_edits": [bytes([kind]) + edit for kind in range(5) for edit in edits],
        "kernels": edits,
        "signatures": [json.dumps({"schema": 1, "signatures": [key]}).encode()],
        "record": [json.dumps(record).encode()],
        "template": [tiny_decoder.TEMPLATE.encode(), *(part.encode() for part in TEMPLATES)],
        "genai_config_edits": edits,
        "oci_layout": [
            *(bytes([spoilt, 1]) + edit for spoilt in range(3) for edit in edits),
            bytes([0, 0]) + tiny.make_description(version=4).to_bytes(),
            bytes([2, 0]) + dict(read_layout_files())["index.json"],
        ],
        "rebuild_edits": edits,
        "settings": [
            *(
                bytes([form]) + template.encode()
                for form in range(2)
                for template in (tiny_decoder.TEMPLATE, *TEMPLATES)
            ),
            *(b"\x02" + edit for edit in edits),
            b"\x03" + dump(SETTINGS_OF_MODEL),
        ],
        "decoder_probe": [bytes([spoilt, 0]) + edit for spoilt in range(2) for edit in edits],
        "contents": [bytes([at]) + b"{}" for at in range(10)],
    }
