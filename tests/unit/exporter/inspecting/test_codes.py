import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from compression.rounding.low_bit import pack_levels
from exporter.inspecting.model import inspect_model
from runtimes.errors import UnsupportedModel

LEVELS = np.random.default_rng(0).integers(-1, 2, (6, 21)).astype(np.int8)


def write(folder, form="ternary", width=21, **more):
    bits = 1 if form == "binary" else 2
    levels = np.where(LEVELS == 0, 1, LEVELS) if form == "binary" else LEVELS
    save_file({"a.codes": pack_levels(levels, bits), "a.scale": np.ones(6, np.float32)}, folder / "model.safetensors")
    described = {"kind": "level_linear", "inputs": width, "outputs": 6, "form": form, **more}
    (folder / "stepdown.json").write_text(json.dumps({"schema": 2, "modules": {"a": described}}))
    return folder


@pytest.mark.parametrize(("form", "zeros"), [("ternary", (LEVELS == 0).mean()), ("binary", 0)])
def test_packed_weights_are_shown_as_what_they_are(form, zeros, tmp_path):
    found = inspect_model(write(tmp_path, form))
    (layer,) = found.layers
    assert (layer.shape, layer.dtype) == ((6, 21), "int1" if form == "binary" else "int2")
    assert layer.zeros == pytest.approx(zeros, abs=1e-5)
    assert found.parameters == 6 * 21 + 6


def test_bytes_that_nobody_describes_are_bytes(tmp_path):
    write(tmp_path)
    (tmp_path / "stepdown.json").unlink()
    (layer,) = inspect_model(tmp_path).layers
    assert (layer.shape, layer.dtype) == ((6, 6), "u8")


def test_codes_of_another_length_are_refused(tmp_path):
    with pytest.raises(UnsupportedModel, match=r"a.codes: 6 bytes do not hold 40 numbers"):
        inspect_model(write(tmp_path, width=40))


@pytest.mark.parametrize("text", ["{", "{}", '{"modules": 3}'])
def test_a_record_that_cannot_be_read_is_refused(text, tmp_path):
    write(tmp_path)
    (tmp_path / "stepdown.json").write_text(text)
    with pytest.raises(UnsupportedModel, match="record cannot be read"):
        inspect_model(tmp_path)
