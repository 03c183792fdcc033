"""What a checkpoint asks of export, and what is made of it for each target."""

import pytest

from exporter.compressing.export_hints import choose_precision, read_export_hints
from runtimes.errors import UnsupportedModel


def test_a_plain_directory_asks_for_nothing(tmp_path):
    assert read_export_hints(str(tmp_path)) == {}
    assert read_export_hints("no/such/place") == {}


def test_the_record_is_read(tmp_path):
    (tmp_path / "stepdown.json").write_text('{"schema": 2, "export": {"precision": "int8"}}')
    assert read_export_hints(str(tmp_path)) == {"precision": "int8"}


@pytest.mark.parametrize("text", ["{", "[]", '{"export": 3}'])
def test_a_broken_record_is_refused(tmp_path, text):
    (tmp_path / "stepdown.json").write_text(text)
    with pytest.raises(UnsupportedModel, match="record cannot be read"):
        read_export_hints(str(tmp_path))


@pytest.mark.parametrize(
    ("hint", "targets", "precision"),
    [
        (None, ("onnxruntime",), "auto"),
        ("int8-dynamic", ("onnxruntime",), "int8-dynamic"),
        ("int8-dynamic", ("tensorrt",), "int8"),
        ("int8-static", ("onnxruntime", "tensorrt"), "int8"),
        ("weights-8", ("onnxruntime",), "weights-8"),
        ("weights-8", ("onnxruntime", "tensorrt"), "auto"),
    ],
)
def test_the_nearest_precision_is_taken(hint, targets, precision):
    assert choose_precision(hint, targets) == precision
