"""The page at ``/``: a few static files, and nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from sis_server.answering import refusal
from sis_server.errors import ApiError

KINDS = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "events.js": "text/javascript",
    "history.js": "text/javascript",
    "tree.js": "text/javascript",
    "markdown.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


async def page(request: Request) -> Response:
    """One of the files that `KINDS` names."""
    name = request.path_params.get("name", "index.html")
    if name not in KINDS:
        return refusal(ApiError(404, "there is no such file"))
    data = files("sis_server").joinpath("page", name).read_bytes()
    return Response(data, media_type=KINDS[name], headers=HEADERS)
