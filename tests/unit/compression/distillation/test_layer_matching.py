import pytest
import torch
from transformers import BertConfig, BertModel

from compression.distillation.layer_matching import LayerMatch, pair_layers
from compression.models.record_layers import count_heads, record_layers, score_attention
from runtimes.errors import UsageError


def make_encoder(*, hidden=16, layers=2, heads=4, seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=16,
        attn_implementation="eager",
    )
    return BertModel(config).eval()


IDS = torch.arange(5, 35).reshape(3, 10)
MASK = torch.ones(3, 10, dtype=torch.long)
MASK[1, 6:] = 0
INPUTS = {"input_ids": IDS, "attention_mask": MASK}


def record(model):
    with record_layers(model) as recorded:
        model(**INPUTS)
    return recorded


def test_what_is_recorded_is_what_the_model_says():
    model = make_encoder()
    recorded = record(model)
    said = model(**INPUTS, output_hidden_states=True, output_attentions=True)
    assert len(recorded.hidden) == 2
    for layer, (query, key) in enumerate(zip(recorded.queries, recorded.keys, strict=True)):
        assert torch.equal(recorded.hidden[layer], said.hidden_states[layer + 1])
        probabilities = score_attention(query, key, 4, MASK.bool()).exp()
        assert torch.allclose(probabilities, said.attentions[layer], atol=1e-6)


def test_nothing_is_recorded_afterwards():
    model = make_encoder()
    recorded = record(model)
    model(**INPUTS)
    assert len(recorded.hidden) == len(recorded.queries) == len(recorded.keys) == 2


def test_probabilities_are_those_before_dropout():
    model = make_encoder().train()
    recorded = record(model)
    probabilities = score_attention(recorded.queries[0], recorded.keys[0], 4, MASK.bool()).exp()
    assert torch.allclose(probabilities.sum(dim=-1), torch.ones(()), atol=1e-5)


def test_a_row_without_tokens_gives_numbers():
    query = torch.randn(2, 3, 8)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert score_attention(query, query, 2, mask).isfinite().all()


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        (3, 6, [(0, 1), (1, 3), (2, 5)]),
        (2, 2, [(0, 0), (1, 1)]),
        (4, 6, [(0, 0), (1, 2), (2, 3), (3, 5)]),
        (6, 3, [(1, 0), (3, 1), (5, 2)]),
    ],
)
def test_layers_are_spread_evenly_and_end_together(student, teacher, pairs):
    assert pair_layers(student, teacher) == pairs


def test_a_map_is_taken_as_it_is():
    assert pair_layers(2, 6, (0, 4)) == [(0, 0), (1, 4)]


@pytest.mark.parametrize("layer_map", [(0,), (0, 6), (-1, 0), (0, 1, 2)])
def test_a_map_that_does_not_fit_is_refused(layer_map):
    with pytest.raises(UsageError, match="does not map 2 layers") as caught:
        pair_layers(2, 6, layer_map)
    assert "from 0 to 5" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_model_is_not_far_from_itself():
    model = make_encoder()
    match = LayerMatch.for_models(model, model)
    assert not list(match.parameters())
    recorded = record(model)
    assert match.measure_hidden(recorded, recorded, MASK.bool()).item() == 0
    assert match.measure_attention(recorded, recorded, MASK.bool()).item() == pytest.approx(0, abs=1e-6)


def test_distances_are_what_they_say():
    student, teacher = make_encoder(seed=1), make_encoder(seed=2)
    mine, theirs = record(student), record(teacher)
    match = LayerMatch.for_models(student, teacher)
    real = MASK.bool()
    squares = [
        ((mine.hidden[i] - theirs.hidden[i])[real] ** 2).sum() / (theirs.hidden[i][real] ** 2).sum() for i in range(2)
    ]
    assert match.measure_hidden(mine, theirs, real).item() == pytest.approx(sum(squares).item() / 2, rel=1e-5)
    said = [model(**INPUTS, output_attentions=True).attentions for model in (student, teacher)]
    logs = [[(layer + 1e-30).log() for layer in attentions] for attentions in said]
    divergence = [(said[1][i] * (logs[1][i] - logs[0][i])).sum(dim=-1).transpose(1, 2)[real].mean() for i in range(2)]
    assert match.measure_attention(mine, theirs, real).item() == pytest.approx(sum(divergence).item() / 2, rel=1e-3)


def test_padding_does_not_count():
    student, teacher = make_encoder(seed=1), make_encoder(seed=2)
    mine, theirs = record(student), record(teacher)
    match = LayerMatch.for_models(student, teacher)
    before = match.measure_hidden(mine, theirs, MASK.bool()), match.measure_attention(mine, theirs, MASK.bool())
    with torch.no_grad():
        for tensors in (mine.hidden, mine.queries, mine.keys):
            for tensor in tensors:
                tensor[1, 6:] = 100.0
    after = match.measure_hidden(mine, theirs, MASK.bool()), match.measure_attention(mine, theirs, MASK.bool())
    assert [value.item() for value in before] == pytest.approx([value.item() for value in after])


def test_projections_learn_to_bridge_widths_and_heads():
    student, teacher = make_encoder(hidden=8, heads=2, seed=1), make_encoder(hidden=16, heads=4, layers=4, seed=2)
    assert count_heads(teacher) == [4, 4, 4, 4]
    match = LayerMatch.for_models(student, teacher)
    assert sorted(tuple(p.shape) for p in match.parameters()) == [(4, 2), (4, 2), (16, 8), (16, 8)]
    mine, theirs = record(student), record(teacher)
    optimizer = torch.optim.Adam(match.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = match.measure_hidden(mine, theirs, MASK.bool()) + match.measure_attention(mine, theirs, MASK.bool())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_a_mixture_of_heads_is_still_a_distribution():
    student, teacher = make_encoder(heads=2), make_encoder(heads=4)
    match = LayerMatch.for_models(student, teacher)
    with torch.no_grad():
        for mixture in match.mixtures.values():
            mixture.normal_()
    recorded = record(teacher)
    # The divergence between distributions is never negative; between other things it may be.
    assert match.measure_attention(record(student), recorded, MASK.bool()) > 0


def test_other_models_are_refused_with_a_way_out():
    with pytest.raises(UsageError, match="laid out like BERT") as caught:
        LayerMatch.for_models(torch.nn.Linear(2, 2), make_encoder())
    assert "hidden_weight = 0" in str(caught.value)
