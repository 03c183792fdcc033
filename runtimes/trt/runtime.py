"""TensorRT as a :class:`~runtimes.protocol.Runtime`: builds where a library builds, runs where a GPU is.

In: ONNX files and plans. Out: plans with their records, and sessions. Must not import onnx, torch or other runtimes.
"""

from __future__ import annotations

from pathlib import Path

from runtimes.artifact import Artifact
from runtimes.errors import MissingDependency
from runtimes.trt.build import build_plan, copy_plan
from runtimes.trt.device import read_compute_capability, why_no_gpu
from runtimes.trt.engine import Engine, inspect_engine, load_engine
from runtimes.trt.fit import find_cure, name_sms, require_gpu, require_version, runs_on
from runtimes.trt.inspector import LayerRow, require_picked
from runtimes.trt.library import INSTALL_RTX, Library, find_libraries, open_library
from runtimes.trt.options import TrtOptions
from runtimes.trt.record import PlanRecord, verify_plan
from runtimes.trt.session import TrtSession
from runtimes.trt.targets import choose_builder, choose_sms


class TensorRt:
    """TensorRT-RTX and TensorRT. A plan is opened by the package that built it, whatever the options prefer."""

    name = "tensorrt"

    def __init__(self, options: TrtOptions | None = None) -> None:
        self.options = options or TrtOptions()

    def why_unavailable(self) -> str | None:
        """Return None where plans run here: a package is installed and there is a GPU."""
        if not find_libraries():
            return str(MissingDependency("TensorRT is not installed", cure=INSTALL_RTX))
        return why_no_gpu()

    def why_cannot_build(self) -> str | None:
        """Return None where plans can be built here, which TensorRT-RTX does without a GPU."""
        try:
            self._choose_library()
        except MissingDependency as error:
            return str(error)
        return None

    def why_not_run_here(self) -> str | None:
        """Return None where the plans that :meth:`build` makes run on this machine too, else why not.

        Raises:
            MissingDependency, UsageError: nothing can be built as the options say.
        """
        reason = self.why_unavailable()
        if reason is not None:
            return reason
        library, options, sm = self._choose_library(), self.options.build, read_compute_capability()
        sms = choose_sms(library, options.sms)
        if runs_on(library.name, sms, options.hardware, sm):
            return None
        return f"this GPU is sm{sm}, and the plans are for {name_sms(sms)}: {find_cure(sm)}"

    def build(self, model: Path, out: Path) -> Artifact:
        """Build a plan at ``out``, with its record beside it; a ``.plan`` is checked and copied.

        Raises:
            MissingDependency: no library builds here, or not for a GPU that was asked for.
            UnsupportedModel: TensorRT refuses the model; the node, the reason and the cure are named.
            UsageError: an option that the library has not, or a profile that does not fit.
            CorruptArtifact: the file is damaged.
        """
        if model.suffix == ".plan":
            return copy_plan(model, out)
        return build_plan(self._choose_library(), model, out, self.options.build)

    def open(self, artifact: Artifact) -> TrtSession:
        """Load a plan on the GPU.

        Raises:
            CorruptArtifact: it is damaged, or of another version, package or GPU.
            MissingDependency: the package that built it, or a GPU, is not there.
            UnsupportedModel: an expected INT8 or sparse layer was not picked, or the GPU has no memory for it.
            UsageError: an option of the run that the plan or the package has not.
        """
        record = verify_plan(artifact.path)
        engine = self._load(artifact.path, record)
        require_picked(inspect_engine(engine), record.expected)
        return TrtSession(engine, record, self.options.run)

    def list_layers(self, plan: Path) -> tuple[LayerRow, ...]:
        """Return what became of each layer of a plan, also where it is not what was asked.

        Raises:
            CorruptArtifact, MissingDependency, UsageError: as :meth:`open`.
        """
        return inspect_engine(self._load(plan, verify_plan(plan)))

    def _load(self, plan: Path, record: PlanRecord) -> Engine:
        library = open_library(record.library)
        require_version(record, library, where=str(plan))
        require_gpu(record, read_compute_capability(), where=str(plan))
        return load_engine(library, plan, record, self.options.run)

    def _choose_library(self) -> Library:
        return choose_builder(self.options.library, self.options.build.sms)
