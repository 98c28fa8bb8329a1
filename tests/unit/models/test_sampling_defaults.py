"""How a model is sampled where the client does not say."""

import json
from pathlib import Path

import pytest

from carpool.errors import ModelFailed
from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.sampling_defaults import SamplingDefaults, sampling_defaults
from carpool.models.starter import CHAT_MODEL


def test_the_starter_has_its_own(smollm2_path: Path) -> None:
    defaults = sampling_defaults(ModelReference.parse(CHAT_MODEL.reference), open_checkpoint(smollm2_path))
    assert (defaults.temperature, defaults.top_p, defaults.top_k) == (0.2, 0.9, 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": 2},
            SamplingDefaults(0.6, top_k=20),
        ),
        ({"do_sample": True, "temperature": None}, SamplingDefaults()),
        ({"temperature": 0.6}, SamplingDefaults()),
        (None, SamplingDefaults()),
    ],
)
def test_generation_config_counts_where_it_samples(
    tmp_path: Path, minilm_path: Path, content: object, expected: SamplingDefaults
) -> None:
    for file in minilm_path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    if content is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(content))
    reference = ModelReference.parse(str(tmp_path))
    assert sampling_defaults(reference, open_checkpoint(tmp_path)) == expected


def test_a_broken_one_is_named(tmp_path: Path, minilm_path: Path) -> None:
    for file in minilm_path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "top_p": "high"}')
    with pytest.raises(ModelFailed, match=r"generation_config\.json.*top_p"):
        sampling_defaults(ModelReference.parse(str(tmp_path)), open_checkpoint(tmp_path))
