"""Builds a plan: one ONNX file in, one plan and its record out, by what the library at hand can do.

In: a library, an ONNX file and :class:`~runtimes.trt.options.BuildOptions`. Out: files, written by way of a temporary
one. The same input gives the same plan with TensorRT-RTX, which times nothing; enterprise TensorRT times kernels, and
repeats only with a timing cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runtimes.artifact import Artifact, TensorSpec, hash_files
from runtimes.atomic import write_bytes
from runtimes.errors import CorruptArtifact, UnsupportedModel, UsageError
from runtimes.native_output import away_from_stdout
from runtimes.onnx_file import OnnxHeader, locate_external_data, read_header
from runtimes.trt.library import Library
from runtimes.trt.messages import MessageLog, Native, find_cure, find_operation, make_logger
from runtimes.trt.options import BuildOptions, Hardware
from runtimes.trt.parse import parse_model, refuse_long_file
from runtimes.trt.profiles import Ranges, fit_profiles, is_dynamic, resolve_profiles
from runtimes.trt.record import PlanRecord, describe_plan, verify_plan, why_rebuild, write_record
from runtimes.trt.targets import choose_sms


def build_plan(library: Library, model: Path, out: Path, options: BuildOptions) -> Artifact:
    """Build ``model`` into ``out``; a plan that is there and is what was asked for is kept.

    Raises:
        UsageError: an option that this library has not, or a profile that does not fit the model.
        MissingDependency: a GPU generation that it cannot build for.
        UnsupportedModel: the parser or the builder refuses the model, or its file has 2 GB or more.
        CorruptArtifact: the ONNX file is damaged.
        OutputError: ``out`` cannot be written.
    """
    refuse_long_file(model)
    header = read_header(model)
    wanted = _plan_build(library, model, header, options)
    out.parent.mkdir(parents=True, exist_ok=True)
    if why_rebuild(out, wanted) is None:
        return describe_plan(out, verify_plan(out))
    log = MessageLog()
    logger = make_logger(library.module, log)
    # A builder of its own for each plan: a second plan of one builder differs in bytes (tensorrt_rtx 1.7.1).
    builder = library.module.Builder(logger)
    with away_from_stdout():
        parsed = parse_model(library, builder, logger, log, model)
        config = _configure(library, builder, wanted, options, log)
        timings = _read_timings(library, config, options.timing_cache)
        plan = builder.build_serialized_network(parsed.network, config)
    if plan is None:
        raise _refuse(library, log, model)
    data = bytes(plan)
    if timings is not None and options.timing_cache is not None:
        write_bytes(options.timing_cache, bytes(timings.serialize()))
    record = replace(wanted, plan_sha256=hashlib.sha256(data).hexdigest())
    # The record goes first: a plan without one is refused as such, one beside an old record as another build's.
    write_record(out, record)
    write_bytes(out, data)
    return describe_plan(out, record)


def check_build(library: Library, options: BuildOptions) -> None:
    """Refuse before any work what :func:`build_plan` would refuse of any model.

    Raises:
        UsageError: an option that this library has not.
        MissingDependency: a GPU generation that it cannot build for.
    """
    _choose_flags(library, options)
    _check_hardware(library, options)
    choose_sms(library, options.sms)


def copy_plan(plan: Path, out: Path) -> Artifact:
    """Check a plan and copy it with its record.

    Raises:
        CorruptArtifact: the plan or its record is missing, damaged, or of another build.
    """
    record = verify_plan(plan)
    if not (out.exists() and plan.samefile(out)):
        data = plan.read_bytes()
        out.parent.mkdir(parents=True, exist_ok=True)
        write_record(out, record)
        write_bytes(out, data)
    return describe_plan(out, record)


def _plan_build(library: Library, model: Path, header: OnnxHeader, options: BuildOptions) -> PlanRecord:
    """Decide everything about the build as data; nothing is built yet."""
    files = (model, *locate_external_data(model, header.external))
    flags = _choose_flags(library, options)
    return PlanRecord(
        library=library.name,
        version=library.version,
        sms=choose_sms(library, options.sms),
        hardware=_check_hardware(library, options),
        version_compatible=options.version_compatible,
        profiles=_choose_ranges(header.inputs, options),
        flags=flags,
        settings=_choose_settings(options),
        model_sha256=hash_files(files),
        plan_sha256="",
        inputs=header.inputs,
        outputs=header.outputs,
        expected=options.expected,
        repeats=library.can_target_sms() or options.timing_cache is not None,
    )


def _choose_ranges(inputs: Sequence[TensorSpec], options: BuildOptions) -> tuple[Ranges, ...]:
    if not is_dynamic(inputs) and not options.profiles:
        return ()
    return resolve_profiles(fit_profiles(options.profiles, options.longest, inputs), inputs)


# Our options that are builder flags, by TensorRT's name: as the user gives them, and whether they were given.
_FLAGS: Mapping[str, tuple[str, Callable[[BuildOptions], bool]]] = {
    "SPARSE_WEIGHTS": ("--sparse-weights", lambda options: options.sparse),
    "VERSION_COMPATIBLE": ("--version-compatible", lambda options: options.version_compatible),
    "REFIT": ("--refit", lambda options: options.refit),
    # The same weights come back: TensorRT may optimise for their values, and 11.3 drops biases with REFIT (its notes).
    "REFIT_IDENTICAL": ("--strip", lambda options: options.strip and not options.refit),
    "STRIP_PLAN": ("--strip", lambda options: options.strip),
    "WEIGHT_STREAMING": ("--weight-streaming", lambda options: options.weight_streaming),
}


_GPU_FLAGS = frozenset({"VERSION_COMPATIBLE", "REFIT", "REFIT_IDENTICAL", "STRIP_PLAN"})


def _choose_flags(library: Library, options: BuildOptions) -> tuple[str, ...]:
    flags = sorted(name for name, (_, is_asked) in _FLAGS.items() if is_asked(options))
    # TensorRT-RTX has the flags: without a GPU its builder fails on a CUDA call, or on a library it does not ship.
    fails = _GPU_FLAGS if library.can_target_sms() else frozenset()
    missing = [name for name in flags if name in fails or not library.has_flag(name)]
    if missing:
        raise UsageError(
            f"{library.title} cannot build with {', '.join(missing)}",
            where=", ".join(dict.fromkeys(_FLAGS[name][0] for name in missing)),
            cure="leave it out, or build with stepdown[tensorrt] on the GPU",
        )
    if options.expected.int8 and "REFIT" in flags:
        raise UsageError(
            "an INT8 plan cannot take other weights: scales are folded into its kernels",
            where="--refit",
            cure="leave it out, or use --precision fp16",
        )
    if options.timing_cache is not None and not library.can_keep_timings():
        raise UsageError(
            f"{library.title} times no kernels when it builds", where="--timing-cache", cure="leave it out"
        )
    return tuple(flags)


def _check_hardware(library: Library, options: BuildOptions) -> Hardware:
    if options.hardware != "this" and library.can_target_sms():
        raise UsageError(
            f"{library.title} names its GPUs by --sm", where="--hardware", cure="leave it out, or list them with --sm"
        )
    return options.hardware


def _choose_settings(options: BuildOptions) -> dict[str, int]:
    asked = {"workspace_bytes": options.workspace_bytes, "optimization_level": options.optimization_level}
    return {name: value for name, value in asked.items() if value is not None}


def _configure(library: Library, builder: Native, wanted: PlanRecord, options: BuildOptions, log: MessageLog) -> Native:
    trt = library.module
    config = builder.create_builder_config()
    # Detailed, so that the inspector can name every layer's types and kernel.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for name in wanted.flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if library.can_target_sms():
        config.num_compute_capabilities = len(wanted.sms)
        for number, sm in enumerate(wanted.sms):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), number)
    elif wanted.hardware != "this":
        level = {"same-capability": "SAME_COMPUTE_CAPABILITY", "ampere-plus": "AMPERE_PLUS"}[wanted.hardware]
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    for ranges in wanted.profiles:
        _add_profile(builder, config, ranges, log)
    return config


def _add_profile(builder: Native, config: Native, ranges: Ranges, log: MessageLog) -> None:
    profile = builder.create_optimization_profile()
    try:
        for name, found in ranges.items():
            profile.set_shape(name, found.min, found.opt, found.max)
        refused = "" if config.add_optimization_profile(profile) >= 0 else "it says nothing more"
    except (RuntimeError, TypeError, ValueError) as error:  # so its binding says it, one or another
        refused = str(error)
    if refused:
        raise UsageError(
            f"TensorRT refuses the profile: {log.first_error() or refused}",
            where="--profile",
            cure="keep it within the model's axes",
        )


def _read_timings(library: Library, config: Native, path: Path | None) -> Native:
    """Give the builder the timings of earlier builds; None where there is no cache to keep."""
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise CorruptArtifact(
            f"{library.title} does not take the timing cache: of another version or GPU",
            where=str(path),
            cure="remove it, or name another file with --timing-cache",
        )
    return cache


def _refuse(library: Library, log: MessageLog, model: Path) -> UnsupportedModel:
    reason = log.first_error() or "its builder says nothing more"
    node = find_operation(reason)
    where = f"{model}:{node}" if node is not None else str(model)
    return UnsupportedModel(f"{library.title} cannot build it: {reason}", where=where, cure=find_cure(reason))
