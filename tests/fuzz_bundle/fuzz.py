"""Fuzzes one target with libFuzzer's options: ``python -m tests.fuzz_bundle.fuzz TARGET [-runs=N ...] CORPUS...``.

Needs ``atheris`` (``pip install atheris``), which instruments the readers so that the fuzzer sees what it reaches.
"""

import sys

import atheris

READERS = ["runtimes.bundle", "runtimes.generation", "runtimes.onnx_file", "runtimes.trt.record"]

with atheris.instrument_imports(include=READERS):
    from tests.fuzz_bundle import seeds, targets


def main(words):
    name, *options = words
    target = targets.TARGETS[name]
    for seed in seeds.make_seeds()[name]:
        target(seed)  # loads what is imported late, before a guard watches
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
