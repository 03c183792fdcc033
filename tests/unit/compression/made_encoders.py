"""Small encoders and batches for the tests of compression: random weights, two layers, hidden 32."""

import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from compression.samples import Batch

CONFIG = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "num_labels": 3,
}


def make_bert(*, seed=0, masked=False, **changed):
    """A BERT in evaluation mode whose weights are large enough for its layers to matter."""
    torch.manual_seed(seed)
    kind = BertForMaskedLM if masked else BertForSequenceClassification
    model = kind(BertConfig(**{**CONFIG, **changed}, initializer_range=0.2))
    model.config._attn_implementation = "eager"
    return model.eval()


def make_batch(samples=4, length=7, *, seed=0, kept=()):
    """Random tokens with labels; row i keeps ``kept[i]`` tokens and the rest is padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, CONFIG["vocab_size"], (samples, length), generator=generator)
    mask = torch.ones_like(ids)
    for row, count in enumerate(kept):
        mask[row, count:] = 0
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    labels = torch.randint(0, CONFIG["num_labels"], (samples,), generator=generator)
    return Batch(inputs=inputs, labels=labels, indices=tuple(range(samples)), teacher_inputs=inputs)


def measure_loss(model, batch):
    """Cross-entropy, the mean over the batch."""
    return torch.nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels)
