"""Small causal language models and windows of tokens for the tests of compression: random weights, two layers."""

import numpy as np
import torch
import transformers

from compression.context import Context
from compression.models.turned_linear import turn_conv1d
from compression.objectives.objective import SpecialTokens
from compression.samples import Samples

VOCABULARY = 64
_BODY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_GROUPED = {**_BODY, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
_OPT = {**{name: size for name, size in _BODY.items() if name != "intermediate_size"}, "ffn_dim": 48}

#: By the name of the architecture: what its configuration is given.
FAMILIES = {
    "gpt2": {**_GPT2, "bos_token_id": 1, "eos_token_id": 2},
    "llama": {**_GROUPED, "tie_word_embeddings": True},
    "gpt_neox": _BODY,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "opt": {**_OPT, "word_embed_proj_dim": 32},
    "phi": _BODY,
    "phi3": _GROUPED,
}


def make_decoder(family="llama", *, seed=0, **changed):
    """A language model in evaluation mode whose weights are large enough for its layers to matter."""
    torch.manual_seed(seed)
    scale = {"init_std" if family == "opt" else "initializer_range": 0.2}
    config = transformers.AutoConfig.for_model(family, **{**FAMILIES[family], **scale, **changed})
    config._attn_implementation = "eager"
    config.use_cache = False
    return turn_conv1d(transformers.AutoModelForCausalLM.from_config(config).eval())


def make_windows(count=24, length=12, *, seed=0):
    """Windows in which the next token is a rule of the one before, now and then another."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        ids = [int(rng.integers(3, VOCABULARY))]
        while len(ids) < length:
            follows = 3 + (ids[-1] * 5 + 1) % (VOCABULARY - 3)
            ids.append(follows if rng.random() < 0.9 else int(rng.integers(3, VOCABULARY)))
        rows.append({"input_ids": np.array(ids), "attention_mask": np.ones(length, np.int64)})
    return Samples(rows=tuple(rows))


def make_decoder_context(**changed):
    """A context with windows to learn from and to measure on, and nothing kept on disk."""
    given = {"train_samples": make_windows(), "held_out": make_windows(8, seed=1), "tokens": SpecialTokens(padding=2)}
    return Context(**{**given, **changed})
