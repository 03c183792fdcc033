"""What a bundle says of itself: ``bundle.json``, schema 1, as frozen data and back.

In: bytes that nobody vouches for. Out: a :class:`BundleDescription` that holds together: known fields only, of the
right types and ranges, paths that stay inside, every file among the listed blobs and every blob used. Whether it tells
the truth about its files is judged elsewhere. Must not import a runtime, nor anything outside ``runtimes``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from runtimes.artifact import TensorSpec
from runtimes.bundle.names import NAME, SHA256, check_distinct, check_path
from runtimes.bundle.strict_json import Fields, corrupt, dump_json, load_json, read_choice, read_text, read_texts
from runtimes.errors import CorruptArtifact
from runtimes.generation.layout import CONFIG_NAME, GENAI_PACKAGE
from runtimes.isa import LEVELS
from runtimes.parity import Tolerance

DESCRIPTION_NAME = "bundle.json"
BUNDLE_SCHEMA = 1

RuntimeName = Literal["onnxruntime", "tensorrt"]
FallbackStep = Literal["plan", "rebuild", "cpu"]

_RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
_STEPS: tuple[FallbackStep, ...] = get_args(FallbackStep)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+ -]{0,99}")
_AT_LEAST = re.compile(r">=\d{1,9}(?:\.\d{1,9}){0,3}")
_VERSION = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,3}")
_SM = re.compile(r"\d{2,3}")
_MAX_BYTES = 1 << 50
_MAX_AXIS = 1 << 31
_MAX_TOKENS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a machine must have for a variant.

    Attributes:
        arch: As Linux names it (``x86_64``, ``aarch64``).
        isa: The level whose integer arithmetic gives the variant's answers (:mod:`runtimes.isa`); None: any.
        onnxruntime: The oldest that does (``>=1.24``); None where ONNX Runtime does not run it.
        memory_bytes: What must be there to load and run it.
        sm: The GPU's compute capability without the dot (``89``), for a TensorRT plan.
        tensorrt: The library's version that made the plan.
    """

    arch: str
    isa: str | None
    onnxruntime: str | None
    memory_bytes: int
    sm: str | None
    tensorrt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """From what a TensorRT plan is built again on the device: a graph among the variant's files, and options."""

    graph: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Inputs and the outputs they gave, two safetensors among the variant's files, and what may differ."""

    inputs: str
    outputs: str
    tolerance: Tolerance
    made_with: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One form of the model for one kind of machine.

    Attributes:
        name: Its folder in an installed bundle.
        runtime: What runs it.
        model: The model file, one of ``files``.
        files: Path to sha256.
        artifact: What the export's manifest says of it; ``inputs`` and ``outputs`` are lists of name, dtype, shape.
        device: The profile it was checked against.
        requires: What a machine must have.
        rebuild: How to make the plan on the device; None where there is none.
        probe: How to tell that it answers right.
    """

    name: str
    runtime: RuntimeName
    model: str
    files: Mapping[str, str]
    artifact: Mapping[str, Any]
    device: Mapping[str, Any]
    requires: Requirements
    rebuild: Rebuild | None
    probe: Probe

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What must be fed, as the description says."""
        return _read_specs(self.artifact, "inputs", self.name)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What comes back, as the description says."""
        return _read_specs(self.artifact, "outputs", self.name)

    @property
    def generates(self) -> bool:
        """Whether it writes text, token by token."""
        return CONFIG_NAME in self.files

    @property
    def oldest_genai(self) -> str | None:
        """The oldest onnxruntime-genai that does (``>=0.18``); None where it does not generate."""
        return _read_genai(self.artifact, self.name) if self.generates else None

    @property
    def brings_plan(self) -> bool:
        """Whether TensorRT opens it as it comes; else it builds a plan of it first."""
        return self.model.endswith(".plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleDescription:
    """The whole of ``bundle.json``.

    Attributes:
        name: The folder it is installed to.
        version: Grows with each release where the packer counts; None where not.
        tool: Versions of what packed it, ``stepdown`` among them.
        task: What the model does; None where that is not known.
        labels: Names of the classes by index.
        max_length: Tokens kept of a text.
        blobs: sha256 to size in bytes: every blob of the archive.
        files: Path to sha256, of what all variants share.
        variants: First the one to try first.
        policy: What to fall back to, in order.
        provenance: Where it comes from, as the export's manifest says.
        licence: Of the source model, an SPDX expression or ``unknown``.
    """

    name: str
    version: int | None
    tool: Mapping[str, str]
    task: str | None
    labels: tuple[str, ...]
    max_length: int
    blobs: Mapping[str, int]
    files: Mapping[str, str]
    variants: tuple[Variant, ...]
    policy: tuple[FallbackStep, ...]
    provenance: Mapping[str, Any]
    licence: str
    schema: int = BUNDLE_SCHEMA

    def to_bytes(self) -> bytes:
        """Return ``bundle.json``; equal descriptions give equal bytes."""
        return dump_json(asdict(self))

    def placed_files(self) -> dict[str, str]:
        """Return where each file lies in an installed bundle, by its path, with its sha256."""
        placed = {f"shared/{path}": sha256 for path, sha256 in self.files.items()}
        for variant in self.variants:
            placed |= {f"variants/{variant.name}/{path}": sha256 for path, sha256 in variant.files.items()}
        return placed


def parse_written(data: bytes, where: str) -> BundleDescription:
    """Read ``bundle.json`` as :func:`parse_description` does, and refuse it in any form but that it is written in.

    What the same content is called by, and signed as, hangs on its bytes.
    """
    description = parse_description(data)
    if description.to_bytes() != data:
        raise corrupt("the description is not written as a bundle's is", where)
    return description


def parse_description(data: bytes) -> BundleDescription:
    """Read ``bundle.json``.

    Raises:
        CorruptArtifact: it is not JSON, of another schema, or anything in it does not hold together; ``where`` names
            the field.
    """
    fields = Fields(load_json(data, DESCRIPTION_NAME), DESCRIPTION_NAME)
    _check_schema(fields.integer("schema"))
    description = BundleDescription(
        name=fields.text("name", NAME),
        version=fields.optional("version", fields.integer),
        tool=fields.nested("tool", _read_tool),
        task=fields.optional("task", lambda key: fields.text(key, _WORD)),
        labels=fields.items("labels", read_text),
        max_length=fields.integer("max_length", 1, _MAX_TOKENS),
        blobs=fields.nested("blobs", _read_blobs),
        files=fields.nested("files", _read_files),
        variants=fields.items("variants", _read_variant),
        policy=fields.items("policy", read_choice(_STEPS)),
        provenance=fields.mapping("provenance"),
        licence=fields.text("licence", max_length=1000),
    )
    fields.close()
    _check_whole(description)
    return description


def _check_schema(schema: int) -> None:
    if schema != BUNDLE_SCHEMA:
        raise CorruptArtifact(
            f"bundle schema {schema}, this stepdown reads {BUNDLE_SCHEMA}",
            where=f"{DESCRIPTION_NAME}:schema",
            cure="install the stepdown that packed it, or pack it again with this one",
        )


def _check_whole(description: BundleDescription) -> None:
    """Check what no field shows alone."""
    if not description.variants:
        raise corrupt("there is no variant", f"{DESCRIPTION_NAME}:variants")
    check_distinct((variant.name for variant in description.variants), f"{DESCRIPTION_NAME}:variants")
    if not description.policy or len(set(description.policy)) != len(description.policy):
        raise corrupt("each step is named once, and there is one", f"{DESCRIPTION_NAME}:policy")
    used = description.placed_files()
    for path, sha256 in used.items():
        if sha256 not in description.blobs:
            raise corrupt(f"the blob {sha256} of {path} is not listed", f"{DESCRIPTION_NAME}:blobs")
    unused = sorted(set(description.blobs) - set(used.values()))
    if unused:
        raise corrupt(f"the blob {unused[0]} is no file's", f"{DESCRIPTION_NAME}:blobs")


def _read_tool(value: object, where: str) -> dict[str, str]:
    tool = read_texts(Fields(value, where).all(), where)
    if "stepdown" not in tool:
        raise corrupt("'stepdown' is missing", where)
    return tool


def _read_blobs(value: object, where: str) -> dict[str, int]:
    fields = Fields(value, where)
    names = fields.all()
    for name in names:
        if SHA256.fullmatch(name) is None:
            raise corrupt(f"{name[:80]!r} is no sha256", where)
    return {name: fields.integer(name, 0, _MAX_BYTES) for name in names}


def _read_files(value: object, where: str) -> dict[str, str]:
    fields = Fields(value, where)
    paths = fields.all()
    for path in paths:
        check_path(path, where)
    check_distinct(paths, where)
    return {path: fields.text(path, SHA256) for path in paths}


def _read_variant(value: object, where: str) -> Variant:
    fields = Fields(value, where)
    variant = Variant(
        name=fields.text("name", NAME),
        runtime=fields.nested("runtime", read_choice(_RUNTIMES)),
        model=fields.text("model"),
        files=fields.nested("files", _read_files),
        artifact=fields.mapping("artifact"),
        device=fields.mapping("device"),
        requires=fields.nested("requires", _read_requirements),
        rebuild=fields.optional("rebuild", lambda key: fields.nested(key, _read_rebuild)),
        probe=fields.nested("probe", _read_probe),
    )
    fields.close()
    for key in ("inputs", "outputs"):
        _read_specs(variant.artifact, key, where)
    if variant.generates:
        _read_genai(variant.artifact, where)
    named = {"model": variant.model, "probe.inputs": variant.probe.inputs, "probe.outputs": variant.probe.outputs}
    if variant.rebuild is not None:
        named["rebuild.graph"] = variant.rebuild.graph
    for field, path in named.items():
        if path not in variant.files:
            raise corrupt(f"{path[:80]!r} is not among the variant's files", f"{where}.{field}")
    return variant


def _read_requirements(value: object, where: str) -> Requirements:
    fields = Fields(value, where)
    requirements = Requirements(
        arch=fields.text("arch", _WORD),
        isa=fields.optional("isa", lambda key: fields.nested(key, _read_level)),
        onnxruntime=fields.optional("onnxruntime", lambda key: fields.text(key, _AT_LEAST)),
        memory_bytes=fields.integer("memory_bytes", 0, _MAX_BYTES),
        sm=fields.optional("sm", lambda key: fields.text(key, _SM)),
        tensorrt=fields.optional("tensorrt", lambda key: fields.text(key, _VERSION)),
    )
    fields.close()
    return requirements


def _read_level(value: object, where: str) -> str:
    if value not in LEVELS:
        raise corrupt(f"{value!r} is no instruction set known here"[:200], where)
    return str(value)


def _read_rebuild(value: object, where: str) -> Rebuild:
    fields = Fields(value, where)
    rebuild = Rebuild(graph=fields.text("graph"), options=fields.mapping("options"))
    fields.close()
    return rebuild


def _read_probe(value: object, where: str) -> Probe:
    fields = Fields(value, where)
    probe = Probe(
        inputs=fields.text("inputs"),
        outputs=fields.text("outputs"),
        tolerance=fields.nested("tolerance", _read_tolerance),
        made_with=fields.mapping("made_with"),
    )
    fields.close()
    return probe


def _read_tolerance(value: object, where: str) -> Tolerance:
    fields = Fields(value, where)
    # Bounds beyond which a comparison says nothing.
    tolerance = Tolerance(
        atol=fields.number("atol", 0.0, 1e6),
        rtol=fields.number("rtol", 0.0, 1.0),
        min_cosine=fields.optional("min_cosine", lambda key: fields.number(key, -1.0, 1.0)),
        reason=fields.text("reason"),
    )
    fields.close()
    return tolerance


def _read_genai(artifact: Mapping[str, Any], where: str) -> str:
    return Fields(Fields(artifact, f"{where}.artifact").mapping("requires"), f"{where}.artifact.requires").text(
        GENAI_PACKAGE, _AT_LEAST
    )


def _read_specs(artifact: Mapping[str, Any], key: str, where: str) -> tuple[TensorSpec, ...]:
    return Fields(artifact, f"{where}.artifact").items(key, _read_spec)


def _read_spec(value: object, where: str) -> TensorSpec:
    fields = Fields(value, where)
    spec = TensorSpec(
        name=fields.text("name"), dtype=fields.text("dtype", _WORD), shape=fields.items("shape", _read_axis)
    )
    fields.close()
    return spec


def _read_axis(value: object, where: str) -> int | str:
    if isinstance(value, str):
        return value
    if type(value) is int and 0 <= value < _MAX_AXIS:
        return value
    raise corrupt(f"{value!r} is neither a size nor a name"[:200], where)
