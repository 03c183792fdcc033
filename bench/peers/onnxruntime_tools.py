"""ONNX Runtime's own quantisers, with the settings its documentation gives for Transformers.

In: a float ONNX model, feeds to calibrate with. Out: quantised ONNX files.
``python -m bench.peers.onnxruntime_tools MODEL TOKENIZER TEXTS COUNT METHOD`` calibrates alone, timed from outside.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.subjects.texts import Feeds, encode_texts, open_tokenizer

if TYPE_CHECKING:
    from onnxruntime.quantization import CalibrationMethod

Method = Literal["minmax", "percentile"]
_SEQUENCE = 128


def quantize_dynamic(model: Path, out: Path) -> None:
    """``quantize_dynamic``, per channel, 7-bit weights (exact on CPUs without VNNI)."""
    from onnxruntime import quantization

    with quiet_quantisers():
        quantization.quantize_dynamic(model, out, per_channel=True, reduce_range=True)


def quantize_static(
    model: Path, out: Path, batches: Sequence[Feeds], *, activations: Literal["u8", "s8"], linears_only: bool = False
) -> None:
    """``quantize_static`` to Q/DQ, min-max, per-channel weights; its default placement, or the linears alone.

    The default quantises every Add, Softmax and attention product; the linears alone, with no output quantised, is the
    best that its options reach on a Transformer.
    """
    _quantize_static(model, out, batches, activations=activations, linears_only=linears_only)


def quantize_for_tensorrt(
    model: Path, out: Path, batches: Sequence[Feeds], *, linears_only: bool, method: Method = "minmax"
) -> None:
    """The same as TensorRT takes it: symmetric int8 activations (zero point 0) and a float bias.

    Its percentile keeps every tensor of every sample, and needs samples of one length.
    """
    legal = {"ActivationSymmetric": True, "QuantizeBias": False}
    _quantize_static(
        model, out, batches, activations="s8", linears_only=linears_only, method=method, extra_options=legal
    )


def _quantize_static(
    model: Path,
    out: Path,
    batches: Sequence[Feeds],
    *,
    activations: Literal["u8", "s8"],
    linears_only: bool,
    method: Method = "minmax",
    extra_options: Mapping[str, object] | None = None,
) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization import QuantFormat, QuantType

    # Quantising what a linear gives costs accuracy and saves nothing: the next operator is in float.
    placement = {"OpTypesToExcludeOutputQuantization": ["MatMul"]} if linears_only else {}
    with quiet_quantisers():
        quantization.quantize_static(
            model,
            out,
            Reader(batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8 if activations == "u8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_find_method(method),
            per_channel=True,
            op_types_to_quantize=["MatMul"] if linears_only else None,
            nodes_to_quantize=_find_linears(model) if linears_only else None,
            extra_options={**placement, **(extra_options or {})},
        )


def _find_method(name: str) -> CalibrationMethod:
    from onnxruntime.quantization import CalibrationMethod

    # Its entropy method ends in an error on a graph with an attention mask (numpy: too many bins for data range).
    return {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}[name]


def _find_linears(model: Path) -> list[str]:
    """Name the products with a constant weight; ``MatMulConstBOnly`` is not heeded for Q/DQ (onnxruntime 1.31)."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]


def calibrate(model: Path, batches: Sequence[Feeds], method: str) -> int:
    """Calibrate as ``quantize_static`` does and return how many tensors got a range."""
    from onnxruntime.quantization.calibrate import create_calibrator

    augmented = model.with_name(f"{model.stem}.{method}.augmented.onnx")
    with quiet_quantisers():
        calibrator = create_calibrator(
            model, None, augmented_model_path=str(augmented), calibrate_method=_find_method(method)
        )
        try:
            calibrator.collect_data(Reader(batches))
            return len(calibrator.compute_data().data)
        finally:
            augmented.unlink(missing_ok=True)


class Reader:
    """What ONNX Runtime's quantisers take: feeds one by one, then None."""

    def __init__(self, batches: Sequence[Feeds]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feeds | None:
        """Return the next feeds, or None after the last."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[Feeds]:
        return self._batches


@contextmanager
def quiet_quantisers() -> Iterator[None]:
    """Its quantisers warn on the root logger about steps that do not apply here, and its percentile prints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)


def main(arguments: Sequence[str]) -> int:
    """Calibrate once; see the module."""
    model, tokenizer_file, texts_file, count, method = arguments
    tokenizer = open_tokenizer(Path(tokenizer_file), max_length=_SEQUENCE)
    # Its percentile stacks every sample of a tensor into one array: all texts need one length.
    tokenizer.enable_padding(length=_SEQUENCE)
    texts = Path(texts_file).read_text(encoding="utf-8").splitlines()[: int(count)]
    tensors = calibrate(Path(model), [encode_texts(tokenizer, [text]) for text in texts], method)
    sys.stdout.write(f"{tensors}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
