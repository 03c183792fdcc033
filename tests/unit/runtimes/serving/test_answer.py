"""Answers of every task, from sessions whose outputs are known."""

from dataclasses import dataclass

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from runtimes.artifact import TensorSpec
from runtimes.errors import UsageError
from runtimes.serving.answer import answer_texts
from runtimes.serving.subject import Subject

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "wrote", "it", "ada", "lovelace", "did", "##d")
IDS = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))


@dataclass(frozen=True)
class Told:
    """Answers by a function of the ids."""

    answer: object
    inputs: tuple = (IDS,)
    outputs: tuple = ()
    thread_safe: bool = True

    def run(self, feeds):
        return self.answer(feeds["input_ids"])

    def close(self):
        pass


@pytest.fixture
def tokenizer(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def answer(tokenizer, task, told, texts, pairs=(), labels=(), max_length=32):
    subject = Subject(session=Told(told), task=task, tokenizer=tokenizer, labels=labels)
    return [(it.kind, it.value) for it in answer_texts(subject, texts, pairs, max_length)]


def mark(ids, *words):
    """A logit a token: high where one of the words stands."""
    return {name: np.where(ids == WORDS.index(word), 9.0, 0.0).astype(np.float32) for name, word in words}


def test_a_question_is_answered_with_the_words_of_the_second_text(tokenizer):
    def told(ids):
        return mark(ids, ("start_logits", "ada"), ("end_logits", "lovelace"))

    questions, contexts = ["who wrote it", "who"], ["ada  lovelace did", "did ada lovelace"]
    first, second = answer(tokenizer, "question-answering", told, questions, contexts)
    assert (first[0], first[1]["answer"], first[1]["start"], first[1]["end"]) == ("span", "ada  lovelace", 0, 13)
    assert second[1]["answer"] == "ada lovelace"
    assert 0.99 < first[1]["probability"] <= 1


def test_neither_the_question_nor_the_padding_answers_it(tokenizer):
    """The highest logits stand on the question and past the end, where no answer can be."""

    def told(ids):
        logits = np.zeros(ids.shape, np.float32)
        logits[:, 0:3] = 99.0
        logits[ids == 0] = 99.0
        logits[ids == WORDS.index("did")] = 5.0
        return {"start_logits": logits, "end_logits": logits}

    (_, first), (_, second) = answer(
        tokenizer, "question-answering", told, ["who", "who"], ["ada did it", "did it ada lovelace did it did"]
    )
    assert first["answer"] == "did"
    assert "did" in second["answer"]


def test_an_answer_does_not_end_before_it_starts_nor_goes_on_for_ever(tokenizer):
    def backwards(ids):
        return mark(ids, ("start_logits", "lovelace"), ("end_logits", "ada"))

    ((_, found),) = answer(tokenizer, "question-answering", backwards, ["who"], ["ada lovelace did"])
    assert found["start"] < found["end"]

    def whole(ids):
        return mark(ids, ("start_logits", "ada"), ("end_logits", "lovelace"))

    text = " ".join(["ada", *["did"] * 20, "lovelace"])
    ((_, found),) = answer(tokenizer, "question-answering", whole, ["who"], [text], max_length=40)
    assert len(found["answer"].split()) <= 15


def test_a_question_that_fills_all_there_is_room_for_has_no_answer(tokenizer):
    def told(ids):
        return mark(ids, ("start_logits", "ada"), ("end_logits", "ada"))

    question = " ".join(["who"] * 9)
    ((_, found),) = answer(tokenizer, "question-answering", told, [question], ["ada"], max_length=6)
    assert found["probability"] <= 1
    assert found["answer"] in {"", "ada"}


def test_without_a_second_text_a_question_gives_the_raw_outputs(tokenizer):
    def told(ids):
        return mark(ids, ("start_logits", "ada"), ("end_logits", "ada"))

    ((kind, value),) = answer(tokenizer, "question-answering", told, ["who"])
    assert (kind, value.keys()) == ("outputs", {"start_logits", "end_logits"})


def test_a_mask_is_filled_in_with_the_likeliest_words(tokenizer):
    def told(ids):
        logits = np.zeros((*ids.shape, len(WORDS)), np.float32)
        logits[..., WORDS.index("ada")], logits[..., WORDS.index("it")] = 4.0, 3.0
        return {"logits": logits}

    first, second = answer(tokenizer, "fill-mask", told, ["[MASK] wrote it", "who did [MASK] [MASK]"])
    assert first[0] == "masks"
    assert [it["token"] for it in first[1][0][:2]] == ["ada", "it"]
    assert first[1][0][0]["id"] == WORDS.index("ada")
    assert len(second[1]) == 2
    assert 0 < first[1][0][0]["probability"] < 1


def test_a_text_without_a_mask_gives_the_raw_outputs(tokenizer):
    def told(ids):
        return {"logits": np.zeros((*ids.shape, 3), np.float32)}

    ((kind, value),) = answer(tokenizer, "fill-mask", told, ["who wrote it"])
    assert (kind, np.shape(value["logits"])) == ("outputs", (5, 3))


def test_classes_of_texts_and_of_tokens(tokenizer):
    def of_texts(ids):
        return {"logits": np.array([[0.0, 2.0, 1.0]] * len(ids), np.float32)}

    ((_, value),) = answer(tokenizer, "text-classification", of_texts, ["who"], labels=("a", "b", "c"))
    assert (value["label"], value["probability"]) == ("b", pytest.approx(np.exp(2) / (1 + np.exp(2) + np.exp(1))))

    def of_tokens(ids):
        return {"logits": np.stack([ids == 8, ids != 8], -1).astype(np.float32)}

    found = answer(tokenizer, "token-classification", of_tokens, ["ada did", "it"], labels=("name", "other"))
    assert [(it["token"], it["label"]) for it in found[0][1]] == [
        ("[CLS]", "other"), ("ada", "name"), ("did", "other"), ("[SEP]", "other"),
    ]  # fmt: skip
    assert len(found[1][1]) == 3


def test_what_cannot_be_answered_is_said(tokenizer):
    def told(ids):
        return {"logits": np.zeros((len(ids), 2), np.float32)}

    with pytest.raises(UsageError, match="no text"):
        answer(tokenizer, "text-classification", told, [])
    with pytest.raises(UsageError, match="2 texts and 1 second"):
        answer(tokenizer, "text-classification", told, ["who", "it"], ["did"])
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        answer(None, "text-classification", told, ["who"])
