"""The commands other than `serve`, as a person types them."""

import hashlib
import subprocess
import sys
from pathlib import Path

import yaml

from carpool.settings import load


def carpool(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "carpool", *args], capture_output=True, text=True)


def test_a_created_key_is_admitted_by_the_lines_that_come_with_it(tmp_path: Path) -> None:
    done = carpool("keys", "create", "--print", "--name", "web", "--scope", "inference", "--scope", "metrics")
    assert done.returncode == 0
    key = done.stdout.splitlines()[0].removeprefix("The key, shown once: ")
    config = tmp_path / "carpool.yaml"
    config.write_text("keys:" + done.stdout.partition("keys:")[2])

    (admitted,) = load(config=config, environ={}).gateway_config().keys

    assert admitted.hash == f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    assert (admitted.name, admitted.tenant, admitted.scopes) == ("web", "web", ("inference", "metrics"))
    assert key not in config.read_text()


def test_models_lists_and_fetches(
    model_directory: Path, smollm2_path: Path, minilm_path: Path, tmp_path: Path
) -> None:
    listed = carpool("models")
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()] == [
        "smollm2-135m-instruct",
        "all-minilm-l6-v2",
    ]
    config = tmp_path / "carpool.yaml"
    config.write_text(yaml.safe_dump({"model_dir": str(model_directory)}))
    fetched = carpool("models", "fetch", "--config", str(config))
    assert [line.split("\t")[1] for line in fetched.stdout.splitlines()] == [
        str(smollm2_path),
        str(minilm_path),
    ]


def test_doctor_tells_the_facts() -> None:
    done = carpool("doctor")
    assert done.returncode == 0
    assert "computes in" in done.stdout
    assert "model all-minilm-l6-v2" in done.stdout


def test_bad_settings_are_one_line_everywhere(tmp_path: Path) -> None:
    for command in ("serve", "models", "doctor"):
        done = carpool(command, "--config", str(tmp_path / "none.yaml"))
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert "none.yaml" in done.stderr
