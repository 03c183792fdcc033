import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from compression.factors.low_rank import decompose_rows, make_low_rank_embedding
from compression.words.embedding_rows import keep_rows, list_special_ids
from runtimes.errors import UnsupportedModel, UsageError
from tests.unit.compression.made_encoders import make_bert

KEPT = [0, 3, 7, 8, 20, 47]


def run(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


def test_new_ids_give_what_the_old_ones_gave():
    model = make_bert()
    expected = run(model, [3, 47, 8, 7])
    keep_rows(model, KEPT)
    assert torch.equal(run(model, [1, 5, 3, 2]), expected)
    assert model.get_input_embeddings().weight.shape == (6, 32)
    assert model.config.vocab_size == 6


def test_a_head_over_the_vocabulary_follows_and_stays_tied():
    model = make_bert(masked=True)
    with torch.no_grad():
        model.get_output_embeddings().bias.copy_(torch.arange(48.0))
    expected = run(model, [3, 47, 8])
    keep_rows(model, KEPT)
    assert torch.allclose(run(model, [1, 5, 3]), expected[..., KEPT], atol=1e-6)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.tie_weights()
    assert torch.allclose(run(model, [1, 5, 3]), expected[..., KEPT], atol=1e-6)


def test_an_untied_head_keeps_its_own_rows():
    model = make_bert(masked=True, tie_word_embeddings=False)
    expected = run(model, [3, 47])
    keep_rows(model, KEPT)
    assert torch.allclose(run(model, [1, 5]), expected[..., KEPT], atol=1e-6)
    assert not torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)


def test_special_ids_move_with_their_rows():
    model = make_bert(pad_token_id=7, bos_token_id=20)
    assert list_special_ids(model) == {7, 20}
    keep_rows(model, KEPT)
    assert (model.config.pad_token_id, model.config.bos_token_id) == (2, 4)
    assert model.get_input_embeddings().padding_idx == 2


def test_factors_keep_their_codes():
    model = make_bert()
    embedding = model.get_input_embeddings()
    model.set_input_embeddings(
        make_low_rank_embedding(embedding, decompose_rows(embedding.weight.detach(), torch.ones(48)), 4)
    )
    expected = run(model, [3, 47, 8])
    keep_rows(model, KEPT)
    assert torch.equal(run(model, [1, 5, 3]), expected)
    assert model.get_input_embeddings().codes.weight.shape == (6, 4)


def test_embeddings_of_another_kind_are_refused():
    model = make_bert()
    model.set_input_embeddings(torch.nn.EmbeddingBag(48, 32))
    with pytest.raises(UsageError, match="EmbeddingBag by now"):
        keep_rows(model, KEPT)


def test_positions_counted_from_the_padding_are_not_moved():
    config = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = RobertaModel(RobertaConfig(**config, intermediate_size=64, max_position_embeddings=34, pad_token_id=1))
    with pytest.raises(UnsupportedModel, match="from 1 to None"):
        keep_rows(model, KEPT)
    keep_rows(model, [0, 1, 2, 9])
    assert model.config.pad_token_id == 1
