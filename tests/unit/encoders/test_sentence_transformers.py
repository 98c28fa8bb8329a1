"""What is read of a sentence-transformers directory."""

import json
from pathlib import Path
from typing import Any

import pytest

from carpool.encoders import SentenceTransformersConfig
from carpool.errors import ModelFailed
from carpool.runtimes.pooling import Pooling, PoolingMode

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}


def write(directory: Path, name: str, value: Any) -> None:
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text(json.dumps(value))


@pytest.mark.model
def test_the_starter_model(minilm_path: Path) -> None:
    assert SentenceTransformersConfig.read(minilm_path) == SentenceTransformersConfig(
        pooling=Pooling(PoolingMode.MEAN, normalize=True), max_tokens=256
    )


def test_a_directory_without_the_files_is_mean_pooled(tmp_path: Path) -> None:
    assert SentenceTransformersConfig.read(tmp_path) == SentenceTransformersConfig(
        pooling=Pooling(PoolingMode.MEAN, normalize=False), max_tokens=None
    )


@pytest.mark.parametrize(
    ("flag", "mode"),
    [
        ("pooling_mode_mean_tokens", PoolingMode.MEAN),
        ("pooling_mode_cls_token", PoolingMode.CLS),
        ("pooling_mode_max_tokens", PoolingMode.MAX),
    ],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling(tmp_path: Path, flag: str, mode: PoolingMode, normalize: bool) -> None:
    write(tmp_path, "modules.json", [TRANSFORMER, POOLING, NORMALIZE][: 3 if normalize else 2])
    flags = dict.fromkeys(("pooling_mode_mean_tokens", "pooling_mode_cls_token"), False)
    write(tmp_path, "1_Pooling/config.json", {"word_embedding_dimension": 384, **flags, flag: True})
    assert SentenceTransformersConfig.read(tmp_path).pooling == Pooling(mode, normalize)


@pytest.mark.parametrize("mode", list(PoolingMode))
def test_pooling_as_newer_versions_of_the_library_write_it(tmp_path: Path, mode: PoolingMode) -> None:
    place = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    write(tmp_path, "modules.json", [TRANSFORMER, POOLING | {"type": place}])
    write(tmp_path, "1_Pooling/config.json", {"embedding_dimension": 384, "pooling_mode": mode.value})
    assert SentenceTransformersConfig.read(tmp_path).pooling == Pooling(mode)


@pytest.mark.parametrize(
    ("files", "max_tokens"),
    [
        ({"tokenizer_config.json": {"model_max_length": 512}}, 512),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, None),
        ({"tokenizer_config.json": {"model_max_length": 10**30}}, None),
        ({"tokenizer_config.json": {}}, None),
        (
            {
                "tokenizer_config.json": {"model_max_length": 512},
                "sentence_roberta_config.json": {"max_seq_length": 128},
            },
            128,
        ),
    ],
)
def test_the_window(tmp_path: Path, files: dict[str, Any], max_tokens: int | None) -> None:
    for name, content in files.items():
        write(tmp_path, name, content)
    assert SentenceTransformersConfig.read(tmp_path).max_tokens == max_tokens


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        ({}, "", ""),
        ({"query": "query: ", "passage": "passage: "}, "query: ", "passage: "),
        ({"query": "q ", "document": "", "passage": "p "}, "q ", "p "),
        ({"web": "w ", "document": "d ", "corpus": "c "}, "", "d "),
    ],
)
def test_prompts_of_queries_and_documents(
    tmp_path: Path, prompts: dict[str, str], query: str, document: str
) -> None:
    write(tmp_path, "config_sentence_transformers.json", {"prompts": prompts})
    extra = SentenceTransformersConfig.read(tmp_path)
    assert (extra.query_prompt, extra.document_prompt) == (query, document)


def test_the_similarity(tmp_path: Path) -> None:
    assert SentenceTransformersConfig.read(tmp_path).similarity == "cosine"
    write(tmp_path, "config_sentence_transformers.json", {"similarity_fn_name": None})
    assert SentenceTransformersConfig.read(tmp_path).similarity == "cosine"
    write(tmp_path, "config_sentence_transformers.json", {"similarity_fn_name": "dot"})
    assert SentenceTransformersConfig.read(tmp_path).similarity == "dot"


def test_window_case_and_prompts(tmp_path: Path) -> None:
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": True})
    prompts = {"query": "query: ", "passage": "passage: "}
    extra = {"prompts": prompts, "default_prompt_name": "query"}
    write(tmp_path, "config_sentence_transformers.json", extra)
    assert SentenceTransformersConfig.read(tmp_path) == SentenceTransformersConfig(
        max_tokens=128, lower_case=True, prompts=prompts, default_prompt="query: "
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"pooling_mode_lasttoken": True},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode_mean_sqrt_len_tokens": True},
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
    ],
)
def test_a_pooling_that_cannot_be_reproduced_is_refused(tmp_path: Path, config: dict[str, bool]) -> None:
    write(tmp_path, "modules.json", [TRANSFORMER, POOLING])
    write(tmp_path, "1_Pooling/config.json", config)
    with pytest.raises(ModelFailed, match="not supported"):
        SentenceTransformersConfig.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", [TRANSFORMER, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]),
        ("modules.json", {"not": "a list"}),
        ("modules.json", [POOLING]),
        ("sentence_bert_config.json", {"max_seq_length": "long"}),
        ("sentence_bert_config.json", {"max_seq_length": 0}),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}),
        ("config_sentence_transformers.json", {"prompts": ["query"]}),
        ("config_sentence_transformers.json", {"similarity_fn_name": "telepathy"}),
        ("tokenizer_config.json", {"model_max_length": "long"}),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, name: str, content: Any) -> None:
    write(tmp_path, name, content)
    with pytest.raises(ModelFailed):
        SentenceTransformersConfig.read(tmp_path)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(ModelFailed):
        SentenceTransformersConfig.read(tmp_path)
