"""Recordings as a bench run leaves them, made of seeded random numbers: no machine is needed to draw them."""

from datetime import UTC, datetime, timedelta

import numpy as np

from bench.gating.verdict import FigureVerdict, GateResult, ShapeVerdict
from bench.recordings.recording import (
    Accuracy,
    Conditions,
    Figures,
    OpTime,
    Recording,
    SubjectRecord,
    Throughput,
    Timing,
)

SHAPES = {"1x16": 1.6e6, "1x128": 5.2e6, "8x128": 31e6}
SPEEDS = {"fp32": 1.0, "int8-static": 2.4, "int8-dynamic": 2.05, "torch-eager": 0.78}
PARTS = {
    "attention.self.query": 0.13,
    "attention.self.key": 0.13,
    "attention.self.value": 0.12,
    "attention.self": 0.08,
    "attention.output.dense": 0.12,
    "attention.output.LayerNorm": 0.02,
    "intermediate.dense": 0.2,
    "output.dense": 0.18,
    "output.LayerNorm": 0.02,
}
MACHINE = {
    "cpu": "Intel(R) Xeon(R) Processor @ 2.10GHz",
    "cores": 2,
    "arch": "x86_64",
    "isa": "avx512_vnni",
    "features": ["amx_int8", "amx_tile", "avx2", "avx512_vnni", "avx512f", "avx_vnni", "fma"],
    "governor": None,
    "load": 0.31,
    "memory_bytes": 16_500_000_000,
    "system": "Linux 6.1.0",
    "threads": 2,
    "versions": {"python": "3.11.2", "numpy": "2.4.6", "onnxruntime": "1.31.1", "torch": "2.13.0"},
}


def make_blocks(rng, typical_ns, blocks=15, runs=20):
    """Blocks with a drift of their own, a skewed noise and a rare far-off run."""
    drift = np.exp(rng.normal(0, 0.012, (blocks, 1)))
    noise = np.exp(rng.gamma(1.5, 0.012, (blocks, runs)) + 0.5 * (rng.random((blocks, runs)) < 0.006))
    return tuple(tuple(int(ns) for ns in block) for block in typical_ns * drift * noise)


def make_ops(label, shape, typical_ns):
    matmul = "MatMul" if label == "fp32" else "MatMulIntegerToFloat"
    layers = [
        OpTime(
            shape=shape,
            op="LayerNormalization" if "LayerNorm" in part else "Softmax" if part == "attention.self" else matmul,
            name=f"/encoder/layer.{layer}/{part}",
            module=f"encoder.layer.{layer}.{part}",
            ns=int(typical_ns * share / 6 * (0.97 + 0.01 * layer)),
        )
        for layer in range(6)
        for part, share in PARTS.items()
    ]
    ends = [("Gather", "embeddings.word_embeddings", 0.02), ("Gemm", "pooler.dense", 0.01), ("Reshape", "", 0.01)]
    return layers + [
        OpTime(shape=shape, op=op, name=op, module=module, ns=int(typical_ns * share)) for op, module, share in ends
    ]


def make_subject(label, *, with_ops=True):
    speed = SPEEDS[label]
    throughput = [
        Throughput(shape=shape, streams=streams, runs=int(2e9 / ns * speed * (1, 1.6)[streams // 2]), ns=2_000_000_000)
        for shape, ns in SHAPES.items()
        for streams in (1, 2)
    ]
    ops = [op for shape, ns in SHAPES.items() for op in make_ops(label, shape, ns / speed)]
    small = label.startswith("int8")
    return SubjectRecord(
        label=label,
        runtime="torch" if label == "torch-eager" else "onnxruntime",
        device="cpu",
        model=f"out/{label}/model.onnx",
        artifact_sha256="ab" * 32,
        figures=Figures(
            size_bytes={"fp32": 90_900_000, "int8-static": 23_100_000, "int8-dynamic": 23_400_000}.get(
                label, 90_700_000
            ),
            nodes=None if label == "torch-eager" else 312 if small else 201,
            parameters=22_713_216,
            load_memory_bytes=60_000_000 if small else 180_000_000,
            peak_memory_bytes=140_000_000 if small else 320_000_000,
            load_ns=(61_000_000, 58_000_000, 66_000_000),
        ),
        accuracy=Accuracy(
            metric="spearman",
            value={"fp32": 0.7289, "int8-static": 0.7256, "int8-dynamic": 0.7275}.get(label, 0.7289),
            samples=353,
        ),
        throughput=tuple(throughput),
        ops=tuple(ops) if with_ops and label != "torch-eager" else (),
    )


def make_recording(*, seed=0, factor=1.0, number=30, labels=tuple(SPEEDS), with_ops=True, **changes) -> Recording:
    """One run of four subjects at three shapes; ``factor`` slows every subject but the reference."""
    rng = np.random.default_rng(seed)
    timings = tuple(
        Timing(
            label=label,
            shape=shape,
            ns=make_blocks(rng, ns / SPEEDS[label] * (1 if label == "fp32" else factor)),
            warmup_ns=(int(ns * 3), int(ns)),
        )
        for shape, ns in SHAPES.items()
        for label in labels
    )
    parts = {
        "run": f"{seed:032x}",
        "started": (datetime(2026, 11, 1, 1, 38, tzinfo=UTC) + timedelta(hours=17 * number)).isoformat(),
        "commit": f"{(seed + 7) * 2654435761 % 2**32:08x}" * 5,
        "machine": MACHINE,
        "conditions": Conditions(probe_gflops=(306.2, 301.8), steal_share=0.004, busy_share=0.021),
        "plan": {"blocks": 15, "block_seconds": 0.25, "pause_s": 0.03, "threads": 2, "shapes": list(SHAPES)},
        "subjects": tuple(make_subject(label, with_ops=with_ops) for label in labels),
        "timings": timings,
    }
    return Recording(**(parts | changes))


def make_history(runs=30, step_at=19, slowdown=1.12) -> tuple[Recording, ...]:
    """Runs of which those from ``step_at`` on are slower."""
    return tuple(
        make_recording(seed=number + 100, number=number, factor=slowdown if number >= step_at else 1.0, with_ops=False)
        for number in range(runs)
    )


def make_gate(verdict="slower") -> GateResult:
    """A gate's answer over two shapes, with one figure that grew."""
    shapes = (
        ShapeVerdict(
            shape="1x128", verdict=verdict, ratio=0.91, low=0.89, high=0.93, rounds=30, base_ns=5.2e6, head_ns=5.71e6
        ),
        ShapeVerdict(
            shape="8x128", verdict="same", ratio=0.992, low=0.981, high=1.004, rounds=30, base_ns=31e6, head_ns=31.2e6
        ),
    )
    figures = (
        FigureVerdict(name="size_bytes", base=23_100_000, head=23_100_000, change=0.0, allowed=0.0, ok=True),
        FigureVerdict(name="nodes", base=312, head=318, change=0.0192, allowed=0.0, ok=False),
    )
    return GateResult(
        base="main",
        head="branch",
        verdict=verdict,
        max_regression=0.05,
        confidence=0.99,
        interleaved=True,
        shapes=shapes,
        figures=figures,
        notes=("Measured on 2 shapes: give --shape to measure others.",),
    )
