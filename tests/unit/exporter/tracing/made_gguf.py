"""GGUF files for tests, written from tiny models the way llama.cpp's converter does."""

import gguf
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTES = list(bytes_to_unicode().values())
ENDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["2 0", "20 2", "h e"]
TOKENS = [*ENDS, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
CONTROL, NORMAL = 3, 1
CONTEXT = {"llama": 128, "gpt2": 1024}


def make_llama(**changes):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": len(TOKENS)}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **heads, "tie_word_embeddings": True, **changes})).eval()


def make_gpt2():
    torch.manual_seed(0)
    # transformers takes 1024 positions for granted in a GPT-2 file, whatever it says.
    ids = {"vocab_size": len(TOKENS), "bos_token_id": 1, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=1024, **ids)).eval()


def write_llama(path, model, *, pre="smollm", kind=gguf.GGMLQuantizationType.F32, leave_out="", settings=()):
    """Write a Llama: its query and key rows interleaved, as ggml turns pairs; ``leave_out`` names a tensor."""
    writer = _open(path, "llama", model.config.num_hidden_layers, pre)
    config = model.config
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for key, value in settings:
        writer.add_string(key, value)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in _list_weights(model):
        permuted = next((count for part, count in heads.items() if part in name), None)
        if permuted:
            halves = tensor.reshape(permuted, 2, -1, tensor.shape[-1])
            tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        _add(writer, gguf.MODEL_ARCH.LLAMA, model, name, tensor.numpy(), kind, leave_out)
    return _close(writer, path)


def write_gpt2(path, model):
    """Write a GPT-2: its Conv1D weights turned into linears."""
    writer = _open(path, "gpt2", model.config.n_layer, "gpt-2")
    writer.add_embedding_length(model.config.n_embd)
    writer.add_feed_forward_length(4 * model.config.n_embd)
    writer.add_head_count(model.config.n_head)
    writer.add_layer_norm_eps(model.config.layer_norm_epsilon)
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    for name, tensor in _list_weights(model):
        array = tensor.T.contiguous().numpy() if name.endswith(turned) else tensor.numpy()
        _add(writer, gguf.MODEL_ARCH.GPT2, model, name, array, gguf.GGMLQuantizationType.F32, "")
    return _close(writer, path)


def _list_weights(model):
    return [(name, tensor.detach()) for name, tensor in model.named_parameters()]


def _open(path, architecture, layers, pre):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT[architecture])
    writer.add_tokenizer_model("gpt2")
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([CONTROL if token in ENDS else NORMAL for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    return writer


def _add(writer, architecture, model, name, array, kind, leave_out):
    base, _, suffix = name.rpartition(".")
    found = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers).get_name(base)
    if found == leave_out:
        return
    if kind == gguf.GGMLQuantizationType.F32 or array.ndim == 1:
        writer.add_tensor(f"{found}.{suffix}", array)
    else:
        writer.add_tensor(f"{found}.{suffix}", gguf.quantize(array, kind), raw_dtype=kind)


def _close(writer, path):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
