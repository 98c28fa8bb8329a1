"""The OpenAPI document: every route, from the same structs that check the bodies and write the replies."""

from typing import Any

import msgspec

from carpool import __version__
from carpool.cache.calibration import Calibration
from carpool.gateway.cache_admin_reply import (
    CachedAnswer,
    CachedAnswers,
    CacheStatus,
    Invalidated,
    Judged,
    PendingAudits,
)
from carpool.gateway.cache_admin_schema import (
    AuditQuery,
    EntryQuery,
    Invalidation,
    Selection,
    VerdictRequest,
)
from carpool.gateway.cache_study_schema import (
    CalibrationRequest,
    EvaluationReply,
    EvaluationRequest,
)
from carpool.gateway.chat_reply import ChatChunk, ChatCompletion
from carpool.gateway.chat_schema import ChatRequest
from carpool.gateway.completion_reply import Completion
from carpool.gateway.completion_schema import CompletionRequest
from carpool.gateway.deadline import HEADER
from carpool.gateway.embedding_reply import EmbeddingList
from carpool.gateway.embedding_schema import EmbeddingRequest
from carpool.gateway.error_reply import ErrorReply
from carpool.gateway.health import Liveness, Readiness
from carpool.gateway.live_settings import LiveSettings, ModelPatch, SettingsPatch
from carpool.gateway.model_admin import ManagedModel, ManagedModels
from carpool.gateway.models import Model, ModelList
from carpool.gateway.rerank_reply import Ranking, TeiResult
from carpool.gateway.rerank_schema import RerankRequest, TeiRerankRequest

