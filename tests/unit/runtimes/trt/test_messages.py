"""TensorRT's own words, as tensorrt_rtx 1.7.1 wrote them, and what is made of them."""

import pytest

from runtimes.trt.messages import MessageLog, find_cure, find_operation, read_complaints, shorten

NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA runtime "
    "version))"
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape inputs, but "
            "no optimization profile has been defined. In validate at /_src/optimizer/api/network.cpp:4023)",
            "Network has dynamic or shape inputs, but no optimization profile has been defined.",
        ),
        (
            "Assertion failed: (scaleAllPositive || allowNegativeScale): Scale coefficients must all be positive",
            "Scale coefficients must all be positive",
        ),
        (
            "Assertion failed: creator && getPluginCreatorVersion(creator) == CreatorVersion::kV3ONE: NonZero plugin "
            "creator version 1 was not found in plugin registry.",
            "NonZero plugin creator version 1 was not found in plugin registry.",
        ),
        (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check_turing_op_compatibility] "
            "Cannot compile operation 'n_l0v_mm' for Turing (SM75): FP32 GEMM is not supported. In compileGraph at "
            "/_src/optimizer/myelin/codeGenerator.cpp:2012)",
            "Cannot compile operation 'n_l0v_mm' for Turing (SM75): FP32 GEMM is not supported.",
        ),
        (
            "Invalid Node - bdq\nITensor::getDimensions: Error Code 4: API Usage Error (bdq: input has type Int32 but "
            "must have type FP8, FP4, Int4, Int8, or UInt8. In checkType at /_src/optimizer/common/nodeBase.cpp:456)\n"
            + NO_DRIVER,
            "bdq: input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8.",
        ),
        (
            "IBuilder::buildSerializedNetwork: Error Code 1: Cuda Runtime (In generateForCurrent at "
            "/_src/runtime/core/cudaDeviceProfile.cpp:221 (cudaError 35: CUDA driver version is insufficient for CUDA "
            "runtime version))",
            "CUDA driver version is insufficient for CUDA runtime version",
        ),
        ("", ""),
    ],
    ids=["profile", "scale", "plugin", "turing", "int32 bias", "driver", "nothing"],
)
def test_shorten_leaves_the_reason(theirs, ours):
    assert shorten(theirs) == ours


def test_a_missing_driver_is_said_only_where_it_is_all_there_is():
    log = MessageLog()
    log.add("ERROR", NO_DRIVER)
    assert log.first_error() == "CUDA driver version is insufficient for CUDA runtime version"
    log.add("ERROR", "IOptimizationProfile::isValid: Error Code 4: API Usage Error (MIN<=OPT<=MAX)")
    assert log.errors() == ("MIN<=OPT<=MAX",)


def test_the_operation_of_a_builder_error():
    assert find_operation("Cannot compile operation 'n_l0v_mm' for Turing") == "n_l0v_mm"
    assert find_operation("no profile") is None


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("Non-zero zero point is not supported.", "symmetrically"),
        ("Scale coefficients must all be positive", "positive, finite"),
        ("bdq: input has type Int32 but must have type Int8", "float bias"),
        ("Cannot compile operation 'x' for Turing (SM75)", "--sm"),
        ("TensorRT has no such operator", "without this operator"),
        ("`A` is of type Half: must have same input types", "one type"),
        ("no optimization profile has been defined", "--profile"),
        ("something new", "stepdown lint"),
    ],
)
def test_every_reason_has_a_cure(reason, cure):
    assert cure in find_cure(reason)


class Error:
    def __init__(self, desc, node=0, name="frob", operator="Frobnicate"):
        self._told = desc, node, name, operator

    def desc(self):
        return self._told[0]

    def node(self):
        return self._told[1]

    def node_name(self):
        return self._told[2]

    def node_operator(self):
        return self._told[3]


class Parser:
    def __init__(self, *errors):
        self._errors, self.num_errors = errors, len(errors)

    def get_error(self, number):
        return self._errors[number]


@pytest.mark.parametrize("desc", ["false", 'creator && "Plugin not found, are the plugin name and namespace correct?"'])
def test_an_unknown_operator_is_said_in_words(desc):
    (found,) = read_complaints(Parser(Error(desc)))
    assert (found.node, found.operator, found.reason) == ("frob", "Frobnicate", "TensorRT has no such operator")


def test_a_node_without_a_name_goes_by_its_number_and_a_file_by_none():
    numbered, whole = read_complaints(Parser(Error("x", 3, ""), Error("x", -1, "", "")))
    assert (numbered.node, whole.node) == ("node 3", "")
