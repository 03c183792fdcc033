import json

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from compression.words.vocabulary import choose_pieces, read_vocabulary, shrink_tokenizer
from runtimes.errors import UnsupportedModel

TEXTS = [
    "the small boat left the old harbour at dawn",
    "rain fell on the quiet town and nobody went out",
    "she reads the long letter twice and puts it away",
    "two engineers measure the heat of the new machine",
    "a good model answers the same on every machine",
]
OTHER = ["unbelievable zebras jump over the machinery, quickly!", "harbours and boats, boatmen; quietly x"]


def make_wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    trainer = trainers.WordPieceTrainer(vocab_size=220, special_tokens=special, show_progress=False)
    # Every letter once at the start of a word and once inside one.
    tokenizer.train_from_iterator([*TEXTS, *(f"{letter} b{letter}" for letter in letters), ", ; !"] * 2, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"))
    return tokenizer


def make_bpe():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def make_unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False,
        initial_alphabet=[*letters, ",", ";", "!"],
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    return tokenizer


def count(tokenizer, texts):
    counts = [0] * tokenizer.get_vocab_size()
    for text in texts:
        for at in tokenizer.encode(text).ids:
            counts[at] += 1
    return counts


def shrink(tokenizer, texts, **options):
    content = json.loads(tokenizer.to_str())
    given = {"min_count": 1, "size": None, "whole_alphabet": True, **options}
    kept = choose_pieces(read_vocabulary(content), count(tokenizer, texts), **given)
    return Tokenizer.from_str(json.dumps(shrink_tokenizer(content, kept))), kept


MAKERS = [make_wordpiece, make_bpe, make_unigram]


@pytest.mark.parametrize("make", MAKERS)
def test_texts_of_the_data_keep_their_pieces(make):
    tokenizer = make()
    smaller, kept = shrink(tokenizer, TEXTS[:2])
    assert smaller.get_vocab_size() == len(kept) < tokenizer.get_vocab_size()
    assert sorted(smaller.get_vocab().values()) == list(range(len(kept)))
    for text in TEXTS[:2]:
        before, after = tokenizer.encode(text), smaller.encode(text)
        assert after.tokens == before.tokens
        assert [kept[at] for at in after.ids] == before.ids


@pytest.mark.parametrize("make", MAKERS)
def test_no_text_becomes_unknown(make):
    tokenizer = make()
    smaller, _ = shrink(tokenizer, TEXTS[:1])
    unknown = {"[UNK]", "<unk>"}
    longer = 0
    for text in TEXTS + OTHER:
        before, after = tokenizer.encode(text), smaller.encode(text)
        assert not unknown & set(before.tokens)
        assert not unknown & set(after.tokens)
        longer += len(after.ids) - len(before.ids)
    assert longer > 0


@pytest.mark.parametrize("make", MAKERS)
def test_new_ids_lead_to_the_old_rows(make):
    tokenizer = make()
    smaller, kept = shrink(tokenizer, TEXTS)
    for piece, at in smaller.get_vocab().items():
        assert tokenizer.token_to_id(piece) == kept[at]


def test_special_tokens_are_inserted_by_their_new_ids():
    tokenizer = make_wordpiece()
    smaller, _ = shrink(tokenizer, TEXTS[:1])
    encoded = smaller.encode("the boat")
    assert encoded.ids == [smaller.token_to_id(token) for token in encoded.tokens]
    assert (encoded.tokens[0], encoded.tokens[-1]) == ("[CLS]", "[SEP]")
    assert smaller.padding["pad_id"] == smaller.token_to_id("[PAD]")
    roberta, _ = shrink(make_bpe(), TEXTS[:1])
    encoded = roberta.encode("the boat")
    assert encoded.ids == [roberta.token_to_id(token) for token in encoded.tokens]


def test_places_that_were_kept_free_leave():
    assert shrink(make_wordpiece(), TEXTS)[0].token_to_id("[unused0]") is not None  # given as an added token
    content = json.loads(make_wordpiece().to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "[unused0]"]
    smaller, _ = shrink(Tokenizer.from_str(json.dumps(content)), TEXTS)
    assert smaller.token_to_id("[unused0]") is None


@pytest.mark.parametrize("make", MAKERS)
def test_a_size_is_kept_and_takes_the_most_frequent(make):
    tokenizer = make()
    _, everything = shrink(tokenizer, TEXTS)
    _, least = shrink(tokenizer, TEXTS, min_count=10**9)
    size = (len(everything) + len(least)) // 2
    _, kept = shrink(tokenizer, TEXTS, size=size)
    assert len(least) < len(kept) <= size
    counts = count(tokenizer, TEXTS)
    taken = set(kept) - set(least)
    if make is not make_bpe:  # a piece of BPE brings those it is made of
        assert min(counts[at] for at in taken) >= max(counts[at] for at in set(everything) - set(kept))


def test_rare_pieces_leave():
    tokenizer = make_wordpiece()
    counts = count(tokenizer, TEXTS)
    _, kept = shrink(tokenizer, TEXTS, min_count=2)
    special = read_vocabulary(json.loads(tokenizer.to_str()))
    assert all(counts[at] >= 2 for at in set(kept) - special.alphabet - special.special)


def test_characters_the_data_never_shows_can_leave():
    tokenizer = make_wordpiece()
    smaller, _ = shrink(tokenizer, TEXTS[:1], whole_alphabet=False)
    assert smaller.token_to_id("z") is None
    assert smaller.token_to_id("##b") is not None
    assert "[UNK]" not in smaller.encode("harbour at dawn").tokens
    assert "[UNK]" in smaller.encode("zebra").tokens


def test_a_piece_of_bpe_stays_with_what_it_is_made_of():
    content = json.loads(make_bpe().to_str())
    vocabulary = read_vocabulary(content)
    longest = max(range(len(vocabulary.pieces)), key=lambda at: len(vocabulary.pieces[at] or ""))
    counts = [0] * len(vocabulary.pieces)
    counts[longest] = 1
    kept = choose_pieces(vocabulary, counts, min_count=1, size=None, whole_alphabet=True)
    word = vocabulary.pieces[longest].replace("Ġ", " ").strip()
    smaller = Tokenizer.from_str(json.dumps(shrink_tokenizer(content, kept)))
    assert smaller.encode(word).tokens[1:-1] == [vocabulary.pieces[longest]]


def test_merges_written_as_text():
    content = json.loads(make_bpe().to_str())
    expected = shrink_tokenizer(content, list(range(300)))
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    smaller = shrink_tokenizer(content, list(range(300)))
    assert [merge.split(" ") for merge in smaller["model"]["merges"]] == expected["model"]["merges"]


def test_a_vocabulary_without_its_alphabet_is_refused():
    content = json.loads(make_wordpiece().to_str())
    del content["model"]["vocab"]["##o"]
    with pytest.raises(UnsupportedModel, match="'##o' is no piece"):
        read_vocabulary(content)


def test_whole_words_cannot_be_told_by_smaller_ones():
    tokenizer = Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(UnsupportedModel, match="WordLevel"):
        read_vocabulary(json.loads(tokenizer.to_str()))