_STRUCTS = (
    ChatRequest,
    ChatCompletion,
    ChatChunk,
    CompletionRequest,
    Completion,
    EmbeddingRequest,
    EmbeddingList,
    RerankRequest,
    TeiRerankRequest,
    Ranking,
    TeiResult,
    ErrorReply,
    Liveness,
    Readiness,
    Model,
    ModelList,
    CacheStatus,
    CachedAnswers,
    Invalidation,
    Invalidated,
    PendingAudits,
    VerdictRequest,
    Judged,
    EvaluationRequest,
    EvaluationReply,
    CalibrationRequest,
    Calibration,
    ManagedModels,
    ModelPatch,
    LiveSettings,
    SettingsPatch,
)
_ERRORS = {
    "400": "The body or a field of it is not valid.",
    "401": "No key, or one that is not known.",
    "403": "The key's scope does not cover this, or the host or origin is foreign.",
    "404": "No such thing: a model, a cache, an audit.",
    "413": "The body is too large.",
    "429": "The key's own limit is reached.",
    "500": "The server failed.",
    "503": "Full, loading, restarting or shutting down; `retry-after` tells when to come back.",
    "504": "The request's time was up.",
}
_TIMEOUT = {
    "name": HEADER,
    "in": "header",
    "description": "Seconds after which the request has failed with 504, within what the server allows.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_MODEL_ROUTE_ERRORS = tuple(_ERRORS)
_PLAIN_ERRORS = ("401", "403", "500", "503")
_ADMIN_ERRORS = ("400", "401", "403", "404", "413", "500", "503", "504")


def openapi_document() -> dict[str, Any]:
    """The document of the whole server."""
    _, components = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Carpool",
            "version": __version__,
            "description": "Embedding models, rerankers and LLMs behind one OpenAI-compatible port.",
        },
        "paths": {
            "/v1/chat/completions": {
                "post": _ask("Continue a conversation", ChatRequest, ChatCompletion, stream=ChatChunk)
            },
            "/v1/completions": {
                "post": _ask("Continue prompts", CompletionRequest, Completion, stream=Completion)
            },
            "/v1/embeddings": {"post": _ask("Turn inputs into vectors", EmbeddingRequest, EmbeddingList)},
            **{path: {"post": _rerank()} for path in ("/rerank", "/v1/rerank", "/v2/rerank")},
            "/v1/models": {"get": _get("The configured models", ModelList)},
            "/v1/models/{model_id}": {
                "get": _get("One model, by id or alias", Model, parameter="model_id", errors=("404",))
            },
            "/health/live": {"get": _get("Whether the process answers", Liveness, errors=())},
            "/health/ready": {"get": _readiness()},
            "/metrics": {"get": _page("Metrics for Prometheus", "text/plain")},
            "/dashboard": {"get": _page("The live page", "text/html")},
            "/dashboard/feed": {"get": _page("The live page's numbers", "text/event-stream")},
            **_cache_admin(),
            **_model_admin(),
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _ref(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{struct.__name__}"}}


def _reply(struct: type[msgspec.Struct], description: str = "OK") -> dict[str, Any]:
    return {"description": description, "content": {"application/json": _ref(struct)}}


def _errors(statuses: tuple[str, ...]) -> dict[str, Any]:
    return {status: _reply(ErrorReply, _ERRORS[status]) for status in statuses}


def _ask(
    summary: str,
    body: type[msgspec.Struct],
    reply: type[msgspec.Struct],
    stream: type[msgspec.Struct] | None = None,
) -> dict[str, Any]:
    success = _reply(reply)
    if stream is not None:
        success["content"]["text/event-stream"] = _ref(stream)
    return {
        "summary": summary,
        "description": (body.__doc__ or "").strip(),
        "parameters": [_TIMEOUT],
        "requestBody": {"required": True, "content": {"application/json": _ref(body)}},
        "responses": {"200": success, **_errors(_MODEL_ROUTE_ERRORS)},
    }


def _rerank() -> dict[str, Any]:
    operation = _ask("Put documents in order by how well they answer a query", RerankRequest, Ranking)
    operation["description"] = "In Cohere's and Jina's shape, or in that of text-embeddings-inference."
    bodies = {"oneOf": [_ref(body)["schema"] for body in (RerankRequest, TeiRerankRequest)]}
    operation["requestBody"]["content"]["application/json"]["schema"] = bodies
    bare_list = {"type": "array", "items": _ref(TeiResult)["schema"]}
    replies = {"oneOf": [_ref(Ranking)["schema"], bare_list]}
    operation["responses"]["200"]["content"]["application/json"]["schema"] = replies
    operation["responses"]["422"] = _reply(ErrorReply, "A body in the second shape is not valid.")
    return operation


def _get(
    summary: str,
    reply: type[msgspec.Struct],
    parameter: str | None = None,
    errors: tuple[str, ...] = (),
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": _reply(reply), **_errors((*_PLAIN_ERRORS, *errors))},
    }
    if parameter is not None:
        operation["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return operation


def _readiness() -> dict[str, Any]:
    operation = _get("Whether every model is up, and how far each is", Readiness)
    operation["responses"]["503"] = _reply(Readiness, "Not every model is up.")
    return operation


def _cache_admin() -> dict[str, Any]:
    """The routes of the answer cache, which ask for the scope `admin`."""
    export = _admin("Stored answers, one JSON object a line", CachedAnswer, query=Selection)
    ok = export["responses"]["200"]
    ok["content"] = {"application/x-ndjson": ok["content"]["application/json"]}
    judge = _admin("Give a verdict on a pending audit", Judged, body=VerdictRequest)
    judge["parameters"] = [{"name": "audit_id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return {
        "/admin/cache": {"get": _admin("What the cache holds, and how often it is wrong", CacheStatus)},
        "/admin/cache/entries": {"get": _admin("The newest stored answers", CachedAnswers, query=EntryQuery)},
        "/admin/cache/export": {"get": export},
        "/admin/cache/invalidate": {"post": _admin("Drop stored answers", Invalidated, body=Invalidation)},
        "/admin/cache/audits": {
            "get": _admin("Judgements that wait for a verdict", PendingAudits, query=AuditQuery)
        },
        "/admin/cache/audits/{audit_id}": {"post": judge},
        "/admin/cache/eval": {
            "post": _admin("Hits and wrong hits on labelled pairs", EvaluationReply, body=EvaluationRequest)
        },
        "/admin/cache/calibrate": {
            "post": _admin("A calibration fitted to labelled pairs", Calibration, body=CalibrationRequest)
        },
    }


def _admin(
    summary: str,
    reply: type[msgspec.Struct],
    *,
    body: type[msgspec.Struct] | None = None,
    query: type[msgspec.Struct] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": _reply(reply), **_errors(_ADMIN_ERRORS)},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": _ref(body)}}
    if query is not None:
        properties = msgspec.json.schema(query)["$defs"][query.__name__]["properties"]
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": schema} for name, schema in properties.items()
        ]
    return operation


def _model_admin() -> dict[str, Any]:
    """The routes for operators of models, which ask for the scope `admin`."""

    def one(summary: str) -> dict[str, Any]:
        return _get(summary, ManagedModel, parameter="model_id", errors=("400", "404"))

    load = one("Load a model; its phase tells how it goes on")
    unload = one("Finish what runs on a model and free its memory")
    for operation in (load, unload):
        operation["responses"]["202"] = operation["responses"].pop("200")
    tune = one("Change knobs of a model while it runs")
    show = _get("The settings that can be changed while the server runs", LiveSettings)
    change = _get("Change settings while the server runs", LiveSettings, errors=("400",))
    for operation, body in ((tune, ModelPatch), (change, SettingsPatch)):
        operation["requestBody"] = {"required": True, "content": {"application/json": _ref(body)}}
        operation["responses"] |= _errors(("413", "504"))
    return {
        "/admin/models": {"get": _get("The configured models, and what they take", ManagedModels)},
        "/admin/models/{model_id}": {
            "get": one("One model, by id or alias, and what it takes"),
            "patch": tune,
        },
        "/admin/settings": {"get": show, "patch": change},
        "/admin/models/{model_id}/load": {"post": load},
        "/admin/models/{model_id}/unload": {"post": unload},
    }


def _page(summary: str, media_type: str) -> dict[str, Any]:
    success = {"description": "OK", "content": {media_type: {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": success, **_errors(_PLAIN_ERRORS)}}
