"""A recipe killed again and again comes to the same weights: ``stepdown compress`` ended by SIGKILL at drawn moments.

In: a checkpoint, a recipe and data. Out: the hashes of the weights of a run left alone and of one that was killed.
One thread: with more, sums come in another order.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.suites.compression.data import TaskData
from bench.suites.compression.records import keep
from bench.suites.goals import Goal, decide
from runtimes.artifact import hash_file
from runtimes.errors import UnsupportedModel

# Every kind of state that must survive: a schedule of zeros, held zeros, hidden states, other tokens, learned scales.
RECIPE = """name = "resume"

[[steps]]
do = "prune"
sparsity = 0.6
schedule = "cubic"
train = {epochs = 2, distil = {hidden_weight = 1.0}}

[[steps]]
do = "prune-vocabulary"
train = {epochs = 1}

[[steps]]
do = "quantise-aware"
train = {epochs = 1}
"""
# Between a start and its kill, as shares of what a run left alone takes.
_EARLIEST, _LATEST = 0.1, 0.6
_RECORD = "resume.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What came out: ``kills`` that hit a run under way, after how many seconds each, and both hashes."""

    kills: tuple[float, ...]
    alone_sha256: str
    resumed_sha256: str
    seconds: float

    def judge(self) -> Goal:
        """Met where the weights are the same and something was killed at all."""
        same = self.alone_sha256 == self.resumed_sha256
        return Goal(
            name=f"killed {len(self.kills)} times: the same weights",
            wanted="bit-equal",
            measured="bit-equal" if same else "they differ",
            verdict=decide(same and bool(self.kills)),
        )


def measure_resuming(checkpoint: Path, data: TaskData, work: Path, *, kills: int, seed: int = 0) -> Resumed:
    """Run the recipe once in peace and once with kills, in the folder ``work``, made anew.

    Raises:
        UnsupportedModel: a run that nobody killed failed.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    recipe = work / "resume.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    command = [str(Path(sys.executable).with_name("stepdown")), "compress", str(checkpoint), "--recipe", str(recipe)]
    command += ["--data", str(data.train), "--held-out", str(data.held_out), "--threads", "1", "-o"]
    started = time.monotonic()
    _finish([*command, str(work / "alone")])
    seconds = time.monotonic() - started
    draw = random.Random(seed)
    moments = [draw.uniform(_EARLIEST, _LATEST) * seconds for _ in range(kills)]
    killed = tuple(moment for moment in moments if _kill([*command, str(work / "killed")], moment))
    if not (work / "killed").is_dir():
        _finish([*command, str(work / "killed")])
    hashes = [hash_file(work / name / "model.safetensors") for name in ("alone", "killed")]
    return Resumed(kills=killed, alone_sha256=hashes[0], resumed_sha256=hashes[1], seconds=seconds)


def write_resumed(records: Path, resumed: Resumed) -> None:
    """Keep what came out."""
    keep(records / _RECORD, asdict(resumed))


def read_resumed(records: Path) -> Resumed | None:
    """Return what came out, None where nothing was measured."""
    path = records / _RECORD
    if not path.is_file():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    return Resumed(**{**told, "kills": tuple(told["kills"])})


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnsupportedModel(done.stderr.strip()[-600:], where="stepdown compress")


def _kill(command: list[str], after_s: float) -> bool:
    """Start it and kill it; return whether it was still at work."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL
