"""The OpenAPI document says what the server does."""

from starlette.routing import Route

from carpool.gateway.chat_schema import ChatRequest
from tests.unit.gateway.serving import Service

UNDOCUMENTED = {"/docs", "/openapi.json"}


async def test_every_route_is_in_the_document_with_its_body() -> None:
    service = Service()
    async with service.http() as http:
        document = (await http.get("/openapi.json")).json()
    routed = {
        (route.path.replace(":path", ""), method.lower())
        for route in service.app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    documented = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert {pair for pair in routed if pair[0] not in UNDOCUMENTED} == documented
    post = document["paths"]["/v1/chat/completions"]["post"]
    ref = post["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][ref.rsplit("/", 1)[-1]]
    assert set(schema["properties"]) == set(ChatRequest.__struct_fields__)
    assert schema["required"] == ["model", "messages"]
    assert {"200", "400", "401", "403", "404", "413", "429", "500", "503", "504"} == set(post["responses"])


def test_every_reference_in_the_document_leads_somewhere() -> None:
    document = Service().app.openapi()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        return [ref for item in node for ref in references(item)] if isinstance(node, list) else []

    found = set(references(document))
    assert found
    assert found <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_every_body_is_of_the_kinds_that_the_page_of_the_document_shows() -> None:
    """docs.html lists the fields of a reference, or of each of several."""
    document = Service().app.openapi()
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]
        for operations in document["paths"].values()
        for operation in operations.values()
        if "requestBody" in operation
    ]
    assert bodies
    for body in bodies:
        for each in body.get("oneOf", [body]):
            assert "properties" in document["components"]["schemas"][each["$ref"].rsplit("/", 1)[-1]]
