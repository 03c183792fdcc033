"""A bundle whose models run: the classifier of tests.cli.tiny_artifact, in as many variants as a test asks for."""

import hashlib

import numpy as np
from safetensors.numpy import save

from runtimes.bundle.archive_writer import write_archive
from runtimes.bundle.description import BundleDescription, Probe, Rebuild, Requirements, Variant
from runtimes.isa import detect
from runtimes.ort import describe_onnx
from runtimes.parity import Tolerance
from tests.cli.tiny_artifact import write_artifact

# What the classifier answers to "good bad"; any other model here answers zeros to zeros.
_ANSWERS = {"input_ids": np.array([[2, 3]], np.int64), "logits": np.array([[4.0, 4.0]], np.float32)}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def make_probe(described):
    sides = {"inputs": described.inputs, "outputs": described.outputs}
    return {
        f"probe/{side}.safetensors": save({spec.name: make_array(spec) for spec in specs})
        for side, specs in sides.items()
    }


def make_array(spec):
    zeros = np.zeros([axis if isinstance(axis, int) else 2 for axis in spec.shape], spec.dtype)
    return _ANSWERS.get(spec.name, zeros)


class Maker:
    """Collects files as blobs and variants that use them."""

    def __init__(self, folder):
        self.folder = write_artifact(folder / "exported")
        self.blobs = {}

    def keep(self, files):
        named = {path: sha256(data) for path, data in files.items()}
        self.blobs |= {sha256(data): data for data in files.values()}
        return named

    def variant(
        self, name="cpu", *, model=None, files=None, runtime="onnxruntime", rebuild=None, artifact=None, **needs
    ):
        """A variant of the classifier, or of another model; ``needs`` replaces requirements."""
        path = model or self.folder / "onnxruntime" / "model.onnx"
        described = describe_onnx(path)
        specs = {
            side: [
                {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in getattr(described, side)
            ]
            for side in ("inputs", "outputs")
        }
        requires = {
            "arch": detect().arch, "isa": None, "onnxruntime": ">=1.17" if runtime == "onnxruntime" else None,
            "memory_bytes": 1 << 20, "sm": None, "tensorrt": None,
        }  # fmt: skip
        plan = next((name for name in files or () if name.endswith(".plan")), None)
        graph = {"model.onnx": path.read_bytes()} if plan is None or rebuild is not None else {}
        held = {**graph, **(files or {}), **make_probe(described)}
        return Variant(
            name=name,
            runtime=runtime,
            model=plan or "model.onnx",
            files=self.keep(held),
            artifact={
                **specs,
                "isa": "avx2" if runtime == "onnxruntime" else "sm89",
                "exact_on_any_cpu": True,
                "kind": "onnx",
                **(artifact or {}),
            },
            device={"name": name, "tensorrt_library": "tensorrt"},
            requires=Requirements(**{**requires, **needs}),
            rebuild=Rebuild(graph="model.onnx", options=rebuild) if rebuild is not None else None,
            probe=Probe(
                inputs="probe/inputs.safetensors",
                outputs="probe/outputs.safetensors",
                tolerance=Tolerance(atol=1e-4, rtol=1e-4, reason="the same arithmetic"),
                made_with={},
            ),
        )

    def describe(self, *variants, **changes):
        shared = {name: (self.folder / name).read_bytes() for name in ("tokenizer.json", "config.json")}
        parts = {
            "name": "reviews", "version": None, "tool": {"stepdown": "0.1.0"}, "task": "text-classification",
            "labels": ("negative", "positive"), "max_length": 16, "files": self.keep(shared),
            "variants": variants or (self.variant(),), "policy": ("plan", "rebuild", "cpu"), "provenance": {},
            "licence": "Apache-2.0", "blobs": {},
        }  # fmt: skip
        described = BundleDescription(**{**parts, **changes})
        used = set(described.placed_files().values())
        return BundleDescription(
            **{**parts, **changes, "blobs": {name: len(data) for name, data in self.blobs.items() if name in used}}
        )

    def write(self, path, *variants, signatures=None, **changes):
        """Write an archive and return its path."""
        description = self.describe(*variants, **changes)
        write_archive(path, description, {name: self.blobs[name] for name in description.blobs}, signatures)
        return path
