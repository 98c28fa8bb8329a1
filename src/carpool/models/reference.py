"""What an operator writes to name a model, taken apart."""

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from carpool.errors import StartError
from carpool.models.starter import STARTER_MODELS

_FORMS = "hf:org/name@revision, org/name, a path, file.gguf, or pypi:package==version"

_HUB = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)"
    r"(/(?P<file>[\w./-]+\.gguf))?"
    r"(@(?P<revision>[A-Za-z0-9][\w./-]*))?",
    re.ASCII,
)
_PACKAGE = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<revision>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
)
_QUANTISATION = re.compile(r"[.-](i?q\d\w*|bf16|f16|f32)$", re.IGNORECASE)


class Source(StrEnum):
    """Where a model comes from."""

    HUB = "hf"
    PACKAGE = "pypi"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A parsed reference."""

    source: Source
    name: str
    """`org/name`, the package's normalised name, or the path."""
    revision: str | None = None
    """Branch, tag or commit on the hub (None: `main`); the package's version."""
    file: str | None = None
    """One GGUF file of a hub repository."""

    @classmethod
    def parse(cls, text: str) -> "ModelReference":
        """Parse a reference; a bare name that exists as a local path is that path, any other is on the hub.

        Raises `StartError` with one line for a malformed one.
        """
        text = text.strip()
        scheme, colon, rest = text.partition(":")
        if colon and scheme == Source.PACKAGE:
            return cls._package(text, rest)
        if colon and scheme == Source.HUB:
            return cls._hub(text, rest)
        is_path = text.startswith(("/", "./", "../", "~")) or text.lower().endswith(".gguf")
        if is_path or os.path.exists(text):
            return cls(Source.PATH, str(Path(text).expanduser()))
        return cls._hub(text, text)

    @property
    def model_id(self) -> str:
        """The name clients use, in lower case, known before anything is fetched.

        The starter models have their own; a hub repository gives its name without the organisation, a package
        its name, a path its last part without `.gguf` and the quantisation.
        """
        starter = STARTER_MODELS.get(str(self))
        if starter is not None:
            return starter.model_id
        if self.source is Source.PATH:
            last = Path(self.name).resolve().name  # resolved, since the path may be "."
        else:
            last = (self.file or self.name).rsplit("/", 1)[-1]
        if last.lower().endswith(".gguf"):
            last = _QUANTISATION.sub("", last[: -len(".gguf")])
        return re.sub(r"[^a-z0-9._-]+", "-", last.lower())

    def __str__(self) -> str:
        match self.source:
            case Source.PACKAGE:
                return f"pypi:{self.name}=={self.revision}"
            case Source.HUB:
                file = f"/{self.file}" if self.file else ""
                revision = f"@{self.revision}" if self.revision else ""
                return f"hf:{self.name}{file}{revision}"
            case Source.PATH:
                return self.name

    @classmethod
    def _package(cls, text: str, rest: str) -> "ModelReference":
        match = _PACKAGE.fullmatch(rest)
        if match is None:
            raise StartError(f"model reference {text!r} is malformed; the form is pypi:package==version")
        return cls(Source.PACKAGE, re.sub(r"[-_.]+", "-", match["name"]).lower(), match["revision"])

    @classmethod
    def _hub(cls, text: str, rest: str) -> "ModelReference":
        match = _HUB.fullmatch(rest)
        if match is None or ".." in rest or "--" in rest:
            raise StartError(f"model reference {text!r} is malformed; the forms are {_FORMS}")
        return cls(Source.HUB, match["name"], match["revision"], match["file"])
