"""The routes of the control plane."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from tpxd import __version__
from tpxd.control.answers import QUOTED, JsonResponse, error_response
from tpxd.control.bodies import Bodies
from tpxd.control.guard import Guard
from tpxd.control.state import ControlState, Document
from tpxd.control.verdict import HEALTHY, overall, probe
from tpxd.errors import SpoolUnavailable
from tpxd.events import KEPT
from tpxd.lorawan.downlinks import MAX_BODY_BYTES, DownlinkError, normalised_dev_eui

MAX_TRACE: Final = 1_000
READ: Final = ["GET", "HEAD"]


def control_app(state: ControlState, token: str) -> ASGIApp:
    """The application, its gate included; `token` is "" where none is set."""
    # No documentation routes: their models would take memory for pages that no one opens on an edge server.
    app = FastAPI(title="tpxd", version=__version__, openapi_url=None, redirect_slashes=False)
    _errors(app)
    _health(app, state)
    _all_downlinks(app, state)
    _downlinks(app, state)
    return Guard(Bodies(app), token)


def _health(app: FastAPI, state: ControlState) -> None:
    @app.api_route("/health/live", methods=READ)
    async def live() -> JsonResponse:
        return _by_status(probe(state.live()))

    @app.api_route("/health/ready", methods=READ)
    async def ready() -> JsonResponse:
        return _by_status(probe(state.ready()))

    @app.api_route("/health", methods=READ)
    async def health() -> JsonResponse:
        return _by_status(overall(state))

    @app.api_route("/health/{id}", methods=READ)
    async def connection(id: str) -> JsonResponse:
        document = state.connection(id)
        if document is None:
            raise _unknown(id)
        return JsonResponse(document, 200 if document["healthy"] else 503)


def _all_downlinks(app: FastAPI, state: ControlState) -> None:
    @app.post("/reconnect")
    async def reconnect_all() -> JsonResponse:
        state.reconnect(None)
        return JsonResponse({"message": "every connection is tried again now"}, 202)

    @app.post("/connections/{id}/reconnect")
    async def reconnect(id: str) -> JsonResponse:
        if not state.reconnect(id):
            raise _unknown(id)
        return JsonResponse({"message": f"{id} is tried again now"}, 202)

    @app.post("/reload")
    async def reload() -> JsonResponse:
        state.reload()
        return JsonResponse({"message": "the files are read again"}, 202)

    @app.get("/events")
    async def events(count: Annotated[int, Query(ge=1, le=KEPT)] = 100, connection: str | None = None) -> JsonResponse:
        return JsonResponse(state.events(count, connection))


def _downlinks(app: FastAPI, state: ControlState) -> None:
    @app.post("/downlinks")
    async def send(request: Request) -> JsonResponse:
        status, document = await state.send_downlink(await _body(request))
        return JsonResponse(document, status) if status == 202 else error_response(status, document["message"])

    @app.get("/downlinks/{id}")
    async def downlink(id: int) -> JsonResponse:
        document = state.downlink(id)
        if document is None:
            raise HTTPException(404, f"there is no downlink {id}, or it made room for newer ones")
        return JsonResponse(document)

    @app.get("/trace/{dev_eui}")
    async def trace(dev_eui: str, limit: Annotated[int, Query(ge=1, le=MAX_TRACE)] = 50) -> JsonResponse:
        try:
            return JsonResponse(await state.trace(normalised_dev_eui(dev_eui), limit))
        except DownlinkError as error:
            raise HTTPException(400, error.message) from None
        except SpoolUnavailable as error:
            raise HTTPException(503, error.message) from None


async def _body(request: Request) -> bytes:
    """The body of a downlink, which is never longer than any downlink."""
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        raise HTTPException(413, f"a downlink has at most {MAX_BODY_BYTES} bytes")
    return body


def _errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> JsonResponse:
        bare = error.status_code == 404 and error.detail == "Not Found"
        return error_response(
            error.status_code, f"there is no {request.scope['path'][:QUOTED]}" if bare else error.detail
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JsonResponse:
        return error_response(400, "; ".join(_place(one) for one in error.errors()))

    @app.exception_handler(500)
    async def bug(_request: Request, _error: Exception) -> JsonResponse:
        return error_response(500, "internal error, see the log")


def _place(error: dict[str, Any]) -> str:
    return f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"


def _unknown(id: str) -> HTTPException:
    return HTTPException(404, f"there is no connection {id[:QUOTED]}")


def _by_status(document: Document) -> JsonResponse:
    return JsonResponse(document, 200 if document["status"] == HEALTHY else 503)
