import pytest
import torch

from compression.distillation.augment import (
    AugmentOptions,
    augment,
    count_tokens,
    exchange_tokens,
    find_changeable,
    hide_tokens,
)

CLS, SEP, PAD, MASK = 1, 2, 0, 3
SPECIAL = (PAD, CLS, SEP, MASK)
VOCABULARY = 50


@pytest.fixture
def ids():
    torch.manual_seed(0)
    made = torch.randint(4, 40, (64, 32))
    made[:, 0], made[:, 20], made[:, 21:] = CLS, SEP, PAD
    return made


@pytest.fixture
def changeable(ids):
    return find_changeable(ids, (ids != PAD).long(), SPECIAL)


def test_special_tokens_and_padding_stay(ids, changeable):
    assert changeable[:, 1:20].all()
    assert not changeable[:, 0].any()
    assert not changeable[:, 20:].any()
    for changed in (
        hide_tokens(ids, changeable, 1.0, MASK),
        exchange_tokens(ids, changeable, 1.0, torch.ones(VOCABULARY)),
        augment(ids, changeable, AugmentOptions(share=1.0), mask_id=MASK, frequencies=torch.ones(VOCABULARY))[0],
    ):
        assert torch.equal(changed[~changeable], ids[~changeable])
        assert (changed != ids)[changeable].float().mean() > 0.15


def test_padding_is_known_by_the_mask_where_no_id_says_so(ids):
    mask = torch.ones_like(ids)
    mask[:, 10:] = 0
    assert not find_changeable(ids, mask, ())[:, 10:].any()
    assert find_changeable(ids, None, ()).all()


def test_shares_are_kept(ids, changeable):
    masked = hide_tokens(ids, changeable, 0.25, MASK)
    assert (masked == MASK)[changeable].float().mean() == pytest.approx(0.25, abs=0.05)
    assert torch.equal(hide_tokens(ids, changeable, 0.0, MASK), ids)
    assert torch.equal(exchange_tokens(ids, changeable, 0.0, torch.ones(VOCABULARY)), ids)


def test_replacements_are_drawn_as_often_as_they_occur(ids, changeable):
    frequencies = torch.zeros(VOCABULARY)
    frequencies[41], frequencies[42] = 3.0, 1.0
    replaced = exchange_tokens(ids, changeable, 1.0, frequencies)[changeable]
    assert set(replaced.tolist()) == {41, 42}
    assert (replaced == 41).float().mean() == pytest.approx(0.75, abs=0.05)


def test_augmenting_changes_whole_rows_and_says_which(ids, changeable):
    options = AugmentOptions(share=0.5, mask=0.3, replace=0.4)
    frequencies = torch.zeros(VOCABULARY)
    frequencies[45] = 1.0
    changed, rows = augment(ids, changeable, options, mask_id=MASK, frequencies=frequencies)
    assert torch.equal(changed[~rows], ids[~rows])
    assert 16 < int(rows.sum()) < 48
    inside = changed[rows][changeable[rows]]
    assert (inside == MASK).float().mean() == pytest.approx(0.3, abs=0.06)
    assert (inside == 45).float().mean() == pytest.approx(0.4, abs=0.06)


def test_the_same_seed_gives_the_same_text(ids, changeable):
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(augment(ids, changeable, AugmentOptions(), mask_id=MASK, frequencies=torch.ones(VOCABULARY))[0])
    assert torch.equal(*drawn)


def test_tokens_are_counted_without_special_ones():
    counts = count_tokens([torch.tensor([CLS, 5, 5, SEP]), torch.tensor([5, 7])], 10, SPECIAL)
    assert counts.tolist() == [0, 0, 0, 0, 0, 3, 0, 1, 0, 0]
    assert count_tokens([torch.tensor([CLS])], 4, SPECIAL).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"mask": -0.1}, {"replace": 2}, {"mask": 0.6, "replace": 0.6}])
def test_shares_outside_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"not in \[0, 1\]|more than all"):
        AugmentOptions(**wrong)
