"""What is fuzzed: each reader of a bundle, as a function of bytes, with what must hold whatever the bytes are.

A target takes anything and raises nothing: what is refused is refused as a CorruptArtifact, and what is accepted keeps
its promises, which are asserted with it: it comes back as it went, stays in its room, names only what is listed, and
means the same to the reader that comes after ours (protobuf for ONNX, safetensors, tokenizers).
"""

from tests.fuzz_bundle import archive_targets, model_targets, text_targets

TARGETS = {
    name.removeprefix("fuzz_"): target
    for module in (archive_targets, model_targets, text_targets)
    for name, target in vars(module).items()
    if name.startswith("fuzz_")
}
