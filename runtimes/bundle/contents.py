"""What must hold of an unpacked bundle before any of it is loaded: every file is of a kind a bundle may have.

In: the folder of an unpacked bundle, whose hashes were checked on the way, and its description. Out: nothing, or an
error. A kind is known by its place and proved by its content: descriptions are JSON, texts are texts, models, kernels
and probes are what they should be; whatever is left over is refused, pickles above all. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from runtimes.bundle.description import BundleDescription, Variant
from runtimes.bundle.generation_safety import check_decoder, check_generation
from runtimes.bundle.kernels import KERNEL_FOLDER, check_kernels
from runtimes.bundle.onnx_safety import check_external, check_onnx, check_specs
from runtimes.bundle.pickles import holds_pickle
from runtimes.bundle.rebuild import read_rebuild
from runtimes.bundle.strict_json import corrupt, load_json, mismatch
from runtimes.bundle.tensor_file import read_tensors
from runtimes.bundle.tokenizer_safety import check_tokenizer
from runtimes.isa import LEVELS
from runtimes.ort_providers import CPU
from runtimes.trt.record import read_record, record_path

# Configurations, reports and lists of parts: tens of kilobytes.
MAX_JSON_BYTES = 32 << 20
MAX_TEXT_BYTES = 4 << 20
_TOKENIZER = "tokenizer.json"
_ONNX = ".onnx"
# A name without a suffix is LICENSE or NOTICE.
_TEXTS = frozenset({"", ".txt", ".md", ".jinja", ".toml"})
# numpy's and torch's containers hold pickles.
_HOLDERS = (b"PK\x03\x04", b"\x93NUMPY")


def check_contents(home: Path, description: BundleDescription, variants: Collection[str] | None = None) -> None:
    """Check every file of an unpacked bundle.

    Args:
        home: Holds ``shared/`` and ``variants/``.
        description: What was checked against the archive.
        variants: The names of those that were unpacked; None: all.

    Raises:
        CorruptArtifact: a file is of no kind that a bundle has, is not what its place says, or the description does
            not tell the truth about it.
        MissingDependency: ``tokenizers`` is not installed.
    """
    for path in sorted(description.files):
        _check_shared(home / "shared" / path, path)
    check_generation(home, description)
    for variant in description.variants:
        if variants is None or variant.name in variants:
            check_variant(home / "variants" / variant.name, variant)


def check_variant(folder: Path, variant: Variant) -> None:
    """Check the files of one unpacked variant; see :func:`check_contents`."""
    _check_claims(variant)
    for path in sorted(variant.files):
        _refuse_pickle(folder / path, f"{variant.name}: {path}")
    graphs = _list_graphs(variant)
    needs = [check_onnx(folder, graph, tuple(variant.files)) for graph in graphs]
    check_external(folder, needs)
    for graph in graphs:
        check_specs(folder / graph, f"{variant.name}: {graph}", variant.inputs, variant.outputs)
    check_kernels(folder, variant, needed=any(need.kernels for need in needs))
    _check_model(folder, variant)
    probe = {variant.probe.inputs, variant.probe.outputs}
    if variant.generates:
        check_decoder(folder, variant)
    else:
        for path in sorted(probe):
            _check_probe(folder, variant, path)
    known = {variant.model, *graphs, *probe, *(extent.file for need in needs for extent in need.extents)}
    for path in sorted(set(variant.files) - known):
        if not path.startswith(KERNEL_FOLDER):  # the kernels were checked, and lie alone there
            _check_plain(folder / path, f"{variant.name}: {path}", path)


def _check_claims(variant: Variant) -> None:
    """Check what the export is said to have told of a model, where a choice between variants goes by it."""
    told, where = variant.artifact, f"bundle.json:{variant.name}.artifact"
    if not isinstance(told.get("exact_on_any_cpu", True), bool):
        raise corrupt(f"{told['exact_on_any_cpu']!r} is neither true nor false"[:200], f"{where}.exact_on_any_cpu")
    # Of a plan it is the GPUs that it was built for, which its record tells and nothing here goes by.
    if variant.runtime == "onnxruntime" and "isa" in told and told["isa"] not in LEVELS:
        raise corrupt(f"{told['isa']!r} is no instruction set"[:200], f"{where}.isa")
    provider = told.get("provider", CPU)
    if variant.runtime == "onnxruntime" and provider != CPU:
        raise mismatch("the step 'cpu' runs on the CPU", f"{where}.provider", expected=CPU, found=str(provider)[:100])


def _list_graphs(variant: Variant) -> tuple[str, ...]:
    """Return the model where it is ONNX, and what a plan is built from on the device, with a recipe that can be read.

    Nothing but ONNX is built from: a plan in its place would be taken as it is, with a record of its own.
    """
    model = (variant.model,) if variant.model.endswith(_ONNX) else ()
    if variant.rebuild is None:
        return model
    graph = variant.rebuild.graph
    if not graph.endswith(_ONNX):
        raise corrupt("a plan is built from ONNX, and from nothing else", f"{variant.name}: {graph}")
    read_rebuild(variant.rebuild.options, f"{variant.name}: rebuild.options")
    return tuple(dict.fromkeys((*model, graph)))


def _check_model(folder: Path, variant: Variant) -> None:
    """Check that the runtime takes such a model, and a plan as far as that goes; graphs were checked."""
    where = f"{variant.name}: {variant.model}"
    suffix = PurePosixPath(variant.model).suffix
    if suffix == ".plan" and variant.runtime == "tensorrt":
        _check_plan(folder, variant, where)
    elif suffix != _ONNX:
        raise corrupt(f"{variant.runtime} runs no such model", where)


def _check_plan(folder: Path, variant: Variant, where: str) -> None:
    record_name = record_path(Path(variant.model)).as_posix()
    if record_name not in variant.files:
        raise corrupt("the plan has no record beside it", where)
    _check_plain(folder / record_name, f"{variant.name}: {record_name}", record_name)
    record = read_record(folder / variant.model)
    if record.plan_sha256 != variant.files[variant.model]:
        listed, found = variant.files[variant.model], record.plan_sha256[:100]
        raise mismatch("the record is of another plan", where, expected=listed, found=found)
    if (record.inputs, record.outputs) != (variant.inputs, variant.outputs):
        raise corrupt("the description does not tell the truth about the plan's inputs and outputs", where)


def _check_probe(folder: Path, variant: Variant, path: str) -> None:
    """Check that a probe's arrays are of the model's inputs or outputs."""
    where = f"{variant.name}: {path}"
    if not path.endswith(".safetensors"):
        raise corrupt("a probe is a .safetensors file", where)
    arrays = read_tensors(folder / path, where)
    specs = variant.inputs if path == variant.probe.inputs else variant.outputs
    found = {name: array.dtype.name for name, array in arrays.items()}
    expected = {spec.name: spec.dtype for spec in specs}
    if found != expected:
        raise mismatch("the probe is of another model", where, expected=expected, found=found)


def _check_shared(path: Path, name: str) -> None:
    where = f"shared: {name}"
    _refuse_pickle(path, where)
    if name == _TOKENIZER:
        check_tokenizer(path, where)
    else:
        _check_plain(path, where, name)


def _check_plain(path: Path, where: str, name: str) -> None:
    """Check a file that only people and parsers read."""
    suffix = PurePosixPath(name).suffix
    size = path.stat().st_size
    if suffix == ".json":
        if size > MAX_JSON_BYTES:
            raise corrupt(f"JSON of more than {MAX_JSON_BYTES:,} bytes", where)
        load_json(path.read_bytes(), where, large_integers=True)
    elif suffix in _TEXTS:
        if size > MAX_TEXT_BYTES:
            raise corrupt(f"a text of more than {MAX_TEXT_BYTES:,} bytes", where)
        _check_text(path.read_bytes(), where)
    else:
        raise corrupt("a bundle holds no files of this kind", where)


def _check_text(data: bytes, where: str) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise corrupt(f"not a text: {error}", where) from error
    if "\0" in text:
        raise corrupt("not a text", where)


def _refuse_pickle(path: Path, where: str) -> None:
    """Refuse a pickle under any name; weights that begin like one by chance do not go on like one."""
    with path.open("rb") as stream:
        head = stream.read(max(map(len, _HOLDERS)))
    if head.startswith(_HOLDERS) or holds_pickle(path):
        raise corrupt("pickles, and what holds them or reads like one, are refused", where)
