"""The corpus: small models of many architectures, random weights, a tokenizer each, as plain data and builders.

``CASES`` maps a name to a case; ``build(case, directory)`` makes what ``stepdown export`` takes as MODEL and returns
that string. Cases with ``why_not`` cannot be exported; the text is part of the error they must give.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCABULARY_SIZE = 128
MAX_LENGTH = 64

_BODY: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_LENGTH,
}
_ONE_LAYER = {**_BODY, "num_hidden_layers": 1}
_FACTORIZED = {**_ONE_LAYER, "embedding_size": 16}
# RoBERTa and its kin: positions start behind the padding index, and there is one token type.
_ROBERTA = {**_ONE_LAYER, "max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1, "pad_token_id": 1}
_DISENTANGLED = {**_ONE_LAYER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}

FEATURES, SENTENCE, TOKENS = "feature-extraction", "text-classification", "token-classification"
ANSWERS, MASKED = "question-answering", "fill-mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model of the corpus.

    ``config`` goes to the configuration of ``model_type``; ``compress`` then edits the model. ``slow`` keeps the
    case out of the default run, where one of its kind is there already.
    """

    name: str
    model_type: str
    task: str
    config: dict[str, Any] = field(default_factory=dict)
    compress: Callable[[Any], None] | None = None
    why_not: str | None = None
    slow: bool = False


def prune_unevenly(model: Any) -> None:
    """Three heads and 40 neurons stay in the first layer, one head and 17 neurons in the second."""
    from tests.unit.compression.made_smaller import prune_heads, prune_neurons

    prune_heads(model, {0: (0, 2, 3), 1: (1,)})
    prune_neurons(model, {0: range(40), 1: range(1, 64, 4)})


def lower_rank(model: Any) -> None:
    """Two linears as factors of rank 8 and 5."""
    from tests.unit.compression.made_smaller import factorise

    factorise(model, dict(zip(list_linears(model), (8, 5, 8, 5), strict=False)))


def train_quantised(model: Any) -> None:
    """Every linear of the encoder rounds to int8 with its own learned scales."""
    import torch

    from compression.models.inputs import Run
    from compression.rounding.fake_quantise import fake_quantise

    ids = torch.arange(5, 5 + 32).reshape(2, 16)
    run = Run(mask=None, run=lambda: model(input_ids=ids))
    fake_quantise(model, list_linears(model), [run])


def sparsify_80(model: Any) -> None:
    """Four of five weights of the encoder's linears are zero."""
    from tests.unit.compression.made_smaller import prune_smallest

    prune_smallest(model, list_linears(model), 0.8)


def compress_everything(model: Any) -> None:
    """Uneven heads, a low-rank linear and quantised ones in one model."""
    prune_unevenly(model)
    lower_rank(model)
    train_quantised(model)


def list_linears(model: Any) -> list[str]:
    """Names of the plain linears of the encoder layers."""
    import torch

    plain = [name for name, it in model.named_modules() if ".layer." in name and type(it) is torch.nn.Linear]
    return [name for name in plain if not name.endswith((".down", ".up"))]  # the factors of a low-rank linear


