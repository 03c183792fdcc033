import json
from dataclasses import replace

import pytest

from exporter.packing.sbom import Contents, check_licence, make_sbom
from runtimes.bundle.description import Requirements
from runtimes.errors import UsageError
from tests.unit.runtimes.bundle.tiny_bundle import make_variant

FILES = {"shared/tokenizer.json": "a" * 64, "variants/x86-64-avx2/model.onnx": "b" * 64}
CONTENTS = Contents(
    name="films",
    version=3,
    tool="0.1.0",
    licence="Apache-2.0",
    source={"reference": "minilm", "sha256": "c" * 64},
    files=FILES,
    sizes={"a" * 64: 10, "b" * 64: 20},
    variants=(make_variant(),),
)


def read(contents=CONTENTS):
    return json.loads(make_sbom(contents))


def test_every_file_is_listed_with_its_hash_and_the_model_as_a_model():
    files = {part["name"]: part for part in read()["components"] if part["bom-ref"].startswith("file:")}
    assert {name: part["hashes"][0]["content"] for name, part in files.items()} == FILES
    assert files["variants/x86-64-avx2/model.onnx"]["type"] == "machine-learning-model"
    assert files["shared/tokenizer.json"]["properties"] == [{"name": "stepdown:bytes", "value": "10"}]


def test_what_the_device_must_have_is_listed_with_its_versions():
    gpu = replace(
        make_variant("rtx-40"),
        runtime="tensorrt",
        requires=Requirements(arch="x86_64", isa="avx2", onnxruntime=None, memory_bytes=1, sm="89", tensorrt="1.7.1"),
        device={"tensorrt_library": "tensorrt-rtx", "tensorrt": ">=1.7"},
    )
    found = read(replace(CONTENTS, variants=(gpu, make_variant())))
    needed = {
        part["name"]: part["properties"][0]["value"]
        for part in found["components"]
        if part["bom-ref"].startswith("package:")
    }
    assert needed == {"numpy": ">=1.26", "onnxruntime": ">=1.24", "tokenizers": ">=0.20", "tensorrt-rtx": "1.7.1"}


def test_the_model_it_was_made_of_is_named_with_its_licence():
    found = read()
    assert found["metadata"]["component"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    (source,) = (part for part in found["components"] if part["bom-ref"] == "source")
    assert (source["name"], source["hashes"][0]["content"]) == ("minilm", "c" * 64)


def test_a_licence_that_is_not_known_is_not_named():
    assert "licenses" not in read(replace(CONTENTS, licence="unknown"))["metadata"]["component"]


def test_the_serial_number_is_of_the_content_and_there_is_no_time():
    assert make_sbom(CONTENTS) == make_sbom(CONTENTS)
    assert "timestamp" not in read()["metadata"]
    serials = {
        read(changed)["serialNumber"]
        for changed in (
            CONTENTS,
            replace(CONTENTS, version=None),
            replace(CONTENTS, files={"shared/tokenizer.json": "b" * 64}),
        )
    }
    assert len(serials) == 3


def test_it_is_what_the_schema_of_cyclonedx_asks_for():
    pytest.importorskip("jsonschema")
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    for contents in (CONTENTS, replace(CONTENTS, licence="MIT AND BSD-3-Clause", version=None, source={})):
        try:
            refused = JsonStrictValidator(SchemaVersion.V1_6).validate_str(make_sbom(contents).decode())
        except MissingOptionalDependencyException as error:
            pytest.skip(str(error))
        assert refused is None


@pytest.mark.parametrize("licence", ["unknown", "Apache-2.0", "MIT AND BSD-3-Clause", "LicenseRef-mine"])
def test_licences_are_spdx_expressions(licence):
    check_licence(licence)


@pytest.mark.parametrize("licence", ["apache", "as is", "", "MIT BSD", "LicenseRef-"])
def test_anything_else_is_refused(licence):
    with pytest.raises(UsageError, match="--licence"):
        check_licence(licence)
