import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from compression.checkpoint import load_compressed, save_compressed
from compression.pruning.masks import KeepZeros
from compression.rounding.few_levels import binarise, ternarise
from compression.rounding.level_modules import LevelEmbedding, LevelLinear, spell_out, use_levels
from runtimes.errors import UnsupportedModel
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_smaller import factorise

CHOOSE = {"ternary": ternarise, "binary": binarise}
TABLE, LINEAR = "bert.embeddings.word_embeddings", "bert.encoder.layer.0.intermediate.dense"


def run(model):
    with torch.no_grad():
        return model(**make_batch().inputs).logits


@pytest.mark.parametrize("form", ["ternary", "binary"])
def test_a_linear_multiplies_with_its_levels(form):
    torch.manual_seed(0)
    linear, inputs = nn.Linear(13, 5), torch.randn(2, 3, 13)
    made = LevelLinear.from_linear(linear, form)
    levels, scale = CHOOSE[form](linear.weight.detach())
    assert torch.allclose(made(inputs), inputs @ (levels * scale[:, None]).T + linear.bias, atol=1e-6)
    assert made.levels.dtype == torch.int8
    assert {name for name, _ in made.named_parameters()} == {"scale", "bias"}


@pytest.mark.parametrize("form", ["ternary", "binary"])
def test_an_embedding_looks_its_levels_up(form):
    torch.manual_seed(0)
    embedding, ids = nn.Embedding(10, 6, padding_idx=0), torch.tensor([[3, 7], [0, 3]])
    made = LevelEmbedding.from_embedding(embedding, form)
    levels, scale = CHOOSE[form](embedding.weight.detach())
    assert torch.allclose(made(ids), (levels * scale[:, None])[ids])
    assert not made(ids)[1, 0].any()


@pytest.mark.parametrize(("form", "share"), [("ternary", 2 / 32), ("binary", 1 / 32)])
def test_a_checkpoint_is_packed_and_gives_the_same_model_again(form, share, tmp_path):
    model = make_bert()
    floats = {name: model.get_submodule(name).weight.nbytes for name in (TABLE, LINEAR)}
    use_levels(model, floats, form)
    save_compressed(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    for name, before in floats.items():
        assert stored[f"{name}.codes"].dtype == torch.uint8
        assert stored[f"{name}.codes"].nbytes == before * share
        assert f"{name}.levels" not in stored
    described = json.loads((tmp_path / "stepdown.json").read_text())["modules"]
    assert described[LINEAR] == {"kind": "level_linear", "inputs": 32, "outputs": 64, "bias": True, "form": form}
    assert described[TABLE] == {"kind": "level_embedding", "rows": 48, "width": 32, "padding": 0, "form": form}
    again = load_compressed(make_bert(seed=1), tmp_path).eval()
    assert torch.equal(run(again), run(model))


def test_an_output_layer_keeps_the_floats_it_was_tied_to(tmp_path):
    model = make_bert(masked=True)
    use_levels(model, [TABLE], "ternary")
    save_compressed(model, tmp_path)
    again = load_compressed(make_bert(masked=True, seed=1), tmp_path).eval()
    assert torch.equal(run(again), run(model))


def test_factors_can_have_levels_too(tmp_path):
    model = make_bert()
    factorise(model, {LINEAR: 8})
    use_levels(model, [f"{LINEAR}.down"], "ternary")
    save_compressed(model, tmp_path)
    assert torch.equal(run(load_compressed(make_bert(seed=1), tmp_path).eval()), run(model))


def test_scales_go_on_learning_and_levels_stay():
    model, batch = make_bert(), make_batch()
    use_levels(model, [LINEAR], "ternary")
    module = model.get_submodule(LINEAR)
    levels, scale = module.levels.clone(), module.scale.detach().clone()
    keep, optimizer = KeepZeros(model), torch.optim.AdamW(model.parameters(), lr=1e-2)
    keep.before_step(model, 0.0)
    nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels).backward()
    optimizer.step()
    keep.after_step(model, 0.0)
    assert torch.equal(module.levels, levels)
    assert not torch.equal(module.scale, scale)


@pytest.mark.parametrize("form", ["ternary", "binary"])
def test_plain_modules_compute_the_same(form):
    model = make_bert()
    use_levels(model, [TABLE, LINEAR], form)
    expected = run(model)
    assert spell_out(model) is model
    assert type(model.get_submodule(LINEAR)) is nn.Linear
    assert type(model.get_submodule(TABLE)) is nn.Embedding
    assert torch.equal(run(model), expected)


def test_other_modules_are_refused():
    with pytest.raises(ValueError, match="'1' is a ReLU, not a Linear or an Embedding"):
        use_levels(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), ["1"], "ternary")


@pytest.mark.parametrize(("old", "new"), [('"form": "ternary"', '"form": "octal"'), ('"inputs": 32', '"inputs": 40')])
def test_a_structure_that_does_not_fit_is_refused(old, new, tmp_path):
    model = make_bert()
    use_levels(model, [LINEAR], "ternary")
    save_compressed(model, tmp_path)
    path = tmp_path / "stepdown.json"
    document = json.loads(path.read_text())
    document["modules"] = {LINEAR: document["modules"][LINEAR]}
    path.write_text(json.dumps(document).replace(old, new))
    with pytest.raises(UnsupportedModel):
        load_compressed(make_bert(), tmp_path)
