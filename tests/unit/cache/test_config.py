from pathlib import Path
from typing import Any

import pytest

from carpool.cache.config import CacheConfig
from carpool.errors import StartError


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mode": "sometimes"}, "cache.mode"),
        ({"store": "mongodb"}, "cache.store"),
        ({"store": "redis"}, "cache.url"),
        ({"url": "http://127.0.0.1:6379"}, "cache.url"),
        ({"policy": "certain"}, "cache.policy"),
        ({"max_wrong": 0.0}, "cache.max_wrong"),
        ({"max_wrong": 1.0}, "cache.max_wrong"),
        ({"max_wrong": float("nan")}, "cache.max_wrong"),
        ({"audit_rate": 1.5}, "cache.audit_rate"),
        ({"judge_quality": (5, 4, 0, 0)}, "cache.judge_quality"),
        ({"judge": "some-model"}, "cache.judge"),
        ({"judge_score": 0.5}, "cache.judge_score"),
        ({"judge": "m", "judge_quality": (1, 1, 1, 1), "judge_score": float("nan")}, "cache.judge_score"),
        ({"threshold": 0.0}, "cache.threshold"),
        ({"threshold": 1.1}, "cache.threshold"),
        ({"threshold": float("nan")}, "cache.threshold"),
        ({"embedder": ""}, "cache.embedder"),
        ({"ttl_s": 0.0}, "cache.ttl_s"),
        ({"max_entries": 0}, "cache.max_entries"),
        ({"max_bytes": -1}, "cache.max_bytes"),
        ({"lookup_budget_ms": float("inf")}, "cache.lookup_budget_ms"),
        ({"max_turn_chars": -1}, "cache.max_turn_chars"),
        ({"temperature_limit": -0.1}, "cache.temperature_limit"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(StartError, match=named) as raised:
        CacheConfig(**fields)
    assert "\n" not in raised.value.message


def test_defaults_and_home_directory() -> None:
    config = CacheConfig(path=Path("~/answers.sqlite3"))
    assert config.path == Path.home() / "answers.sqlite3"
    assert (config.mode, config.store, config.policy, config.threshold) == ("on", "sqlite", "verified", 0.8)
