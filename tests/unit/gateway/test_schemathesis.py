"""Requests made up from our own OpenAPI document: no 5xx, and no reply that it does not tell of.

`CARPOOL_SCHEMATHESIS_EXAMPLES` sets the requests of each operation; `make chaos` makes 100.
"""

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.unit.gateway.local_client import LocalClient
from tests.unit.gateway.serving import Service

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
EXAMPLES = int(os.environ.get("CARPOOL_SCHEMATHESIS_EXAMPLES", "5"))
MODELS = {"/v1/chat/completions": "parrot", "/v1/completions": "parrot", "/v1/embeddings": "vectors"}

service = Service(client=LocalClient(reranker=True), cached=True)
schema = schemathesis.openapi.from_dict(service.app.openapi()).exclude(
    path="/dashboard/feed"
)  # it never ends
schema.app = service.app


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_document_is_kept(case: Any) -> None:
    case.headers.pop("x-request-timeout", None)  # a tiny one is a 504, as it should be
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) % 4:
        body["model"] = MODELS.get(case.path, "judge")  # no made-up name is served
    case.validate_response(case.call(base_url="http://localhost:8000"), checks=CHECKS)
