"""Language models of every layout through every step of ``compress``: they load, alone where they can, and answer."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM

from compression.checkpoint import save_compressed
from exporter.compressing.compress import CompressOptions, compress
from exporter.source import GENERATION, open_source
from exporter.tracing.huggingface import load_model
from exporter.tracing.trace import trace
from runtimes.errors import UnsupportedModel, UsageError
from tests.unit.compression.made_decoders import FAMILIES, make_decoder

_SENTENCES = (
    "The small boat left the old harbour at dawn, and nobody saw it again.",
    "Rain fell on the quiet town; nobody went out before noon.",
    "She reads the long letter twice and puts it away with the others.",
    "Two engineers measure the heat of the new machine in the old harbour.",
)
_TRAIN = "train = {epochs = 1, batch_size = 8, learning_rate = 1e-3%s}"
_TAUGHT = _TRAIN % ", distil = {hard_weight = 0.5, soft_weight = 0.5, hidden_weight = 1.0}"
# Steps whose result transformers loads by itself, and those that need stepdown for it.
PLAIN = {
    "finetune": f'do = "finetune"\n{_TRAIN % ""}',
    "distil": f'do = "distil"\n{_TAUGHT}',
    "magnitude": f'do = "prune"\nsparsity = 0.5\nschedule = "cubic"\n{_TRAIN % ""}',
    "second-order": f'do = "prune"\nmethod = "second-order"\nsparsity = 0.7\n{_TAUGHT}',
    "two-of-four": 'do = "prune"\nmethod = "second-order"\npattern = "2:4"',
    "blocks": 'do = "prune"\npattern = "4x4"\nsparsity = 0.5',
    "neurons": f'do = "prune-neurons"\nsparsity = 0.5\nmultiple_of = 8\n{_TRAIN % ""}',
    "layers": 'do = "drop-layers"\nkeep = 1',
    "layers by loss": 'do = "drop-layers"\nkeep = 1\nimportance = "loss"',
    "vocabulary": 'do = "prune-vocabulary"\nsize = 280',
    "student": f'do = "new-student"\nlayers = 1\nwidth = 16\nheads = 2\n{_TAUGHT}',
    "llama student": 'do = "new-student"\narchitecture = "llama"\nlayers = 1\nwidth = 16\nheads = 4\nkv_heads = 2',
    "noted": 'do = "quantise"\nprecision = "weights-8"',
}
OURS = {
    "heads": 'do = "prune-heads"\nsparsity = 0.5\nimportance = "magnitude"',
    "low rank": f'do = "low-rank"\nrank = 4\n{_TRAIN % ""}',
    "eight bits": f'do = "quantise-aware"\n{_TRAIN % ""}',
    "four bits": f'do = "quantise-aware"\nbits = 4\n{_TRAIN % ""}',
    "three levels": f'do = "ternarise"\n{_TRAIN % ""}',
}
STEPS = {**PLAIN, **OURS}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("\n".join(_SENTENCES * 4) + "\n")
    return path


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """Returns what makes the directory of a family once."""
    made = {}

    def find(family):
        if family not in made:
            folder = made[family] = tmp_path_factory.mktemp(family)
            model = make_decoder(family, vocab_size=300, bos_token_id=1, eos_token_id=2, pad_token_id=0)
            save_compressed(model, folder)
            (folder / "stepdown.json").unlink()
            (folder / "generation_config.json").write_text('{"eos_token_id": [2], "bos_token_id": 1}')
            write_tokenizer(folder)
        return made[family]

    return find


def write_tokenizer(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|start|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def run(folder, texts, output, *steps, **more):
    recipe = output.with_suffix(".toml")
    recipe.write_text('name = "try"\nmax_length = 16\n' + "".join(f"[[steps]]\n{step}\n" for step in steps))
    options = {"data": str(texts), "held_out": str(texts), "threads": 1, **more}
    return compress(CompressOptions(model=str(folder), recipe=str(recipe), output=output, **options), lambda _: None)


def answer(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(20).view(2, 10)).logits


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_step_keeps_the_model_loading_and_answering(step, family, decoder, texts, tmp_path):
    check_step(step, family, decoder, texts, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"gpt2", "llama"}))
def test_other_layouts_do_too(step, family, decoder, texts, tmp_path):
    if (step, family) == ("heads", "phi3"):
        pytest.skip("its heads cannot be told apart")
    check_step(step, family, decoder, texts, tmp_path)


def check_step(step, family, decoder, texts, tmp_path):
    done = run(decoder(family), texts, tmp_path / "out", STEPS[step])
    ours = load_model(done.output, GENERATION)
    assert answer(ours).isfinite().all()
    config = json.loads((done.output / "config.json").read_text())
    assert config["use_cache"] is True
    assert (done.output / "generation_config.json").is_file()
    if step in PLAIN:
        plain = AutoModelForCausalLM.from_pretrained(done.output)
        assert torch.allclose(answer(plain), answer(ours), atol=1e-4)
    facts = done.record.steps[-1]["facts"]
    if step in {"finetune", "distil", "student"}:
        assert facts["held_out"].keys() == {"loss", "perplexity"}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_steps_one_after_the_other_end_in_a_graph_that_agrees(family, decoder, texts, tmp_path):
    names = ("vocabulary", "layers", "heads", "neurons", "second-order", "distil", "noted")
    done = run(
        decoder(family), texts, tmp_path / "out", *(STEPS[name].replace("keep = 1", "keep = 2") for name in names)
    )
    (tmp_path / "traced").mkdir()
    traced = trace(open_source(str(done.output)), tmp_path / "traced")
    assert {report.verdict for report in traced.parity} == {"pass"}
    assert done.record.export["precision"] == "weights-8"


def test_a_smaller_vocabulary_stops_where_the_larger_did(decoder, texts, tmp_path):
    done = run(decoder("llama"), texts, tmp_path / "out", STEPS["vocabulary"], STEPS["distil"])
    tokenizer = Tokenizer.from_file(str(done.output / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")
    assert tokenizer.get_vocab_size() == 280
    assert json.loads((done.output / "config.json").read_text())["eos_token_id"] == end
    assert json.loads((done.output / "generation_config.json").read_text())["eos_token_id"] == [end]


@pytest.mark.parametrize("step", ["exit-early\nconfidence = 0.9", "gate-channels", "gate-layers"])
def test_steps_that_skip_layers_are_for_encoders(step, decoder, texts, tmp_path):
    name, _, options = step.partition("\n")
    with pytest.raises(UnsupportedModel, match=f"{name} is for encoders: with a cache") as caught:
        run(decoder("llama"), texts, tmp_path / "out", f'do = "{name}"\n{options}')
    assert caught.value.where == f"steps[0] ({name})"


@pytest.mark.parametrize(
    ("step", "where", "message"),
    [
        ('do = "prune-heads"\nsparsity = 0.5\nscope = "global"', "steps[0].scope", "as many heads in every layer"),
        ('do = "prune-heads"\nsparsity = 0.5\nlayers = ["layers.0"]', "steps[0].layers", "as many heads"),
        ('do = "new-student"\nmax_length = 8', "steps[0].max_length", "8 is less than the windows of 16"),
        (f'do = "distil"\n{_TRAIN % ", distil = {attention_weight = 1.0}"}', "distil.attention_weight", "for encoders"),
    ],
)
def test_what_a_decoder_cannot_have_is_refused_in_its_place(step, where, message, decoder, texts, tmp_path):
    with pytest.raises(UsageError, match=message) as caught:
        run(decoder("llama"), texts, tmp_path / "out", step)
    assert str(caught.value.where).endswith(where)


def test_a_teacher_with_other_pieces_is_refused(decoder, texts, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in decoder("llama").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    content = json.loads((other / "tokenizer.json").read_text())
    content["added_tokens"][2]["content"] = "<|stop|>"
    content["model"]["vocab"]["<|stop|>"] = content["model"]["vocab"].pop("<|endoftext|>")
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"the teacher's tokenizer has no piece .*endoftext"):
        run(decoder("llama"), texts, tmp_path / "out", STEPS["distil"], teacher=str(other))
