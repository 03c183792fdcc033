import pytest
import torch

from compression.checkpoint import load_compressed, save_compressed
from compression.factors.low_rank import LowRankEmbedding, LowRankLinear
from compression.options import OptionError
from compression.steps.low_rank import Options, apply
from compression.training.loop import Logbook, Training
from runtimes.errors import UsageError
from tests.unit.compression.made_decoders import make_decoder, make_decoder_context
from tests.unit.compression.made_encoders import make_batch, make_bert
from tests.unit.compression.made_samples import make_context, make_samples


def list_factors(model):
    return [name for name, module in model.named_modules() if isinstance(module, LowRankLinear)]


def run(model):
    with torch.no_grad():
        return model(**make_batch(32).inputs).logits


@pytest.mark.parametrize("method", ["svd", "activation-svd"])
def test_every_linear_of_the_layers_by_default(method):
    model = make_bert()
    facts = apply(model, Options(rank=8, method=method), make_context())
    assert len(facts["ranks"]) == len(list_factors(model)) == 12
    assert all(name.startswith("bert.encoder.layer") for name in facts["ranks"])
    assert facts["whole"] == []
    assert facts["faster_up_to"] == {"32x32": 15, "32x64": 21, "64x32": 21}
    assert not facts["measured"]


def test_looking_at_what_layers_are_given_loses_less():
    lost = []
    for method in ("svd", "activation-svd"):
        model = make_bert()
        # Words of few directions, as real ones are.
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight.copy_(torch.randn(48, 3) @ torch.randn(3, 32))
        expected = run(model)
        context = make_context(train_samples=make_samples(200, labelled=False))
        apply(model, Options(rank=8, method=method, layers=("attention.self.*",)), context)
        lost.append(float((run(model) - expected).square().mean()))
    assert lost[1] < 0.7 * lost[0]


def test_factors_that_are_slower_are_left_out():
    asked = []

    def gain(inputs, outputs, rank):
        asked.append((inputs, outputs, rank))
        return 2.0 if inputs != outputs else 0.9

    model = make_bert()
    facts = apply(model, Options(rank=8, method="svd"), make_context(factor_gain=gain))
    assert facts["measured"]
    assert facts["faster_up_to"] == {"32x32": 0, "32x64": 16, "64x32": 16}
    assert all("attention" in name for name in facts["whole"])
    assert len(facts["whole"]) == 8
    assert list_factors(model) == list(facts["ranks"])
    assert len(facts["ranks"]) == 4


def test_nothing_is_faster():
    with pytest.raises(OptionError, match="no layer is faster or smaller") as caught:
        apply(make_bert(), Options(rank=24, method="svd"), make_context())
    assert "32x32: 15" in caught.value.cure


def test_what_was_timed_holds_after_a_kill(tmp_path):
    model, again = make_bert(), make_bert()
    logbook = Logbook(folder=tmp_path)
    apply(model, Options(rank=8, method="svd"), make_context(factor_gain=lambda *_: 2.0, logbook=logbook))
    facts = apply(again, Options(rank=8, method="svd"), make_context(factor_gain=lambda *_: 0.5, logbook=logbook))
    assert facts["whole"] == []
    assert list_factors(again) == list_factors(model)


def test_ranks_by_energy():
    model = make_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.copy_(torch.randn(32, 2) @ torch.randn(2, 64))
    facts = apply(model, Options(energy=0.9, method="svd", layers=("output.dense",)), make_context())
    assert facts["ranks"]["bert.encoder.layer.0.output.dense"] == 8
    assert "bert.encoder.layer.1.output.dense" in facts["whole"]


def test_ranks_by_measured_loss():
    context, model = make_context(), make_bert()
    context.train(model, Training(epochs=6, batch_size=8, learning_rate=2e-3))
    before = context.evaluate(model)["loss"]
    facts = apply(model, Options(max_drop=0.05, layers=("intermediate.dense", "output.dense")), context)
    assert facts["ranks"]
    assert 0 < facts["energy"] <= 1
    assert context.evaluate(model)["loss"] <= before + 0.05
    strict = make_bert()
    context.train(strict, Training(epochs=6, batch_size=8, learning_rate=2e-3))
    less = apply(strict, Options(max_drop=0.0005, layers=("intermediate.dense", "output.dense")), context)
    assert less["energy"] > facts["energy"]


def test_embeddings():
    model = make_bert()
    context = make_context(train_samples=make_samples(200))
    facts = apply(model, Options(rank=16, layers=("word_embeddings",)), context)
    assert facts["ranks"] == {"bert.embeddings.word_embeddings": 16}
    made = model.bert.embeddings.word_embeddings
    assert isinstance(made, LowRankEmbedding)
    assert made.padding_idx == 0
    assert model(**make_batch().inputs).logits.shape == (4, 3)


def test_factors_are_not_factorised_again():
    model = make_bert()
    apply(model, Options(rank=8, method="svd", layers=("intermediate.dense",)), make_context())
    facts = apply(model, Options(rank=4, method="svd"), make_context())
    assert not any("intermediate" in name for name in facts["ranks"])
    assert len(list_factors(model)) == 12


def test_a_weight_of_two_layers_is_refused():
    with pytest.raises(UsageError, match=r"is also that of cls.predictions.decoder"):
        apply(make_bert(masked=True), Options(rank=4, layers=("word_embeddings",)), make_context())


@pytest.mark.parametrize(
    ("family", "table"),
    [("llama", "model.embed_tokens"), ("gpt2", "transformer.wte"), ("opt", "model.decoder.embed_tokens")],
)
def test_a_table_that_is_also_the_head_is_refused_from_either_end(family, table):
    for layers, other in (((table,), "lm_head"), (("lm_head",), table), ((table, "lm_head"), "lm_head")):
        model = make_decoder(family)
        with pytest.raises(UsageError, match=f"is also that of {other}") as caught:
            apply(model, Options(rank=4, layers=layers, method="svd"), make_decoder_context())
        assert "prune-vocabulary" in str(caught.value.cure)
        assert model.get_submodule("lm_head").weight is model.get_submodule(table).weight


def test_table_and_head_of_their_own_become_factors_of_their_own(tmp_path):
    model = make_decoder(tie_word_embeddings=False)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        for module in (model.model.embed_tokens, model.lm_head):
            module.weight.copy_(torch.randn(64, 3) @ torch.randn(3, 32))
        expected = model(ids).logits
        facts = apply(model, Options(rank=8, layers=("embed_tokens", "lm_head"), method="svd"), make_decoder_context())
        assert facts["ranks"] == {"model.embed_tokens": 8, "lm_head": 8}
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)
        save_compressed(model, tmp_path)
        loaded = load_compressed(make_decoder(seed=1, tie_word_embeddings=False), tmp_path)
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


def test_rank_above_full():
    with pytest.raises(OptionError, match=r"33 is above the full rank 32 of bert.encoder.layer.0") as caught:
        apply(make_bert(), Options(rank=33), make_context())
    assert caught.value.field == "rank"


def test_layers_that_do_not_exist():
    with pytest.raises(UsageError, match="no linear or embedding of the model matches") as caught:
        apply(make_bert(), Options(rank=4, layers=("intermediate.danse",)), make_context())
    assert "intermediate.dense" in str(caught.value.cure)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"rank": 4, "energy": 0.9},
        {"rank": 0},
        {"energy": 0.0},
        {"energy": 1.1},
        {"max_drop": -1.0},
        {"rank": 4, "samples": 0},
    ],
)
def test_options_that_make_no_sense(given):
    with pytest.raises(OptionError):
        Options(**given)
