"""docs/walkthrough.md, run as it stands: from a pretrained encoder to answers where there is no torch."""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from exporter.cli.main import make_parser
from tests.device_environment import make_device

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
WORKSHOP, DEVICE = PAGE.split("## On the device")
# What a device has not; the small run hides it, the real one does not install it.
ABSENT = ("torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "safetensors", "rich")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PLAIN = ("a", "the", "film", "plot", "cast", "and", "is", "was", "very", "with", ".", ",")
TELLING = {"positive": ("warm", "funny", "moving", "fresh"), "negative": ("dull", "slow", "empty", "stale")}

SMALL = """name = "small"
[[steps]]
do = "drop-layers"
keep = 1
importance = "spread"
[[steps]]
do = "distil"
unlabelled = true
train = {epochs = 4, batch_size = 16, learning_rate = 2e-3, distil = {hard_weight = 0.3, soft_weight = 1.0}}
[[steps]]
do = "quantise"
precision = "int8"
"""

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the page makes its key with openssl")


def write_recipe(path, *, epochs, learning_rate):
    train = f"train = {{epochs = {epochs}, batch_size = 16, learning_rate = {learning_rate}}}"
    path.write_text(f'name = "teach"\n[[steps]]\ndo = "finetune"\n{train}\n')
    return path


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_sentences(count, seed):
    """Sentences that one word makes positive or negative."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label = draw.choice(sorted(TELLING))
        words = [draw.choice(PLAIN) for _ in range(draw.randint(3, 9))]
        words.insert(draw.randrange(len(words)), draw.choice(TELLING[label]))
        rows.append({"text": " ".join(words), "label": label})
    return rows


def write_encoder(directory):
    """Write an encoder that has learned nothing: three layers, 64 wide, two dozen words."""
    import torch
    from transformers import BertConfig, BertModel

    words = {word: place for place, word in enumerate((*SPECIAL, *PLAIN, *sum(TELLING.values(), ())))}
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=128, **sizes)).save_pretrained(directory)
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    tokenizer.save(str(directory / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128, "pad_token": "[PAD]"}
    (directory / "tokenizer_config.json").write_text(json.dumps(described))
    return directory


def run_blocks(part, folder, environment):
    """Run the blocks of one part of the page in one shell that ends at the first error; return what they printed."""
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL))
    command = ["bash", "-euxo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_and_pack(folder, places):
    """Run the page up to the device, and check what the gate said."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    out = run_blocks(
        WORKSHOP, folder, {**os.environ, **{key: str(value) for key, value in places.items()}, "PATH": path}
    )
    # Whether a machine is quiet enough to tell is not the page's doing; that nothing became slower or larger is.
    assert re.search(r"^small against teacher: (faster|same|inconclusive)$", out, flags=re.MULTILINE)
    assert {path.name for path in folder.iterdir()} >= {"samples.json", "report.html", "gate.json"}


def answer_on_device(folder, device, environment):
    """Bring over what the page says, run its last part there, and check both versions' answers."""
    device.mkdir()
    for name in ("film-1.stepdown.tar.gz", "film-2.stepdown.tar.gz", "pub.pem"):
        shutil.copy(folder / name, device)
    out = run_blocks(DEVICE, device, {**environment, "STEPDOWN_CACHE": str(device / "cache")})
    assert re.findall(r"\b(positive|negative)\b", out) == ["positive", "negative"] * 2
    current, previous = ((device / "models" / "film" / link).resolve() for link in ("current", "previous"))
    versions = [json.loads((place / "bundle.json").read_bytes())["version"] for place in (current, previous)]
    assert versions == [1, 2]


@needs_openssl
@pytest.mark.slow
def test_a_small_encoder_goes_all_the_way(tmp_path):
    folder = tmp_path / "workshop"
    folder.mkdir()
    (tmp_path / "small.toml").write_text(SMALL)
    places = {
        "BASE": write_encoder(tmp_path / "base"),
        "TRAIN": write_rows(tmp_path / "train.jsonl", make_sentences(256, 0)),
        "DEV": write_rows(tmp_path / "dev.jsonl", make_sentences(64, 1)),
        "TEST": write_rows(tmp_path / "test.jsonl", make_sentences(64, 2)),
        "MORE": write_rows(tmp_path / "more.jsonl", [{"text": row["text"]} for row in make_sentences(64, 3)]),
        "TEACH": write_recipe(tmp_path / "teach.toml", epochs=4, learning_rate=2e-3),
        "SHRINK": tmp_path / "small.toml",
    }
    make_and_pack(folder, places)
    # This environment, without what a device has not: None in its place, and Python finds no such module.
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n")
    paths = {
        "PYTHONPATH": f"{tmp_path / 'hide'}:{ROOT}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    answer_on_device(folder, tmp_path / "device", {**os.environ, **paths})


def make_device_of_the_page(folder):
    """Make the environment of the page's own `pip install` line."""
    (extras,) = re.findall(r"^pip install 'stepdown\[([\w,-]+)\]'$", DEVICE, flags=re.MULTILINE)
    return make_device(folder, extras)


@needs_openssl
@pytest.mark.slow
def test_minilm_goes_all_the_way_to_an_environment_of_its_own(tmp_path, minilm_dir, movie_sentences):
    folder = tmp_path / "workshop"
    folder.mkdir()
    # One in eight to learn from: enough for the answers asked here, minutes and not an hour.
    train, test, more = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:1000]]
        for path in (movie_sentences.train, movie_sentences.test, movie_sentences.unlabelled)
    )
    recipe = (ROOT / "compression" / "recipes" / "compact.toml").read_text(encoding="utf-8")
    (tmp_path / "compact.toml").write_text(recipe.replace("epochs = 8", "epochs = 1"))
    places = {
        "BASE": minilm_dir,
        "TRAIN": write_rows(tmp_path / "train.jsonl", train),
        "DEV": write_rows(tmp_path / "dev.jsonl", test[:200]),
        "TEST": write_rows(tmp_path / "test.jsonl", test[200:600]),
        "MORE": write_rows(tmp_path / "more.jsonl", more),
        "TEACH": write_recipe(tmp_path / "teach.toml", epochs=1, learning_rate=1e-4),
        "SHRINK": tmp_path / "compact.toml",
    }
    make_and_pack(folder, places)
    device = make_device_of_the_page(tmp_path)
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    environment["PATH"] = f"{device / 'bin'}:/usr/bin:/bin"
    answer_on_device(folder, tmp_path / "device", environment)


def list_commands():
    """Return the words of each ``stepdown`` command that the page runs, up to what the shell joins to it."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [shlex.split(line.partition("||")[0])[1:] for line in lines if line.startswith("stepdown ")]


@pytest.mark.parametrize("words", list_commands(), ids=" ".join)
def test_the_parsers_take_each_command(words):
    make_parser(words[0]).parse_exactly(words[1:])


def test_the_extras_on_the_page_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for group in re.findall(r"'(?:\.|stepdown)\[([\w,-]+)\]'", PAGE) for extra in group.split(",")}
    assert named
    assert named <= set(project["optional-dependencies"])
