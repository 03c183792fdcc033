"""Small causal language models of many layouts, random weights: the corpus of what generates.

``DECODERS`` maps a name to a case, ``build(case, directory)`` saves its model. Cases with ``why_not`` cannot be
exported; the text is part of the error they must give.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCABULARY_SIZE = 128
CONTEXT = 160

_BODY: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
    # Wide enough that no two logits are nearly alike: greedy tokens then say something.
    "initializer_range": 0.3,
    # Nothing ends a text before its time.
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
_GROUPED = {**_BODY, "num_key_value_heads": 2}
_GPT = {**_BODY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """One model: ``config`` goes to the configuration of ``model_type``, ``slow`` keeps it out of the default run."""

    name: str
    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    why_not: str | None = None
    slow: bool = False


_ALL = (
    # Conv1D for every linear, learned positions; each layer's scores are divided by its number too.
    Decoder(name="gpt2", model_type="gpt2", config={**_GPT, "scale_attn_by_inverse_layer_idx": True}),
    # Two heads share a key, and the head is the table of the words.
    Decoder(name="llama", model_type="llama", config={**_GROUPED, "tie_word_embeddings": True}),
    # The positions turn a quarter of each head.
    Decoder(name="gpt-neox", model_type="gpt_neox", config={**_BODY, "rotary_pct": 0.25}),
    # Biases in query, key and value.
    Decoder(name="qwen2", model_type="qwen2", config=_GROUPED, slow=True),
    # Norms of query and key, heads wider than their share.
    Decoder(name="qwen3", model_type="qwen3", config={**_GROUPED, "head_dim": 16}, slow=True),
    # Positions are counted from two; words are narrower than what runs through the layers.
    Decoder(name="opt", model_type="opt", config={**_BODY, "ffn_dim": 48, "word_embed_proj_dim": 16}, slow=True),
    # Each token sees the eight before it.
    Decoder(name="mistral", model_type="mistral", config={**_GROUPED, "sliding_window": 8}),
    # Parallel branches, positions in half of each head.
    Decoder(name="phi", model_type="phi", config={**_GROUPED, "partial_rotary_factor": 0.5}, slow=True),
    # One projection for query, key and value, one for gate and up.
    Decoder(name="phi3", model_type="phi3", config=_GROUPED, slow=True),
    # The positions turn neighbours, not halves.
    Decoder(name="cohere", model_type="cohere", config=_GROUPED, slow=True),
    # All heads share one key.
    Decoder(name="gpt-bigcode", model_type="gpt_bigcode", config=_GPT, slow=True),
    # One layer has a window and the other has none, each with positions of its own.
    Decoder(
        name="gemma3",
        model_type="gemma3_text",
        config={
            **_GROUPED,
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": False,
        },
        slow=True,
    ),
    # Attends in a way of its own, with biases that grow with the distance.
    Decoder(
        name="bloom",
        model_type="bloom",
        config={**_BODY, "n_layer": 2, "n_head": 4},
        why_not="BloomForCausalLM attends in a way of its own",
    ),
    # Each of these as well.
    Decoder(
        name="falcon",
        model_type="falcon",
        config=_BODY,
        why_not="FalconForCausalLM attends in a way of its own",
    ),
    Decoder(
        name="gpt-j",
        model_type="gptj",
        config={**_GPT, "rotary_dim": 4},
        why_not="GPTJForCausalLM attends in a way of its own",
    ),
    # Scores are bent by a tanh before the softmax.
    Decoder(name="gemma2", model_type="gemma2", config={**_GROUPED, "head_dim": 8}, why_not="softcap"),
)

DECODERS = {decoder.name: decoder for decoder in _ALL}


def build(decoder: Decoder, directory: Path) -> Any:
    """Save the model into ``directory``, and return it in evaluation mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(decoder.model_type, **decoder.config))
    model.save_pretrained(directory)
    return model.float().eval()
