"""Which pieces could leave a vocabulary, by what data uses; and the samples of a plan."""

from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from compression.objectives.objective import SpecialTokens
from compression.samples import Samples
from exporter.planning.subject import PlanSubject
from exporter.planning.vocabulary import shrink_vocabulary
from exporter.source import Source
from tests.unit.compression.made_encoders import make_bert

LETTERS = "abcd"
PIECES = ["[PAD]", "[UNK]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "ab", "cd", "##ab", "##cd"]
WORDS = [first + second + third for first in LETTERS for second in LETTERS for third in LETTERS]


def make_subject(tmp_path, used, *, kind="WordPiece"):
    """A model of 79 pieces whose data uses some of them, each in every sample."""
    ids = {piece: at for at, piece in enumerate([*PIECES, *WORDS])}
    model = models.WordPiece(ids, unk_token="[UNK]") if kind == "WordPiece" else models.WordLevel(ids, "[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = tuple({"input_ids": np.array(one)} for one in used)
    samples = Samples(rows=rows)
    return PlanSubject(
        source=Source(kind="huggingface", reference="m", path=tmp_path, task="text-classification"),
        model=make_bert(vocab_size=len(ids)),
        everything=samples,
        judged=samples,
        seen=samples,
        tokens=SpecialTokens(padding=0, mask=2, every=(0, 1, 2)),
        tokenizer=tmp_path,
    )


def test_what_is_never_used_leaves(tmp_path):
    found = shrink_vocabulary(make_subject(tmp_path, [[11, 20, 21]] * 6))
    # Three special pieces, eight letters and three used ones stay.
    assert (found.rows_gone, found.finding) == (len(PIECES) + len(WORDS) - 14, None)


def test_little_data_shrinks_nothing_and_says_so(tmp_path):
    found = shrink_vocabulary(make_subject(tmp_path, [[11 + place, 20] for place in range(8)]))
    assert found.rows_gone == 0
    assert "more --data" in found.finding


def test_a_vocabulary_in_full_use_stays(tmp_path):
    every = list(range(11, len(PIECES) + len(WORDS)))
    assert shrink_vocabulary(make_subject(tmp_path, [every] * 4)).rows_gone == 0


def test_a_tokenizer_that_cannot_shrink_stays_and_says_so(tmp_path):
    found = shrink_vocabulary(make_subject(tmp_path, [[11]] * 4, kind="WordLevel"))
    assert found.rows_gone == 0
    assert "WordLevel" in found.finding


def test_a_model_without_a_tokenizer(tmp_path):
    assert shrink_vocabulary(replace(make_subject(tmp_path, [[11]] * 4), tokenizer=None)).rows_gone == 0
