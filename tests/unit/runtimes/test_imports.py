"""A device installs numpy and one runtime: every module of `runtimes` imports with numpy alone."""

import subprocess
import sys

import runtimes

SCRIPT = """
import importlib, pkgutil, sys

ALLOWED = {"numpy", "runtimes"} | set(sys.stdlib_module_names)

class OnlyNumpy:
    def find_spec(self, name, path=None, target=None):
        # Names with underscores are private parts of allowed packages (numpy's, and editable installs' finders).
        root = name.partition(".")[0]
        if root not in ALLOWED and not root.startswith("_"):
            raise ModuleNotFoundError(f"only numpy is installed, not {root}", name=root)

sys.meta_path.insert(0, OnlyNumpy())
import runtimes
names = [module.name for module in pkgutil.walk_packages(runtimes.__path__, "runtimes.")]
for name in names:
    importlib.import_module(name)
print(len(names))

from runtimes.registry import RUNTIMES
for name, make in RUNTIMES.items():
    reason = make().why_unavailable()
    assert reason and "pip install" in reason and "stepdown[" in reason, (name, reason)
"""


def test_every_module_imports_with_numpy_alone_and_runtimes_name_their_extra():
    folder = next(iter(runtimes.__path__))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, cwd=f"{folder}/.."
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10
