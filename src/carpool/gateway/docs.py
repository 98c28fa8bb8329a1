"""`/docs`: the OpenAPI document as a page that needs nothing from elsewhere."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from carpool.gateway.dashboard import PAGE_HEADERS

_PAGE = (Path(__file__).parent / "static" / "docs.html").read_bytes()


async def docs(_: Request) -> Response:
    """`GET /docs`."""
    return Response(_PAGE, media_type="text/html", headers=PAGE_HEADERS)


async def openapi(request: Request) -> Response:
    """`GET /openapi.json`."""
    return JSONResponse(request.app.openapi())
