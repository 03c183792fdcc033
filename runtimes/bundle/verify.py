"""Proves a bundle before it is trusted: structure, hashes, signature, contents, fit to a machine, and its probe.

In: an archive, or the folder of an unpacked bundle. Out: a :class:`VerifyReport` that names every failure with what was
expected, what was found and what to do. The stages go from bytes to meaning: nothing is unpacked before the signature
is checked, and nothing is loaded before the contents are. Must not import onnx or torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from runtimes.bundle.archive import open_archive
from runtimes.bundle.contents import check_contents
from runtimes.bundle.description import Variant
from runtimes.bundle.fit import Misfit, can_run, find_misfits
from runtimes.bundle.fit_here import read_plan_record
from runtimes.bundle.folder import refuse_folder
from runtimes.bundle.home import Home, check_files, is_home, read_home
from runtimes.bundle.machine import describe_device, detect_machine_for
from runtimes.bundle.open_variant import ServeOptions, open_onnx, open_plan, refuse_code
from runtimes.bundle.profiles import DeviceProfile
from runtimes.bundle.scratch import scratch_folder
from runtimes.bundle.signature import SignatureReport
from runtimes.bundle.strict_json import Mismatch
from runtimes.bundle.tensor_file import read_tensors
from runtimes.bundle.trust import Trust, check_trust
from runtimes.errors import CorruptArtifact, StepdownError
from runtimes.parity import compare

Stage = Literal["structure", "signature", "contents", "fit", "probe"]
THIS_MACHINE = "this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What is asked of a bundle.

    Attributes:
        trust: Whose signature.
        probe: Whether to run the stored inputs.
        allow_host_code: Whether that may run code of who packed it, though nobody vouches for it.
        device: The device it is judged for, by its profile, and nothing is run; None judges for this machine.
    """

    trust: Trust = field(default_factory=Trust)
    probe: bool = True
    allow_host_code: bool = False
    device: DeviceProfile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One thing that is wrong; ``expected`` and ``found`` are None where ``what`` says it all."""

    stage: Stage
    what: str
    where: str | None
    expected: str | None
    found: str | None
    cure: str | None

    def describe(self) -> str:
        """Return what is wrong in words, without its place."""
        return self.what if self.expected is None else f"{self.what}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantReport:
    """How one variant does on the machine.

    Attributes:
        name: The variant.
        fits: Whether it runs there, after its plan was built there where that can be.
        misfits: What it asks that the machine has not.
        is_built_there: Whether its plan must be built there first, which nothing here does.
        probe: What came of the stored inputs, in words, or why they were not run; None where nobody asked.
        cure: What lets them be run, where they were not.
    """

    name: str
    fits: bool
    misfits: tuple[Misfit, ...]
    is_built_there: bool = False
    probe: str | None = None
    cure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The whole verdict. What could not be read any more is None or empty.

    Attributes:
        path: What was verified.
        machine: What it was judged for.
        name, version, id: Of the bundle.
        signature: What the signatures prove.
        variants: In the bundle's order.
        failures: What is wrong; none for a bundle that may be used.
    """

    path: Path
    machine: str
    name: str | None = None
    version: int | None = None
    id: str | None = None
    signature: SignatureReport | None = None
    variants: tuple[VariantReport, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """Whether the bundle may be used."""
        return "fail" if self.failures else "pass"


def verify_bundle(bundle: Path, options: VerifyOptions | None = None) -> VerifyReport:
    """Verify a bundle; the stages stop at the first that fails, and each says all that it finds.

    Args:
        bundle: An archive, or a folder with an unpacked bundle.
        options: What is asked of it.

    Raises:
        UsageError: there is no such bundle, it is a folder of another kind, or the options contradict themselves.
        MissingDependency: ``cryptography`` or ``tokenizers`` is needed and not installed.
    """
    options = options or VerifyOptions()
    report = VerifyReport(path=bundle, machine=options.device.name if options.device is not None else THIS_MACHINE)
    with scratch_folder("stepdown-verify-") as scratch:
        try:
            home, signature = _unpack(bundle, options.trust, scratch)
            description = home.description
            report = replace(
                report, name=description.name, version=description.version, id=home.id, signature=signature
            )
            with _stage("contents"):
                check_contents(home.path, description)
            return _judge(report, home, options)
        except _Failed as failed:
            return replace(report, failures=failed.failures)


class _Failed(Exception):
    """A stage failed, and with it the bundle."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__()
        self.failures = tuple(failures)


@contextmanager
def _stage(stage: Stage) -> Iterator[None]:
    """Turn what a stage refuses into its failure."""
    try:
        yield
    except CorruptArtifact as error:
        raise _Failed([_explain(stage, error)]) from error


def _explain(stage: Stage, error: StepdownError, where: str | None = None) -> Failure:
    told = error if isinstance(error, Mismatch) else None
    return Failure(
        stage=stage,
        what=told.problem if told else error.what,
        where=error.where or where,
        expected=told.expected if told else None,
        found=told.found if told else None,
        cure=error.cure,
    )


def _unpack(bundle: Path, trust: Trust, scratch: Path) -> tuple[Home, SignatureReport]:
    """Check structure, hashes and signature, and return where the files lie."""
    with _stage("structure"):
        if is_home(bundle):
            home = read_home(bundle)
            signature = _check_signature(home.description_bytes, home.signatures, trust)
            check_files(home)
            return home, signature
        refuse_folder(bundle, takes_versions=True)
        with open_archive(bundle) as archive:
            signature = _check_signature(archive.description_bytes, archive.signatures, trust)
            archive.unpack(scratch)
        return read_home(scratch), signature


def _check_signature(description: bytes, signatures: bytes | None, trust: Trust) -> SignatureReport:
    with _stage("signature"):
        return check_trust(description, signatures, trust)


def _judge(report: VerifyReport, home: Home, options: VerifyOptions) -> VerifyReport:
    """Say what runs on the machine, and whether it answers as it should."""
    variants, policy = home.description.variants, home.description.policy
    machine = describe_device(options.device) if options.device is not None else detect_machine_for(variants)
    is_signed = report.signature is not None and report.signature.state == "signed"
    serve = ServeOptions(allow_host_code=options.allow_host_code, allow_kernels=is_signed)
    failures = list(_check_size(report.path, options.device))
    reports = []
    for variant in variants:
        misfits = find_misfits(variant, machine, read_plan_record(home, variant), policy=policy)
        one = VariantReport(
            name=variant.name,
            fits=can_run(variant, misfits),
            misfits=misfits,
            is_built_there=variant.runtime == "tensorrt"
            and (bool(misfits) or not variant.brings_plan or "plan" not in policy),
        )
        if options.probe and options.device is None and not misfits and not one.is_built_there:
            one, failure = _try(one, home, variant, serve)
            failures += [failure] if failure is not None else []
        reports.append(one)
    if not any(one.fits for one in reports):
        failures += [_explain_misfit(one.name, misfit) for one in reports for misfit in one.misfits]
    return replace(report, variants=tuple(reports), failures=tuple(failures))


def _check_size(bundle: Path, device: DeviceProfile | None) -> Iterator[Failure]:
    if device is None or device.bundle_bytes is None or not bundle.is_file():
        return
    size = bundle.stat().st_size
    if size > device.bundle_bytes:
        yield Failure(
            stage="fit",
            what="the bundle is larger than the device takes",
            where=str(bundle),
            expected=f"at most {device.bundle_bytes:,} bytes",
            found=f"{size:,} bytes",
            cure="pack fewer variants, or a smaller model",
        )


def _explain_misfit(variant: str, misfit: Misfit) -> Failure:
    return Failure(
        stage="fit", what=misfit.what, where=variant, expected=misfit.expected, found=misfit.found, cure=misfit.cure
    )


def _try(
    report: VariantReport, home: Home, variant: Variant, options: ServeOptions
) -> tuple[VariantReport, Failure | None]:
    """Run the stored inputs, where nothing runs by that which nobody vouches for."""
    refused = refuse_code(variant, options)
    if refused is not None:
        return replace(report, probe=f"stored answers not run: {refused.what}", cure=refused.cure), None
    said, failure = _probe(home, variant, options)
    return replace(report, probe=said), failure


def _probe(home: Home, variant: Variant, options: ServeOptions) -> tuple[str, Failure | None]:
    """Run the stored inputs and compare with the stored outputs."""
    folder, probe = home.locate(variant), variant.probe
    if variant.generates:
        return _probe_tokens(home, variant, options)
    inputs = read_tensors(folder / probe.inputs, probe.inputs)
    expected = read_tensors(folder / probe.outputs, probe.outputs)
    open_variant = open_plan if variant.runtime == "tensorrt" else open_onnx
    try:
        with closing(open_variant(home, variant, options).session) as session:
            report = compare(expected, session.run(inputs), probe.tolerance)
    except StepdownError as error:
        return "it does not run", _explain("probe", error, variant.name)
    if report.verdict == "pass":
        return report.message, None
    tolerance = probe.tolerance
    bound = f"atol {tolerance.atol:g}, rtol {tolerance.rtol:g}, cosine at least {tolerance.min_cosine}"
    return report.message, Failure(
        stage="probe",
        what="the model does not answer here as it did where it was packed",
        where=variant.name,
        expected=f"{bound} ({tolerance.reason})",
        found=report.message,
        cure="pack it again on a machine like this one, and report it where that does not help",
    )


def _probe_tokens(home: Home, variant: Variant, options: ServeOptions) -> tuple[str, Failure | None]:
    """Let the decoder continue the stored prompts, and compare with the stored tokens."""
    # What generates is of no use to a bundle that does not.
    from runtimes.bundle.open_decoder import open_decoder
    from runtimes.generation.token_probe import compare_answers

    folder, probe = home.locate(variant), variant.probe
    inputs, outputs = (read_tensors(folder / path, path) for path in (probe.inputs, probe.outputs))
    try:
        with open_decoder(home, variant, options) as generator:
            verdict = compare_answers(generator, inputs, outputs, probe.tolerance)
    except StepdownError as error:
        return "it does not run", _explain("probe", error, variant.name)
    if verdict.mismatch is None:
        return verdict.said, None
    told = verdict.mismatch
    return verdict.said, Failure(
        stage="probe",
        what=told.what,
        where=variant.name,
        expected=told.expected,
        found=told.found,
        cure=told.cure,
    )
