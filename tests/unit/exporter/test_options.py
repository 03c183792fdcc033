from pathlib import Path

import pytest

from exporter.options import ExportOptions, check_options
from runtimes.errors import UsageError


def _options(**changes):
    return ExportOptions(model="model", output=Path("out"), **changes)


def test_defaults_are_fine():
    check_options(_options())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int"}, r"'int' is not known.*\n.*choose one of auto, fp32"),
        ({"precision": "int8-statc"}, "did you mean 'int8-static'"),
        ({"method": "kl"}, "minmax, percentile, entropy, mse"),
        ({"targets": ("onnxruntim",)}, "did you mean 'onnxruntime'"),
        ({"max_drop": 1.0}, "makes no sense"),
        ({"max_drop": -0.1}, "makes no sense"),
        ({"calibration_samples": 0}, "start at 1"),
        ({"precision": "int8-static"}, "static INT8 needs calibration data"),
        ({"cache_precision": "int4"}, "choose one of fp32, int8"),
        ({"cache_precision": "fp16"}, "no kernel on CPUs"),
        ({"cache_precision": "int8"}, "pass --calibration-data"),
        ({"cache_precision": "int8", "calibration_data": "a.txt", "statistics": "s"}, "no file of statistics"),
        ({"cache_precision": "int8", "calibration_data": "a.txt", "targets": ("tensorrt",)}, "type of the rest"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_the_cure(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        check_options(_options(**changes))
    assert caught.value.exit_code == 2


def test_a_cache_of_int8_goes_with_any_precision_of_weights():
    check_options(_options(cache_precision="int8", calibration_data="a.txt", precision="weights-4"))
