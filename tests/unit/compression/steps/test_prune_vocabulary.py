import json
from functools import partial

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from compression.objectives.objective import SpecialTokens
from compression.options import OptionError
from compression.samples import Samples, SampleSets
from compression.steps.prune_vocabulary import Options, apply
from compression.training.loop import Training
from runtimes.errors import DataError, UnsupportedModel
from tests.corpus.architectures import VOCABULARY_SIZE, write_tokenizer
from tests.unit.compression.made_encoders import make_bert
from tests.unit.compression.made_samples import make_context

SEEN = ["the small boat left the old harbour", "rain fell on the quiet town"]
UNSEEN = ["two engineers measure the heat"]


def read_samples(texts, folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [{"input_ids": np.array(tokenizer.encode(text).ids)} for text in texts]
    train = Samples(rows=tuple(rows), labels=np.arange(len(rows)) % 3)
    return SampleSets(train=train), SpecialTokens(every=(0, 1, 2, 3, 4))


@pytest.fixture
def given(tmp_path):
    """A model with a tokenizer, and a context that reads the texts of the data."""
    write_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("left over\n")
    read = partial(read_samples, SEEN)
    sets, tokens = read(tmp_path)
    context = make_context(train_samples=sets.train, held_out=None, tokens=tokens, files=tmp_path, read_samples=read)
    return make_bert(vocab_size=VOCABULARY_SIZE), context


def answer(model, folder, text):
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


def test_texts_of_the_data_are_answered_as_before(given):
    model, context = given
    expected = [answer(model, context.files, text) for text in SEEN]
    facts = apply(model, Options(), context)
    assert facts["of"] == VOCABULARY_SIZE
    assert facts["pieces"] == model.config.vocab_size < VOCABULARY_SIZE
    assert facts["kept_share_of_tokens"] == 1
    assert facts["mean_tokens"]["before"] == facts["mean_tokens"]["after"]
    for text, logits in zip(SEEN, expected, strict=True):
        assert torch.equal(answer(model, context.files, text), logits)


def test_every_text_can_still_be_told(given):
    model, context = given
    apply(model, Options(min_count=2), context)
    smaller = Tokenizer.from_file(str(context.files / "tokenizer.json"))
    for text in SEEN + UNSEEN:
        assert "[UNK]" not in smaller.encode(text).tokens
        assert answer(model, context.files, text).shape == (1, 3)


def test_transformers_reads_the_smaller_tokenizer(given):
    model, context = given
    apply(model, Options(), context)
    assert not (context.files / "vocab.txt").exists()
    smaller = Tokenizer.from_file(str(context.files / "tokenizer.json"))
    loaded = AutoTokenizer.from_pretrained(context.files)
    for text in SEEN + UNSEEN:
        assert loaded(text)["input_ids"] == smaller.encode(text).ids
    assert loaded.pad_token_id == smaller.token_to_id("[PAD]")


def test_ids_in_the_settings_move_too(given):
    model, context = given
    old = Tokenizer.from_file(str(context.files / "tokenizer.json"))
    settings = context.files / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    content["added_tokens_decoder"] = {str(old.token_to_id("[MASK]")): {"content": "[MASK]", "special": True}}
    settings.write_text(json.dumps(content))
    tokenizer = json.loads((context.files / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [
        {"id": old.token_to_id("[MASK]"), "content": "[MASK]", "special": True, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
    ]
    (context.files / "tokenizer.json").write_text(json.dumps(tokenizer))
    apply(model, Options(), context)
    smaller = Tokenizer.from_file(str(context.files / "tokenizer.json"))
    assert list(json.loads(settings.read_text())["added_tokens_decoder"]) == [str(smaller.token_to_id("[MASK]"))]


def test_a_smaller_size_makes_texts_longer(given):
    model, context = given
    facts = apply(model, Options(size=62), context)
    assert facts["pieces"] == 62
    assert facts["kept_share_of_tokens"] < 1
    assert facts["mean_tokens"]["after"] > facts["mean_tokens"]["before"]


def test_characters_that_are_never_seen_can_leave(given):
    model, context = given
    facts = apply(model, Options(alphabet="seen"), context)
    assert "[UNK]" in Tokenizer.from_file(str(context.files / "tokenizer.json")).encode("jazz").tokens
    assert facts["kept_share_of_tokens"] == 1


def test_training_reads_the_texts_anew(given):
    model, context = given
    apply(model, Options(size=62, train=Training(epochs=1, batch_size=2)), context)
    assert model.config.vocab_size == 62


def test_no_tokenizer(given):
    model, context = given
    (context.files / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedModel, match="tokenizer cannot be read"):
        apply(model, Options(), context)


def test_a_tokenizer_of_another_model(given):
    _, context = given
    with pytest.raises(UnsupportedModel, match=r"has \d+ ids and the model rows for 48"):
        apply(make_bert(), Options(), context)


def test_no_data(given):
    model, context = given
    with pytest.raises(DataError, match="what data uses"):
        apply(model, Options(), make_context(train_samples=None, held_out=None, files=context.files))


@pytest.mark.parametrize("given_options", [{"min_count": 0}, {"size": 0}])
def test_options_that_make_no_sense(given_options):
    with pytest.raises(OptionError):
        Options(**given_options)
