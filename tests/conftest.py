"""Fixtures for all tests: the starter models, fetched once into the model directory, then used offline."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import CHAT_MODEL, EMBEDDING_MODEL, StarterModel

settings.register_profile("carpool", deadline=None)  # how long an example takes says nothing here
settings.load_profile("carpool")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as `measured`; a process of `pytest -n` cannot print it itself."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    for report in reports:
        for name, value in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(f"{report.nodeid}: {value}")


def _fetch(model: StarterModel, directory: Path) -> Path:
    return fetch(ModelReference.parse(model.reference), directory, on_progress=lambda progress: None)


@pytest.fixture(scope="session")
def model_directory() -> Path:
    """Where models are kept: CARPOOL_MODEL_DIR, else the default."""
    return Path(os.environ.get("CARPOOL_MODEL_DIR") or DEFAULT_DIRECTORY).expanduser()


@pytest.fixture(scope="session")
def smollm2_path(model_directory: Path) -> Path:
    """The chat model's GGUF file."""
    return _fetch(CHAT_MODEL, model_directory)


@pytest.fixture(scope="session")
def minilm_path(model_directory: Path) -> Path:
    """The embedding model's directory."""
    return _fetch(EMBEDDING_MODEL, model_directory)
