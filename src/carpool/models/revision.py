"""Which model a reference stands for now: what is behind it may change between two starts."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from carpool.models.reference import ModelReference, Source
from carpool.models.source import place_of

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_NOTES = ".cache/huggingface/download"
"""Where the hub's client notes of each file in a directory which commit it is of, in the first line."""


def revision(reference: ModelReference, directory: Path) -> str | None:
    """Differs between two models and is the same for the same files; None while nothing is fetched.

    A package's version and a commit of the hub say it in any place. Local files are told by their names,
    sizes and times of change, which costs no reading: a copy on another machine is the same model only where
    the times were copied as well.
    """
    match reference.source:
        case Source.PACKAGE:
            return str(reference)
        case Source.PATH:
            return _of_files(Path(reference.name))
    if reference.revision is not None and _COMMIT.fullmatch(reference.revision):
        return str(reference)
    place = place_of(reference, directory)
    if not place.exists():
        return None
    commits = sorted(set(_commits(place)))
    return f"{reference}@{'+'.join(commits)}" if commits else _of_files(place)


def _commits(place: Path) -> Iterable[str]:
    for note in (place / _HUB_NOTES).rglob("*.metadata"):
        with note.open() as lines:
            commit = lines.readline().strip()
        if _COMMIT.fullmatch(commit):
            yield commit


def _of_files(path: Path) -> str:
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        name = file.relative_to(path.parent if file == path else path)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            status = file.stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return f"files:{digest.hexdigest()}"
