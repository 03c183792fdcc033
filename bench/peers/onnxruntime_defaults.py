"""What ONNX Runtime's tools make of a float model when nobody asks for anything, and what optimum asks of them.

In: a float ONNX model, feeds to calibrate with. Out: quantised ONNX files, as a lint meets them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bench.peers.onnxruntime_tools import Reader, quiet_quantisers
from bench.peers.stepdown_cli import run_measured
from bench.subjects.texts import Feeds
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx

Preset = Literal["default", "u8s8", "percentile", "operators", "optimum-tensorrt"]

# Its module puts a folder of its own on sys.path when it is imported: in a process of its own, therefore.
_NARROW = """
import sys
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
onnx.save(convert_float_to_float16(onnx.load(sys.argv[1])), sys.argv[2])
"""


def quantise_dynamic(model: Path, out: Path) -> None:
    """``quantize_dynamic(model, out)``."""
    from onnxruntime import quantization

    with quiet_quantisers():
        quantization.quantize_dynamic(model, out)


def quantise_like_optimum(model: Path, out: Path) -> None:
    """What optimum's ``AutoQuantizationConfig.avx512_vnni(is_static=False)`` asks for: per channel, all operators."""
    from onnxruntime import quantization
    from onnxruntime.quantization import QuantType

    with quiet_quantisers():
        quantization.quantize_dynamic(
            model,
            out,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )


def quantise_static(model: Path, out: Path, batches: Sequence[Feeds], preset: Preset) -> None:
    """``quantize_static`` by preset.

    Args:
        model: The float model.
        out: Where the result goes.
        batches: To calibrate with, one after the other; of one length for ``percentile``.
        preset: ``default``: nothing but the reader. ``u8s8``: as documented for x86 with VNNI. ``percentile``:
            symmetric int8 per channel, the 99.999th percentile. ``operators``: the QOperator format.
            ``optimum-tensorrt``: what optimum's ``AutoQuantizationConfig.tensorrt()`` asks for.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

    settings: dict[Preset, dict[str, object]] = {
        "default": {},
        "u8s8": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True},
        "percentile": {
            "calibrate_method": CalibrationMethod.Percentile,
            "per_channel": True,
            "extra_options": {"ActivationSymmetric": True},
        },
        "operators": {"quant_format": QuantFormat.QOperator},
        "optimum-tensorrt": {
            "per_channel": True,
            "extra_options": {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "AddQDQPairToWeight": True,
                "DedicatedQDQPair": True,
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
            },
        },
    }
    with quiet_quantisers():
        quantization.quantize_static(model, out, Reader(batches), **settings[preset])


def quantise_4_bit(model: Path, out: Path) -> None:
    """``MatMulNBitsQuantizer`` with its defaults: 4 bits in blocks of 128, not symmetric."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with quiet_quantisers():
        quantiser = MatMulNBitsQuantizer(onnx.load(model))
        quantiser.process()
        quantiser.model.save_model_to_file(str(out))


def narrow_floats(model: Path, out: Path) -> None:
    """``onnxruntime.transformers.float16``, with its defaults, on a model that is quantised already."""
    run_measured([sys.executable, "-c", _NARROW, str(model), str(out)])


def optimise(model: Path, out: Path) -> None:
    """The graph that ONNX Runtime really runs, saved."""
    OnnxRuntime(OrtOptions(optimized=out)).open(describe_onnx(model)).close()
