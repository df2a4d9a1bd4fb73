"""How the control plane answers: JSON, never cached, errors as IoT Flow's API writes them."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.responses import Response

from tpxd.log import masked

QUOTED: Final = 200
"""So many characters of what a stranger wrote are repeated, at most."""


class JsonResponse(Response):
    """A document as JSON; every answer is of this moment only."""

    def __init__(self, content: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> None:
        fixed = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        super().__init__(content, status_code, {**fixed, **(headers or {})}, "application/json")

    def render(self, content: Any) -> bytes:
        """The body; what far ends said in it is masked."""
        return masked(orjson.dumps(content).decode()).encode()


def error_response(status: int, message: str) -> JsonResponse:
    """`{"code": "com-4004", "message": …}`: the status' last digits stand in the code, as IoT Flow's do."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    return JsonResponse({"code": f"com-{status // 100}{status % 100:03d}", "message": message}, status, headers)
