"""Checkpoints: the same model again, whatever took the place of its modules."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from compression import checkpoint
from compression.checkpoint import CHECKPOINT_FILES, Record, load_compressed, read_record, save_compressed
from compression.factors.low_rank import LowRankLinear
from runtimes.errors import UnsupportedModel
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_smaller import factorise

QUERY = "bert.encoder.layer.0.attention.self.query"


def answer(model):
    with torch.no_grad():
        return model(**make_batch().inputs).logits


def test_the_same_model_comes_back(tmp_path):
    model = make_bert()
    factorise(model, {QUERY: 3})
    save_compressed(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(CHECKPOINT_FILES)
    again = load_compressed(make_bert(seed=1), tmp_path).eval()
    assert isinstance(again.get_submodule(QUERY), LowRankLinear)
    assert torch.equal(answer(model), answer(again))


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    model = make_bert(masked=True)
    save_compressed(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert [name for name in stored if "word_embeddings" in name or "decoder.weight" in name] == [
        "bert.embeddings.word_embeddings.weight"
    ]
    again = load_compressed(make_bert(masked=True, seed=1), tmp_path).eval()
    assert again.cls.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight
    assert torch.equal(answer(model), answer(again))


def test_the_record_comes_back(tmp_path):
    record = Record(
        recipe={"name": "r"},
        steps=({"do": "prune", "options": {}, "facts": {"zeros": 0.5}, "seconds": 1.5},),
        source={"model.safetensors": "00"},
        export={"precision": "int8"},
    )
    save_compressed(make_bert(), tmp_path, record)
    assert read_record(tmp_path) == record


def test_a_plain_directory_has_an_empty_record(tmp_path):
    assert read_record(tmp_path) == Record()


def test_a_model_without_a_configuration_has_none(tmp_path):
    save_compressed(nn.Sequential(nn.Linear(2, 3)), tmp_path)
    assert not (tmp_path / "config.json").exists()
    again = load_compressed(nn.Sequential(nn.Linear(2, 5)), tmp_path)
    assert again[0].out_features == 3


class Gate(nn.Module):
    """Around another module, as a gate stands before a layer."""

    kind: ClassVar[str] = "gate"

    def __init__(self, inner: nn.Module, bound: float) -> None:
        super().__init__()
        self.inner, self.bound = inner, bound

    def describe(self) -> dict[str, Any]:
        return {"bound": self.bound}

    @classmethod
    def wrap(cls, module: nn.Module, described: Mapping[str, Any]) -> "Gate":
        return cls(module, described["bound"])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs).clamp(-self.bound, self.bound)


def test_what_stands_around_a_module_leaves_it_described(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WRAPPERS", {Gate.kind: Gate})
    name = "bert.encoder.layer.1.intermediate.dense"
    model = make_bert()
    factorise(model, {name: 4})
    model.set_submodule(name, Gate(model.get_submodule(name), 0.1), strict=True)
    save_compressed(model, tmp_path)
    again = load_compressed(make_bert(seed=1), tmp_path).eval()
    assert isinstance(again.get_submodule(f"{name}.inner"), LowRankLinear)
    assert torch.equal(answer(model), answer(again))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.pop("schema"), "structure cannot be used"),
        (lambda made: made.update(schema=1), "schema 1, this stepdown reads 2"),
        (lambda made: made["modules"].update(nowhere={"kind": "linear"}), "structure cannot be used"),
        (lambda made: made["modules"][QUERY].update(kind="cubic"), "unknown kind of module 'cubic'"),
        (lambda made: made["modules"][QUERY].update(outputs=5), "weights do not fit"),
    ],
)
def test_a_broken_structure_is_refused(tmp_path, change, message):
    save_compressed(make_bert(), tmp_path)
    path = tmp_path / "stepdown.json"
    made = json.loads(path.read_text())
    change(made)
    path.write_text(json.dumps(made))
    with pytest.raises(UnsupportedModel, match=message):
        load_compressed(make_bert(), tmp_path)


def test_a_record_without_its_parts_is_refused(tmp_path):
    (tmp_path / "stepdown.json").write_text('{"schema": 2}')
    with pytest.raises(UnsupportedModel, match="record cannot be used"):
        read_record(tmp_path)
