"""What a device answers is what transformers' own pipelines answer, for every task, on small models of the corpus."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.serving.answer import answer_texts
from runtimes.serving.subject import make_subject

TEXTS = ["the small boat left the old harbour at dawn", "rain fell on the quiet town", "a good model"]
CLOSE = {"rel": 1e-3, "abs": 1e-5}


@pytest.fixture
def serve(traced_case, case_model):
    """Answer with the traced model of a case."""

    def ask(name, texts, pairs=(), tokenizer=None):
        traced = traced_case(name)
        with closing(OnnxRuntime(OrtOptions(threads=1)).open(traced.artifact)) as session:
            subject = make_subject(session, traced.task, traced.tokenizer.parent, labels=traced.labels)
            subject = replace(subject, tokenizer=tokenizer or subject.tokenizer)
            return [answer.value for answer in answer_texts(subject, texts, pairs, 64)], case_model(name)

    return ask


def make_pipeline(task, directory, **options):
    import transformers

    from exporter.tracing.quiet import quiet_libraries

    with quiet_libraries():
        return transformers.pipeline(task, model=directory, device="cpu", **options)


def test_classes_of_texts(serve):
    found, directory = serve("distilbert", TEXTS)
    expected = make_pipeline("text-classification", directory)(TEXTS)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["label"] == theirs["label"]
        assert ours["probability"] == pytest.approx(theirs["score"], **CLOSE)


def test_classes_of_tokens(serve):
    found, directory = serve("electra", TEXTS)
    expected = make_pipeline("token-classification", directory, ignore_labels=[])(TEXTS)
    for ours, theirs in zip(found, expected, strict=True):
        # The pipeline leaves out what the tokenizer adds.
        inner = [token for token in ours if token["token"] not in {"[CLS]", "[SEP]"}]
        assert [(token["token"], token["label"]) for token in inner] == [(it["word"], it["entity"]) for it in theirs]
        assert [token["probability"] for token in inner] == pytest.approx([it["score"] for it in theirs], **CLOSE)


@pytest.mark.parametrize(("name", "mask"), [("bert-fill-mask", "[MASK]"), ("camembert", "<mask>")])
def test_words_for_masks(serve, case_model, tmp_path, name, mask):
    import transformers
    from tokenizers import Tokenizer

    # The corpus's tokenizers do not say which of their tokens is the mask.
    tokenizer = Tokenizer.from_file(f"{case_model(name)}/tokenizer.json")
    tokenizer.add_special_tokens([mask])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = [f"the {mask} boat left", f"rain fell on the quiet {mask} and nobody went out"]
    found, directory = serve(name, texts, tokenizer=tmp_path / "tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), mask_token=mask)
    expected = make_pipeline("fill-mask", directory, tokenizer=fast, top_k=5)(texts)
    for (ours,), theirs in zip(found, expected, strict=True):
        assert [it["id"] for it in ours] == [it["token"] for it in theirs]
        assert [it["probability"] for it in ours] == pytest.approx([it["score"] for it in theirs], **CLOSE)


def test_embeddings(serve):
    found, directory = serve("bert", TEXTS)
    expected = make_pipeline("feature-extraction", directory)(TEXTS)
    for ours, (theirs,) in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, np.mean(theirs, axis=0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "mobilebert"])
def test_answers_to_questions(serve, name):
    """Transformers 5 has no such pipeline any more: its model's logits, and every pair of tokens tried."""
    import torch
    import transformers

    questions = ["who reads the letter", "what do they measure"]
    contexts = ["she reads the long letter twice and puts it away", "two engineers measure the heat of the new machine"]
    found, directory = serve(name, questions, contexts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(directory).eval()
    for question, context, ours in zip(questions, contexts, found, strict=True):
        tokens = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        offsets = tokens.pop("offset_mapping")[0].tolist()
        places = [at for at, part in enumerate(tokens.sequence_ids(0)) if part == 1]
        with torch.no_grad():
            given = model(**tokens)
        starts, ends = (
            logits[0, places].softmax(0).double().numpy() for logits in (given.start_logits, given.end_logits)
        )
        tried = [
            (starts[first] * ends[last], offsets[places[first]][0], offsets[places[last]][1])
            for first in range(len(places))
            for last in range(first, min(first + 15, len(places)))
        ]
        probability, start, end = max(tried)
        assert ours["probability"] == pytest.approx(probability, **CLOSE)
        assert (ours["start"], ours["end"]) == (start, end)
        assert ours["answer"] == context[start:end].strip()