_ALL = (
    Case(name="bert", model_type="bert", task=FEATURES, config=_BODY),
    Case(name="bert-fill-mask", model_type="bert", task=MASKED, config=_ONE_LAYER),
    Case(name="bert-tokens", model_type="bert", task=TOKENS, config=_ONE_LAYER, slow=True),
    Case(
        name="distilbert",
        model_type="distilbert",
        task=SENTENCE,
        config={
            "vocab_size": VOCABULARY_SIZE,
            "dim": 32,
            "n_layers": 1,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": MAX_LENGTH,
        },
    ),
    Case(name="roberta", model_type="roberta", task=ANSWERS, config=_ROBERTA),
    Case(name="xlm-roberta", model_type="xlm-roberta", task=TOKENS, config=_ROBERTA),
    Case(name="camembert", model_type="camembert", task=MASKED, config=_ROBERTA),
    Case(name="xlm-roberta-xl", model_type="xlm-roberta-xl", task=FEATURES, config=_ROBERTA, slow=True),
    Case(name="roberta-prelayernorm", model_type="roberta-prelayernorm", task=SENTENCE, config=_ROBERTA, slow=True),
    Case(name="data2vec-text", model_type="data2vec-text", task=FEATURES, config=_ROBERTA, slow=True),
    Case(name="albert", model_type="albert", task=SENTENCE, config={**_BODY, "embedding_size": 16}),
    Case(name="electra", model_type="electra", task=TOKENS, config=_FACTORIZED),
    Case(name="mpnet", model_type="mpnet", task=FEATURES, config={**_ROBERTA, "pad_token_id": 1}),
    Case(name="deberta", model_type="deberta", task=SENTENCE, config=_DISENTANGLED, slow=True),
    Case(
        name="deberta-v2",
        model_type="deberta-v2",
        task=SENTENCE,
        config={**_DISENTANGLED, "position_buckets": 16},
    ),
    Case(
        name="mobilebert",
        model_type="mobilebert",
        task=ANSWERS,
        config={**_ONE_LAYER, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    ),
    Case(name="squeezebert", model_type="squeezebert", task=SENTENCE, config={**_ONE_LAYER, "embedding_size": 32}),
    Case(name="layoutlm", model_type="layoutlm", task=TOKENS, config=_ONE_LAYER),
    Case(name="convbert", model_type="convbert", task=FEATURES, config=_FACTORIZED),
    Case(name="ernie", model_type="ernie", task=SENTENCE, config=_ONE_LAYER),
    Case(name="roformer", model_type="roformer", task=MASKED, config={**_ONE_LAYER, "embedding_size": 32}),
    Case(
        name="xmod",
        model_type="xmod",
        task=FEATURES,
        config={**_ROBERTA, "languages": ["en_XX"], "default_language": "en_XX"},
    ),
    Case(
        name="modernbert",
        model_type="modernbert",
        task=MASKED,
        config={
            **_BODY,
            "local_attention": 8,
            "layer_types": ["full_attention", "sliding_attention"],
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "cls_token_id": 2,
            "sep_token_id": 3,
        },
    ),
    Case(name="megatron-bert", model_type="megatron-bert", task=FEATURES, config=_ONE_LAYER),
    Case(name="nomic_bert", model_type="nomic_bert", task=FEATURES, config=_ONE_LAYER, slow=True),
    Case(name="rembert", model_type="rembert", task=SENTENCE, config={**_ONE_LAYER, "input_embedding_size": 16}),
    Case(name="fnet", model_type="fnet", task=FEATURES, config=_ONE_LAYER),
    Case(
        name="bert-pruned",
        model_type="bert",
        task=SENTENCE,
        config=_BODY,
        compress=prune_unevenly,
    ),
    Case(name="bert-low-rank", model_type="bert", task=FEATURES, config=_ONE_LAYER, compress=lower_rank),
    Case(name="bert-qat", model_type="bert", task=SENTENCE, config=_ONE_LAYER, compress=train_quantised),
    Case(name="bert-sparse-80", model_type="bert", task=FEATURES, config=_ONE_LAYER, compress=sparsify_80),
    Case(
        name="roberta-all-at-once",
        model_type="roberta",
        task=MASKED,
        config={**_ROBERTA, "num_hidden_layers": 2},
        compress=compress_everything,
        slow=True,
    ),
    Case(name="cnn", model_type="", task="custom"),
    Case(
        name="longformer",
        model_type="longformer",
        task=FEATURES,
        config={**_ONE_LAYER, "attention_window": 8},
        why_not="data-dependent",
    ),
    Case(
        name="canine",
        model_type="canine",
        task=FEATURES,
        config=_BODY,
        why_not="cannot vary",
    ),
)
CASES = {case.name: case for case in _ALL}


def build(case: Case, directory: Path) -> str:
    """Make the model of ``case`` below ``directory`` and return what names it for ``open_source``."""
    if case.name == "cnn":
        return write_cnn(directory)
    import transformers  # noqa: F401 - before the silence, which covers what is imported already

    from exporter.tracing.quiet import quiet_libraries

    with quiet_libraries():
        _write_checkpoint(case, directory)
    write_tokenizer(directory, roberta=case.config.get("pad_token_id") == 1)
    return str(directory)


def _write_checkpoint(case: Case, directory: Path) -> None:
    import torch
    import transformers
    from optimum.exporters.tasks import TasksManager

    from compression.checkpoint import save_compressed

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(case.model_type, **case.config)
    classes = TasksManager.get_model_class_for_task(
        case.task, framework="pt", model_type=case.model_type, library="transformers"
    )
    model = classes.from_config(config).eval()
    if case.compress is None:
        model.save_pretrained(directory)
    else:
        case.compress(model)
        save_compressed(model, directory)


def write_tokenizer(directory: Path, *, roberta: bool = False) -> None:
    """Write a ``tokenizer.json`` of :data:`VOCABULARY_SIZE` pieces: WordPiece, or byte-level BPE as RoBERTa's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if roberta:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = trainers.BpeTrainer(vocab_size=VOCABULARY_SIZE, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(_SENTENCES, trainer)
        first, last, pad = "<s>", "</s>", "<pad>"
    else:
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        words = sorted({word for sentence in _SENTENCES for word in sentence.split()})
        pieces = [*special, *letters, *("##" + letter for letter in letters), ".", ",", *words][:VOCABULARY_SIZE]
        tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        first, last, pad = "[CLS]", "[SEP]", "[PAD]"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_LENGTH, "pad_token": pad})
    )


def write_cnn(directory: Path) -> str:
    """Write a factory of a small convolutional network."""
    (directory / "cnn.py").write_text(_CNN)
    return f"{directory / 'cnn.py'}:make"


_SENTENCES = (
    "the small boat left the old harbour at dawn",
    "rain fell on the quiet town and nobody went out",
    "she reads the long letter twice and puts it away",
    "two engineers measure the heat of the new machine",
    "a good model answers the same on every machine",
)

_CNN = '''"""A small convolutional network."""

import torch
from torch import nn


def make():
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )
    return body, (torch.randn(1, 3, 16, 16),)
'''
