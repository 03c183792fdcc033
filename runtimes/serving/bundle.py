"""``open_bundle(path).session()``: text in, result out, from whatever a device is given.

In: an archive that `stepdown pack` wrote, an installed bundle, or a directory that `stepdown export` wrote. Out: a
:class:`Bundle`, and sessions over it; of a decoder, a generator. An archive is checked and unpacked to a cache first;
nothing of it runs before it is verified, and nothing runs that does not fit this machine. Must not import torch,
transformers or onnx.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runtimes.artifact import MANIFEST_NAME, Manifest, read_manifest
from runtimes.bundle.cache import find_cache
from runtimes.bundle.fallback import open_bundle_files
from runtimes.bundle.hold import Hold
from runtimes.bundle.home import Home, is_home, read_home
from runtimes.bundle.open_variant import ServeOptions, closed_on_error
from runtimes.bundle.root import CURRENT
from runtimes.bundle.trust import Trust, check_trust
from runtimes.errors import UsageError
from runtimes.serving.exported import open_exported, verify_files
from runtimes.serving.subject import make_subject
from runtimes.serving.text_session import TextSession

if TYPE_CHECKING:
    from runtimes.generation.generator import Generator

Say = Callable[[str], object]


class Bundle(Protocol):
    """What was opened: a name, what the model does, and sessions that do it."""

    @property
    def name(self) -> str:
        """Of the bundle, or of the exported directory."""
        ...

    @property
    def task(self) -> str | None:
        """What the model does, where that is known."""
        ...

    def session(
        self, options: ServeOptions | None = None, *, variant: str | None = None, say: Say | None = None
    ) -> TextSession:
        """Open what runs here; close it, or use it in a ``with``.

        Args:
            options: How it is run.
            variant: The one variant that may run; None lets the bundle's order and policy choose.
            say: Told of each step back from what the bundle would rather run; None logs them as warnings.

        Raises:
            CorruptArtifact: a file is damaged, or nothing runs here.
            UsageError: there is no such variant.
        """
        ...

    def generator(self, options: ServeOptions | None = None, *, variant: str | None = None) -> Generator:
        """Open a decoder that writes text (see :func:`runtimes.generation.generator.open_generator`); close it.

        Args:
            options: How it is run.
            variant: The one variant that may run; None takes the first that fits.

        Raises:
            CorruptArtifact: a file is damaged, or nothing runs here.
            MissingDependency: onnxruntime-genai or jinja2 is missing, or too old.
            UsageError: it does not generate text, or there is no such variant.
        """
        ...


@dataclass(slots=True, kw_only=True)
class PackedBundle:
    """A bundle that is unpacked: installed, or in the cache.

    Attributes:
        home: Where it lies.
        signature: What was proved of who made it, in words.
        is_signed: Whether a key that is trusted vouches for it, and so for the code that it brings.
        is_checked: Whether its files were compared with what is listed a moment ago: that spares the first session
            doing it, and no other.
        hold: Keeps the version from being dropped while this is in use; None in the cache.
    """

    home: Home
    signature: str
    is_signed: bool
    is_checked: bool
    hold: Hold | None = None

    @property
    def name(self) -> str:
        """As it is installed."""
        return self.home.description.name

    @property
    def task(self) -> str | None:
        """What the model does, where that is known."""
        return self.home.description.task

    def session(
        self, options: ServeOptions | None = None, *, variant: str | None = None, say: Say | None = None
    ) -> TextSession:
        """Open the first variant that runs here; see :class:`Bundle`. Notes name every step and the signature."""
        description = self.home.description
        is_checked, self.is_checked = self.is_checked, False
        asked = options or ServeOptions()
        asked = replace(asked, allow_kernels=asked.allow_kernels or self.is_signed)
        opened = open_bundle_files(self.home, asked, only=variant, is_checked=is_checked)
        for fallback in opened.list_fallbacks():
            (say or _warn)(f"{self.name}: {fallback}")
        with closed_on_error(opened.session):
            subject = make_subject(
                opened.session,
                description.task,
                self.home.shared,
                files=description.files,
                labels=description.labels,
                notes=(self.signature, *(step.describe() for step in opened.steps), *opened.notes),
                max_length=description.max_length,
            )
        return TextSession(subject, variant=opened.variant.name)

    def generator(self, options: ServeOptions | None = None, *, variant: str | None = None) -> Generator:
        """Open the first variant that fits here; see :class:`Bundle`. Notes name what was passed over, and why."""
        # What generates is of no use to who does not.
        from runtimes.bundle.open_decoder import open_packed

        is_checked, self.is_checked = self.is_checked, False
        asked = options or ServeOptions()
        asked = replace(asked, allow_kernels=asked.allow_kernels or self.is_signed)
        return open_packed(self.home, asked, only=variant, is_checked=is_checked, notes=(self.signature,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedBundle:
    """A directory that `stepdown export` wrote, with the manifest that its files were checked against."""

    directory: Path
    manifest: Manifest
    task: str | None

    @property
    def name(self) -> str:
        """Of the directory."""
        return self.directory.resolve().name

    def session(
        self,
        options: ServeOptions | None = None,
        *,
        variant: str | None = None,
        say: Say | None = None,  # noqa: ARG002
    ) -> TextSession:
        """Open what ships; see :class:`Bundle`. There are no variants to choose from, and nothing to step back to."""
        _refuse_variant(variant)
        asked = options or ServeOptions()
        opened, notes = open_exported(
            self.directory, self.manifest, asked.threads, allow_host_code=asked.allow_host_code
        )
        with closed_on_error(opened):
            return TextSession(
                make_subject(opened, self.task, self.directory, files=self.manifest.list_files(), notes=notes)
            )

    def generator(self, options: ServeOptions | None = None, *, variant: str | None = None) -> Generator:
        """Open what ships; see :class:`Bundle`."""
        from runtimes.generation.generator import open_exported as open_decoder
        from runtimes.generation.generator import require_task

        _refuse_variant(variant)
        require_task(self.task, self.directory)
        return open_decoder(self.directory, self.manifest, (options or ServeOptions()).threads)


def open_bundle(path: Path | str, *, trust: Trust | None = None, cache: Path | None = None) -> Bundle:
    """Open a bundle's archive, an installed bundle, or an exported directory.

    Args:
        path: An archive; ``ROOT/<name>`` for its current version, or one of its versions; or an exported directory.
        trust: Whose signature is asked for; an exported directory has none.
        cache: Where archives are unpacked to; None takes the user's cache (see :mod:`runtimes.bundle.cache`).

    Raises:
        CorruptArtifact: it is damaged, or not signed as asked.
        UsageError: it is none of the three.
    """
    path, asked = Path(path), trust or Trust()
    found = next((place for place in (path, path / CURRENT) if is_home(place)), None)
    if found is not None:
        home = read_home(found)
        return _open_home(home, asked, is_checked=False, hold=Hold(home.path))
    if path.is_file():
        # What judges the contents of an archive is of no use to what is installed.
        from runtimes.bundle.unpacked import unpack_to_cache

        return _open_home(unpack_to_cache(path, asked, find_cache(cache) / "bundles"), asked, is_checked=True)
    if not (path / MANIFEST_NAME).is_file():
        raise UsageError(
            "there is no bundle", where=str(path), cure="give an archive, ROOT/NAME, or an exported directory"
        )
    refuse_trust(asked, path)
    manifest = read_manifest(path)
    verify_files(path, manifest)
    return ExportedBundle(directory=path, manifest=manifest, task=manifest.source.get("task"))


def is_bundle(path: Path) -> bool:
    """Whether a path is an archive by its name, or an installed bundle by what it holds."""
    is_named = path.name.endswith(".stepdown.tar.gz") and not path.is_dir()
    return is_named or is_home(path) or is_home(path / CURRENT)


def refuse_trust(trust: Trust | None, path: Path) -> None:
    """Raise UsageError where a signature is asked for of what is no bundle."""
    if trust is not None and (trust.keys or trust.require_signature):
        cure = "pack and sign it; or leave --key and --require-signature out"
        raise UsageError("only bundles are signed", where=str(path), cure=cure)


def _refuse_variant(variant: str | None) -> None:
    if variant is not None:
        raise UsageError("an exported directory has no variants", where="--variant", cure="leave it out")


def _warn(said: str) -> None:
    # Imported when there is something to say: every start would pay for it.
    import logging

    logging.getLogger("stepdown").warning(said)


def _open_home(home: Home, trust: Trust, *, is_checked: bool, hold: Hold | None = None) -> PackedBundle:
    report = check_trust(home.description_bytes, home.signatures, trust)
    return PackedBundle(
        home=home, signature=report.describe(), is_signed=report.state == "signed", is_checked=is_checked, hold=hold
    )
