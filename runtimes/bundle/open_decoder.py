"""Opens the decoder of an unpacked bundle, so that it writes text: the first variant that fits this machine.

In: an unpacked bundle. Out: a :class:`~runtimes.generation.generator.Generator`. What tells onnxruntime-genai how to
run is checked each time, for it may name files and libraries; the tokenizer and the chat template are those that are
listed. Must not import onnx, torch or transformers.
"""

from __future__ import annotations

from runtimes.bundle.description import Variant
from runtimes.bundle.fallback import choose_variant
from runtimes.bundle.generation_safety import check_config
from runtimes.bundle.home import Home
from runtimes.bundle.open_variant import ServeOptions, choose_kernels, refuse_code
from runtimes.generation.generator import Generator, require_task
from runtimes.generation.layout import read_layout
from runtimes.generation.text_files import read_text_files
from runtimes.kernel_check import check_kernels


def open_packed(
    home: Home, options: ServeOptions, *, only: str | None, is_checked: bool, notes: tuple[str, ...]
) -> Generator:
    """Open the first variant that fits here; nothing else is tried where it then does not open.

    Args:
        home: The bundle.
        options: How it is run.
        only: The name of the one variant that may run; None lets any.
        is_checked: Whether its files were compared with what is listed; if not, those of what is opened are here.
        notes: What is worth knowing already.

    Raises:
        CorruptArtifact: a file is damaged, nothing runs here, or it brings code that is not allowed.
        MissingDependency: onnxruntime-genai, tokenizers or jinja2 is missing.
        UsageError: it does not generate text, or there is no such variant.
    """
    require_task(home.description.task, home.path)
    chosen = choose_variant(home, options, only=only, is_checked=is_checked)
    told = (*notes, *(step.describe() for step in chosen.steps))
    return open_decoder(home, chosen.variant, options, notes=told)


def open_decoder(home: Home, variant: Variant, options: ServeOptions, *, notes: tuple[str, ...] = ()) -> Generator:
    """Open one variant, whose files were checked; see :func:`open_packed` for what it raises."""
    refused = refuse_code(variant, options)
    if refused is not None:
        raise refused
    folder = home.locate(variant)
    check_config(folder, variant)
    kernels = choose_kernels(home, variant)
    where = f"bundle.json:{variant.name}.artifact"
    compared = () if kernels is not None else check_kernels({"requires": {}, **variant.artifact}, where)
    texts = read_text_files(home.shared, home.description.files)
    layout = read_layout(folder)
    # This installation's own are found by their name; see runtimes.generation.genai.
    brought = kernels if kernels is not None and kernels.is_relative_to(folder) else None
    return Generator(layout, texts, threads=options.threads, kernels=brought, notes=(*notes, *compared))
