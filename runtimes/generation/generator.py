"""``open_generator(path).generate(prompt)``: text in, text out, token by token.

In: what `stepdown export` wrote of a decoder, a bundle of one, or a folder of onnxruntime-genai; prompts. Out: tokens
as they come, or whole answers. The loop, sampling, beams and batches are onnxruntime-genai's. Must not import torch,
transformers or onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runtimes.artifact import MANIFEST_NAME, Manifest, read_manifest
from runtimes.errors import UnsupportedModel, UsageError
from runtimes.generation.chat_template import ChatTemplate, Message, read_chat_template
from runtimes.generation.genai import genai_errors, import_genai, open_model
from runtimes.generation.layout import CONFIG_NAME, TASK, Layout, read_layout
from runtimes.generation.options import GenerationOptions
from runtimes.generation.steps import OpenModel, Rows, check_rows, count_room, run_beams, run_steps
from runtimes.generation.text_files import TextFiles, read_text_files
from runtimes.generation.token_probe import Step, trace_greedily
from runtimes.generation.tokeniser import PromptTokeniser
from runtimes.ort_providers import CPU
from runtimes.serving.exported import choose_artifact, verify_files

if TYPE_CHECKING:
    from runtimes.bundle.trust import Trust

#: A text that is continued, or a conversation that is answered.
Prompt = str | Sequence[Message]

STOP, LENGTH = "stop", "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of an answer.

    Attributes:
        id: Its number.
        text: What it adds to the text: nothing for a special token, or while a character is not whole.
        finish: Why it is the last: ``stop`` for a token that ends the answer, ``length`` where there is no more room;
            None where more follow.
    """

    id: int
    text: str
    finish: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer: its text, its tokens (the one that ended it included), and why it ended (see :class:`Token`)."""

    text: str
    ids: tuple[int, ...]
    finish: str
    prompt_tokens: int


class Generator:
    """An open decoder. Several threads may generate with it at once; close it, or use it in a ``with``.

    Attributes:
        layout: What was opened.
        notes: What is worth knowing of how it runs here, one sentence each.
    """

    def __init__(
        self,
        layout: Layout,
        texts: TextFiles,
        *,
        threads: int | None = None,
        kernels: Path | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Open a folder that generates; see :func:`open_generator` for what it raises.

        Args:
            layout: The folder, checked.
            texts: Its tokenizer and chat template, wherever they lie.
            threads: Threads to run with.
            kernels: The sparse kernels in the folder, where these are run and not this installation's.
            notes: What is worth knowing of how it runs.
        """
        self.layout, self.notes = layout, notes
        self._tokeniser = PromptTokeniser(texts, layout.vocabulary, layout.stop_ids)
        self._template: ChatTemplate | None = read_chat_template(texts)
        self._opened: OpenModel | None = OpenModel(
            genai=import_genai(), model=open_model(layout, threads, kernels=kernels), layout=layout
        )

    @property
    def has_chat_template(self) -> bool:
        """Whether it answers conversations, and does not only continue texts."""
        return self._template is not None

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the tokens of a prompt: of a text with what the model wants around it, or of a rendered conversation.

        Raises:
            UsageError: it is a conversation and the model has no chat template, or that refuses it.
        """
        if isinstance(prompt, str):
            return self._tokeniser.encode(prompt, add_special=True) if prompt else []
        if self._template is None:
            raise UsageError(
                "the model has no chat template", where=str(self.layout.directory), cure="give a plain text"
            )
        # The template writes the special tokens itself.
        return self._tokeniser.encode(self._template.render(prompt), add_special=False)

    def generate(self, prompt: Prompt, options: GenerationOptions | None = None) -> Iterator[Token]:
        """Yield the tokens of one answer as they come.

        What can be refused is refused by this call, before the first token is asked for.

        Raises:
            UsageError: the prompt is empty or too long, an option is out of range, or beams are asked for, whose
                tokens are known only at the end.
        """
        options = options or GenerationOptions()
        if options.beams > 1:
            raise UsageError("beams give their tokens at the end", where="beams", cure="use complete, or one beam")
        ids = self.encode(prompt)
        opened = self._check((ids,), options)
        return self._stream(opened, ids, options)

    def complete(self, prompts: Sequence[Prompt], options: GenerationOptions | None = None) -> tuple[Completion, ...]:
        """Answer several prompts as one batch.

        Raises:
            UsageError: there is no prompt or there are more than 32; one is empty or too long; an option is out of
                range; or one ends with the model's padding.
        """
        options = options or GenerationOptions()
        rows = [self.encode(prompt) for prompt in prompts]
        answers = self.complete_ids(rows, options)
        return tuple(
            Completion(
                text=self._tokeniser.decode(ids),
                ids=tuple(ids),
                # Not the last token alone: what beams followed to its end comes without the one that ended it.
                finish=self._explain_end(row, ids, options),
                prompt_tokens=len(row),
            )
            for row, ids in zip(rows, answers, strict=True)
        )

    def complete_ids(self, rows: Rows, options: GenerationOptions) -> list[list[int]]:
        """Return the new tokens of each row of tokens, up to the one that ends it; see :meth:`complete`."""
        opened = self._check(rows, options)
        answers: list[list[int]] = [[] for _ in rows]
        for places in self._group(rows, options):
            found = self._run(opened, [rows[place] for place in places], options)
            for place, ids in zip(places, found, strict=True):
                answers[place] = ids
        return answers

    def trace(self, ids: Sequence[int], count: int) -> Iterator[Step]:
        """Yield up to ``count`` of the likeliest tokens behind a prompt, each with the logits it was taken by."""
        opened = self._check((ids,), GenerationOptions(max_new_tokens=count))
        with genai_errors(str(self.layout.directory)):
            yield from trace_greedily(opened, ids, count)

    def close(self) -> None:
        """Release the model; generating afterwards is a UsageError, and what is being generated ends well."""
        self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _group(self, rows: Rows, options: GenerationOptions) -> Iterator[list[int]]:
        """Yield the places of rows that run as one batch: what each gets in it is what it gets alone."""
        looks_back = options.repetition_penalty not in {None, 1} or self.layout.looks_back
        groups: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            # A penalty would count the padding of shorter rows; without one, a batch ends where its longest row does.
            key = len(row) if looks_back else count_room((row,), self.layout, options)
            groups.setdefault(key, []).append(place)
        yield from groups.values()

    def _explain_end(self, row: Sequence[int], ids: Sequence[int], options: GenerationOptions) -> str:
        full = len(ids) == count_room((row,), self.layout, options)
        return LENGTH if full and ids[-1] not in self.layout.stop_ids else STOP

    def _check(self, rows: Rows, options: GenerationOptions) -> OpenModel:
        opened = self._opened  # one read: another thread may close it meanwhile
        if opened is None:
            raise UsageError("the generator is closed", cure="open it again")
        check_rows(rows, self.layout)
        options.check_vocabulary(self.layout.vocabulary)
        return opened

    def _run(self, opened: OpenModel, rows: Rows, options: GenerationOptions) -> list[list[int]]:
        if options.beams > 1:
            return [self._cut(ids) for ids in run_beams(opened, rows, options)]
        steps = [tokens.tolist() for tokens, _ in run_steps(opened, rows, options)]
        return [self._cut(list(column)) for column in zip(*steps, strict=True)]

    def _stream(self, opened: OpenModel, ids: Sequence[int], options: GenerationOptions) -> Iterator[Token]:
        stream = self._tokeniser.open_stream()
        for tokens, is_last in run_steps(opened, (ids,), options):
            token = int(tokens[0])
            ending = STOP if token in self.layout.stop_ids else LENGTH
            yield Token(id=token, text=stream.push(token, is_last=is_last), finish=ending if is_last else None)

    def _cut(self, ids: list[int]) -> list[int]:
        """Return the tokens up to the first that ends the answer, itself included; behind it is padding."""
        ended = next((place for place, token in enumerate(ids) if token in self.layout.stop_ids), len(ids))
        return ids[: ended + 1]


def open_generator(
    path: Path | str, *, threads: int | None = None, allow_host_code: bool = False, trust: Trust | None = None
) -> Generator:
    """Open what `stepdown export` wrote of a decoder, a bundle of one, or any folder with a ``genai_config.json``.

    An exported directory is verified first: every file against its manifest. A bundle is opened as
    :func:`runtimes.serving.bundle.open_bundle` opens it.

    Args:
        path: The directory; an archive, or an installed bundle.
        threads: Threads to run with; None leaves the choice to ONNX Runtime.
        allow_host_code: Whether a bundle may bring kernels that nobody vouches for.
        trust: Whose signature is asked for of a bundle.

    Raises:
        CorruptArtifact: a file is missing or changed, the tokenizer is of another model, the cache does not fit, or
            the model was made for another CPU.
        MissingDependency: onnxruntime-genai, tokenizers or jinja2 is missing, or too old.
        UnsupportedModel: it was measured on another device than the CPU, or an operator is unknown.
        UsageError: it is none of these, what it is does not generate text, or a signature is asked for of what has
            none.
    """
    from runtimes.bundle.open_variant import ServeOptions
    from runtimes.serving.bundle import is_bundle, open_bundle, refuse_trust

    path = Path(path)
    if is_bundle(path):
        options = ServeOptions(threads=threads, allow_host_code=allow_host_code)
        return open_bundle(path, trust=trust).generator(options)
    refuse_trust(trust, path)
    if is_bare(path):
        return Generator(read_layout(path), read_text_files(path), threads=threads)
    return open_exported(path, read_verified(path), threads)


def is_bare(path: Path) -> bool:
    """Whether a folder has a ``genai_config.json`` and no manifest of ours: there is nothing to verify it by."""
    return not (path / MANIFEST_NAME).is_file() and (path / CONFIG_NAME).is_file()


def open_exported(directory: Path, manifest: Manifest, threads: int | None) -> Generator:
    """Open an exported directory whose files were verified; see :func:`open_generator`."""
    folder, notes = find_folder(directory, manifest, threads)
    texts = read_text_files(folder, _list_beside(folder.relative_to(directory).as_posix(), manifest))
    return Generator(read_layout(folder), texts, threads=threads, notes=notes)


def read_verified(directory: Path) -> Manifest:
    """Return the manifest of an exported decoder, once every file is known to be its.

    Raises:
        CorruptArtifact: a file is missing or changed.
        UsageError: it is no exported directory, or does not generate text.
    """
    if not (directory / MANIFEST_NAME).is_file():
        cure = "give what stepdown export wrote of a decoder, or a bundle of it"
        raise UsageError("there is nothing that generates text", where=str(directory), cure=cure)
    manifest = read_manifest(directory)
    require_task(manifest.source.get("task"), directory)
    verify_files(directory, manifest)
    return manifest


def require_task(task: str | None, where: Path) -> None:
    """Raise UsageError where a model does something else than generating text."""
    if task != TASK:
        cure = "give --text (in Python: open_bundle(path).session()), or a model exported for text-generation"
        raise UsageError(f"it does not generate text, its task is {task}", where=str(where), cure=cure)


def find_folder(directory: Path, manifest: Manifest, threads: int | None) -> tuple[Path, tuple[str, ...]]:
    """Return the folder of an exported directory that generates, and notes on how it runs here.

    Raises what :func:`open_generator` raises before it opens anything.
    """
    chosen = choose_artifact(directory, manifest, threads)
    if chosen.options.providers != (CPU,):
        raise UnsupportedModel(
            f"it was exported for {', '.join(chosen.options.providers)}, and text is generated on the CPU",
            where=str(directory),
            cure="export it with --device cpu",
        )
    return chosen.path.parent, chosen.notes


def _list_beside(folder: str, manifest: Manifest) -> dict[str, str]:
    """Return the sha256 of the files of one folder, by their names."""
    paths = {PurePosixPath(path): sha256 for path, sha256 in manifest.list_files().items()}
    return {path.name: sha256 for path, sha256 in paths.items() if path.parent == PurePosixPath(folder)}
