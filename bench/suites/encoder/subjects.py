"""Every subject of the encoder suite, built once and open.

In: the float model, calibration texts, an exported directory. Out: :class:`Subject` by key, in the table's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.peers import onnxruntime_tools
from bench.peers.build_once import Built, build_once
from bench.peers.openvino_session import open_openvino
from bench.subjects.texts import Feeds, select_feeds
from runtimes.artifact import hash_file, read_manifest
from runtimes.errors import CorruptArtifact
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.ort_providers import CPU
from runtimes.protocol import Session
from runtimes.torch_rt import TorchOptions, TorchRuntime

_SKIP_FUSION = ("SkipLayerNormFusion",)

TITLES: Mapping[str, str] = {
    "ort-fp32": "ONNX Runtime FP32, defaults",
    "ort-fp32-noskip": "the same, SkipLayerNormalization fusion off",
    "dynamic": "`quantize_dynamic`, per-channel, 7-bit weights",
    "dynamic-noskip": "the same, SkipLayerNormalization fusion off",
    "static-u8s8": "`quantize_static` u8s8, default placement, min-max",
    "static-s8s8": "`quantize_static` s8s8, default placement, min-max",
    "static-linears": "`quantize_static` u8s8, linears only, no output Q",
    "openvino-fp32": "OpenVINO FP32 (precision hint f32)",
    "openvino-default": "OpenVINO, its own choice of precision",
    "torch": "PyTorch eager FP32",
    "stepdown": "**stepdown, chosen artifact**",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An open model: what it weighs on disk, its hash, and how long its tool took to make it (None: nothing made)."""

    session: Session
    size_bytes: int
    sha256: str
    build_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What subjects are made of. ``exported`` is a directory that ``stepdown export`` wrote."""

    checkpoint: Path
    float_model: Path
    exported: Built
    batches: tuple[Feeds, ...]
    texts_sha256: str
    work: Path
    threads: int


def open_subject(key: str, given: Ingredients) -> Subject:
    """Build (once) and open one subject."""
    makers: Mapping[str, Callable[[], Subject]] = {
        "ort-fp32": lambda: _open_onnx(given.float_model, given),
        "ort-fp32-noskip": lambda: _open_onnx(given.float_model, given, disabled=_SKIP_FUSION),
        "dynamic": lambda: _open_built(_build_dynamic(given), given),
        "dynamic-noskip": lambda: _open_built(_build_dynamic(given), given, disabled=_SKIP_FUSION),
        "static-u8s8": lambda: _open_built(_build_static(given, "static-u8s8"), given),
        "static-s8s8": lambda: _open_built(_build_static(given, "static-s8s8"), given),
        "static-linears": lambda: _open_built(_build_static(given, "static-linears"), given),
        "openvino-fp32": lambda: _open_openvino(given, "f32"),
        "openvino-default": lambda: _open_openvino(given, None),
        "torch": lambda: _open_torch(given),
        "stepdown": lambda: _open_exported(given),
    }
    return makers[key]()


def _open_onnx(
    model: Path,
    given: Ingredients,
    *,
    disabled: tuple[str, ...] = (),
    provider: str = CPU,
    seconds: float | None = None,
) -> Subject:
    artifact = describe_onnx(model)
    options = OrtOptions(threads=given.threads, disabled_optimizers=disabled, providers=(provider,))
    return Subject(
        session=OnnxRuntime(options).open(artifact),
        size_bytes=artifact.size_bytes(),
        sha256=artifact.sha256,
        build_seconds=seconds,
    )


def _open_built(built: Built, given: Ingredients, *, disabled: tuple[str, ...] = ()) -> Subject:
    return _open_onnx(built.path, given, disabled=disabled, seconds=built.seconds)


def _build_dynamic(given: Ingredients) -> Built:
    return build_once(
        given.work,
        "dynamic",
        _list_dependencies(given),
        lambda out: onnxruntime_tools.quantize_dynamic(given.float_model, out),
    )


def _build_static(given: Ingredients, key: str) -> Built:
    def make(out: Path) -> None:
        inputs = describe_onnx(given.float_model).inputs
        onnxruntime_tools.quantize_static(
            given.float_model,
            out,
            [select_feeds(inputs, batch) for batch in given.batches],
            activations="s8" if key == "static-s8s8" else "u8",
            linears_only=key == "static-linears",
        )

    return build_once(given.work, key, {**_list_dependencies(given), "texts": given.texts_sha256}, make)


def _list_dependencies(given: Ingredients) -> dict[str, str]:
    return {"model": hash_file(given.float_model), "onnxruntime": version("onnxruntime")}


def _open_openvino(given: Ingredients, precision: str | None) -> Subject:
    artifact = describe_onnx(given.float_model)
    return Subject(
        session=open_openvino(given.float_model, threads=given.threads, precision=precision),
        size_bytes=artifact.size_bytes(),
        sha256=artifact.sha256,
        build_seconds=None,
    )


def _open_torch(given: Ingredients) -> Subject:
    weights = given.checkpoint / "model.safetensors"
    return Subject(
        session=TorchRuntime(TorchOptions(threads=given.threads)).open_checkpoint(given.checkpoint),
        size_bytes=weights.stat().st_size,
        sha256=hash_file(weights),
        build_seconds=None,
    )


def _open_exported(given: Ingredients) -> Subject:
    """Open the model that the manifest names, on the provider it names."""
    directory = given.exported.path
    described = read_manifest(directory).artifacts.get("onnxruntime", {})
    if not {"path", "provider"} <= described.keys():
        raise CorruptArtifact(
            "the manifest describes no ONNX Runtime model", where=str(directory), cure="export it again"
        )
    return _open_onnx(
        directory / described["path"], given, provider=described["provider"], seconds=given.exported.seconds
    )
