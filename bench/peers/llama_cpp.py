"""llama.cpp by its Python package, built from source for this CPU in an environment of its own, once.

In: a cache folder. Out: the Python that has it, and a GGUF file in another form of the same weights.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Literal

from bench.peers.build_once import Built, build_once
from bench.peers.environment import ASKED, open_environment
from bench.peers.stepdown_cli import run_measured
from runtimes.artifact import hash_file
from runtimes.atomic import make_directory, write_text

#: What is built, as pip names it.
PACKAGE = "llama-cpp-python==0.3.36"
#: How it is built, for whoever reads a table.
DESCRIPTION = (
    f"{PACKAGE}, built from source for this CPU with its own settings, but for GCC's dead store elimination, which is"
    " off in its AMX file alone"
)
# GCC 12 takes the sizes of AMX's tiles for stores that nobody reads (the header of `_tile_loadconfig` names 8 of its 64
# bytes) and leaves them out: the first product of matrices crashes. The one file that sets them is compiled without
# that pass, all others as they come. The target is known only when the project has been read.
_AMX_FILE = """cmake_language(DEFER CALL set_source_files_properties
  ${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp TARGET_DIRECTORY ggml-cpu
  PROPERTIES COMPILE_OPTIONS "$<$<CXX_COMPILER_ID:GNU>:-fno-tree-dse;-fno-dse>")
"""

#: Forms as llama.cpp names them: float, and blocks of 32 weights with a scale of 8 or 4 bits each.
Form = Literal["F32", "Q8_0", "Q4_0"]
_FILE_TYPES: dict[Form, str] = {"F32": "ALL_F32", "Q8_0": "MOSTLY_Q8_0", "Q4_0": "MOSTLY_Q4_0"}

_CONVERT = """
import sys
import llama_cpp

source, target, kind = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_" + kind)
params.allow_requantize = True
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params))
"""


def open_llama_cpp(cache: Path) -> Path:
    """Return the Python that has llama.cpp; building it takes a compiler and about 25 minutes of one core.

    Raises as :func:`~bench.peers.environment.open_environment`.
    """
    return open_environment(cache / "environment-llama-cpp", write_requirements(cache))


def read_build(python: Path) -> str:
    """Return what tells one build from another: what was asked for when its Python was made, settings and all."""
    return hash_file(python.parents[1] / ASKED)


def write_requirements(cache: Path) -> tuple[str, ...]:
    """Return what pip is told, with the path of the settings that this writes into ``cache``."""
    # Named by what it says: what was built with other settings is built anew.
    settings = cache.absolute() / f"llama-cpp-{hashlib.sha256(_AMX_FILE.encode()).hexdigest()[:8]}.cmake"
    make_directory(cache)
    write_text(settings, _AMX_FILE)
    return (
        PACKAGE,
        # pip keeps what it built, and does not ask with which settings.
        "--no-cache-dir",
        # Without the part for pictures.
        "--config-settings=cmake.define.LLAVA_BUILD=OFF",
        f"--config-settings=cmake.define.CMAKE_PROJECT_llama_cpp_INCLUDE={settings}",
    )


def make_form(python: Path, source: Path, form: Form, folder: Path) -> Built:
    """Write the weights of a GGUF file in another form into ``folder``, by llama.cpp itself, unless they are there.

    What the source's blocks stand for is rounded anew; what llama.cpp keeps in more bits in a form stays so.

    Raises:
        UnsupportedModel: llama.cpp does not take the file; the message ends with what it said.
    """
    depends_on = {"source": hash_file(source), "form": form, "made by": PACKAGE}
    make = partial(_convert, python, source, form)
    return build_once(folder, f"{source.stem}-{form}", depends_on, make, suffix=".gguf")


def _convert(python: Path, source: Path, form: Form, target: Path) -> None:
    run_measured([str(python), "-c", _CONVERT, str(source), str(target), _FILE_TYPES[form]])
