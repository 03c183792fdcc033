"""What the words of a subject mean."""

import json
import os
from dataclasses import replace

import pytest

from exporter.measuring.subjects import SubjectOptions, resolve_subjects
from runtimes.artifact import hash_file, read_manifest, record_files, write_manifest
from runtimes.errors import CorruptArtifact, UnsupportedModel, UsageError
from runtimes.trt.record import write_record
from tests.cli.tiny_artifact import write_artifact, write_classifier
from tests.unit.runtimes.trt.plans import make_record

PLAIN = SubjectOptions()


def resolve(*words, options=PLAIN):
    return resolve_subjects([str(word) for word in words], options)


@pytest.fixture
def exported(tmp_path):
    return write_artifact(tmp_path / "reviews")


@pytest.fixture
def onnx(tmp_path):
    write_classifier(tmp_path / "counter.onnx")
    return tmp_path / "counter.onnx"


@pytest.fixture
def checkpoint(tmp_path):
    """As much of a checkpoint as is looked at before it is opened."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    save_file({"w": np.zeros(2, np.float32)}, folder / "model.safetensors")
    return folder


def add_plan(directory, *, alone=False, **entry):
    """Put a plan into an exported directory, beside the other model or in its place; return it."""
    plan = directory / "tensorrt" / "model.sm80_89_120.plan"
    plan.parent.mkdir()
    plan.write_bytes(b"a plan")
    write_record(plan, make_record(plan_sha256=hash_file(plan)))
    manifest = read_manifest(directory)
    artifacts = {"tensorrt": {"path": "tensorrt/model.sm80_89_120.plan", **entry}}
    if not alone:
        artifacts |= manifest.artifacts
    write_manifest(directory, replace(manifest, artifacts=artifacts, files=record_files(directory)))
    return plan


def test_a_plan_beside_another_model_is_asked_for_by_its_runtime(exported):
    plan = add_plan(exported)
    cpu, gpu = resolve(exported, f"tensorrt:{exported}")
    assert (cpu.spec.runtime, cpu.spec.kind, cpu.spec.label) == ("onnxruntime", "onnx", "reviews onnxruntime@cpu")
    assert (gpu.spec.model, gpu.spec.kind, gpu.spec.device) == (plan, "plan", "cuda")
    assert (gpu.spec.label, gpu.directory, gpu.task) == ("reviews tensorrt@cuda", exported, "text-classification")


def test_a_plan_that_is_alone_needs_no_word(exported):
    plan = add_plan(exported, alone=True)
    (one,) = resolve(exported, options=SubjectOptions(device_inputs=True))
    assert (one.spec.model, one.spec.runtime, one.spec.device_inputs) == (plan, "tensorrt", True)


def test_a_plan_by_its_path_is_called_after_its_folder(exported):
    plan = add_plan(exported)
    (one,) = resolve(plan)
    assert (one.spec.label, one.spec.runtime, one.spec.device) == ("reviews", "tensorrt", "cuda")


def test_what_ships_for_tensorrt_may_be_a_model_for_onnxruntime(exported):
    add_plan(exported, alone=True, path="onnxruntime/model.onnx", provider="CUDAExecutionProvider")
    (one,) = resolve(exported)
    assert (one.spec.runtime, one.spec.device, one.spec.kind) == ("onnxruntime", "cuda", "onnx")
    with pytest.raises(UsageError, match=r"tensorrt does not run model\.onnx(.|\n)*make a plan"):
        resolve(f"tensorrt:{exported}")


@pytest.mark.parametrize(("path", "cure"), [(None, "--target tensorrt"), ("tensorrt/model.onnx", "--lower-only")])
def test_a_directory_without_a_plan_says_how_to_make_one(exported, path, cure):
    if path is not None:
        add_plan(exported, path=path)
    with pytest.raises(CorruptArtifact, match=cure):
        resolve(f"tensorrt:{exported}")


def test_a_plan_that_is_not_the_one_of_its_record_is_refused(exported):
    plan = add_plan(exported)
    plan.write_bytes(b"other")
    for word in (plan, f"tensorrt:{exported}"):
        with pytest.raises(CorruptArtifact, match="not the one"):
            resolve(word)


def test_an_exported_directory_is_its_model_on_the_provider_it_was_measured_on(exported):
    (one,) = resolve(exported)
    assert one.spec.model == exported / "onnxruntime" / "model.onnx"
    assert (one.spec.label, one.spec.runtime, one.spec.device, one.spec.kind) == (
        "reviews", "onnxruntime", "cpu", "onnx",
    )  # fmt: skip
    assert (one.directory, one.task) == (exported, "text-classification")


def test_label_runtime_and_device_are_taken_from_the_words(onnx):
    (one,) = resolve(f"ours=onnxruntime@cuda:{onnx}")
    assert (one.spec.label, one.spec.device, one.spec.model) == ("ours", "cuda", onnx)
    (one,) = resolve(f"our best={onnx}")
    assert (one.spec.label, one.spec.device) == ("our best", "cpu")


def test_a_checkpoint_runs_in_pytorch_unless_compiled(checkpoint):
    eager, compiled, gpu = resolve(checkpoint, f"torch-compile:{checkpoint}", f"torch@cuda:{checkpoint}")
    assert [one.spec.label for one in (eager, compiled, gpu)] == [
        "bert torch@cpu", "bert torch-compile@cpu", "bert torch@cuda",
    ]  # fmt: skip
    assert (eager.spec.kind, eager.task) == ("huggingface", "feature-extraction")


def test_the_same_model_twice_is_numbered(exported, onnx):
    assert [one.spec.label for one in resolve(exported, exported, onnx)] == ["reviews #1", "reviews #2", "counter"]


def test_a_model_in_a_plainly_named_file_is_called_after_its_folder(exported):
    assert resolve(exported / "onnxruntime" / "model.onnx")[0].spec.label == "reviews"


def test_a_path_that_is_there_is_a_path_whatever_signs_it_holds(tmp_path):
    folder = tmp_path / "a=b"
    folder.mkdir()
    write_classifier(folder / "x:y.onnx")
    (one,) = resolve(folder / "x:y.onnx")
    assert (one.spec.label, one.spec.model) == ("x:y", folder / "x:y.onnx")


def test_options_reach_every_subject_and_inputs_stay_on_gpus_alone(onnx):
    options = SubjectOptions(threads=1, affinity=tuple(sorted(os.sched_getaffinity(0)))[:1], device_inputs=True)
    cpu, gpu = resolve(f"onnxruntime@cpu:{onnx}", f"onnxruntime@cuda:{onnx}", options=options)
    assert {cpu.spec.threads, gpu.spec.threads} == {1}
    assert cpu.spec.affinity == options.affinity
    assert (cpu.spec.device_inputs, gpu.spec.device_inputs) == (False, True)


@pytest.mark.parametrize(
    ("word", "said", "cure"),
    [
        ("nowhere.onnx", "no such model", "RUNTIME"),
        ("a=nowhere.onnx", "no such model", "RUNTIME"),
        ("", "no such model", "RUNTIME"),
        ("tensorflow:{onnx}", "unknown runtime 'tensorflow'", "torch-compile"),
        ("torch:{onnx}", "torch does not run counter.onnx", "checkpoint"),
        ("onnxruntime:{checkpoint}", "onnxruntime does not run bert", "stepdown export"),
        ("torch@tensorrt:{checkpoint}", "PyTorch does not run on 'tensorrt'", "torch@cpu"),
        ("torch-csr:{onnx}", "torch-csr does not run counter.onnx", "checkpoint"),
        ("torch-semi-structured:{checkpoint}", "PyTorch does not run on 'cpu'", "torch-semi-structured@cuda"),
        ("torch-semi-structured-int8@cpu:{checkpoint}", "not run on 'cpu'", "torch-semi-structured-int8@cuda"),
        ("tensorrt@cpu:{plan}", "TensorRT does not run on 'cpu'", "tensorrt@cuda"),
        ("tensorrt:{onnx}", "tensorrt does not run counter.onnx", "--target tensorrt"),
        ("onnxruntime:{plan}", "onnxruntime does not run model.sm80_89_120.plan", "ONNX file it was built from"),
        ("torch:{plan}", "torch does not run model.sm80_89_120.plan", "checkpoint it was made from"),
    ],
)
def test_words_that_mean_nothing_say_what_to_write(word, said, cure, onnx, checkpoint, exported):
    with pytest.raises(UsageError, match=said) as caught:
        resolve(word.format(onnx=onnx, checkpoint=checkpoint, plan=add_plan(exported)))
    assert cure in caught.value.cure
    assert caught.value.exit_code == 2


def test_equal_labels_are_refused(onnx, exported):
    with pytest.raises(UsageError, match="two subjects are called 'a'"):
        resolve(f"a={onnx}", f"a={exported}")


def test_processors_that_are_not_there_are_refused(onnx):
    with pytest.raises(UsageError, match="no processors 4096"):
        resolve(onnx, options=SubjectOptions(affinity=(4096,)))


def test_device_inputs_without_a_gpu_are_refused(onnx):
    with pytest.raises(UsageError, match="no subject runs on one"):
        resolve(onnx, options=SubjectOptions(device_inputs=True))


def test_a_changed_export_is_refused(exported):
    (exported / "onnxruntime" / "model.onnx").write_bytes(b"other")
    with pytest.raises(CorruptArtifact, match="not the one that was exported"):
        resolve(exported)


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UnsupportedModel, match="pickle"):
        resolve(tmp_path / "model.bin")
