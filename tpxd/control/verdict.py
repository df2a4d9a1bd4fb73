"""Health as a whole: one word, and every reason why it is not the better one."""

from __future__ import annotations

from tpxd import __version__
from tpxd.control.state import ControlState, Document

HEALTHY = "healthy"
UNHEALTHY = "unhealthy"


def overall(state: ControlState) -> Document:
    """The document of `GET /health`.

    Shape: `status`, `reasons` (one line each), `version`, `connections` by id, `intake`, `lrc`, `spool`, `keptQueues`,
    `problems`.
    Unhealthy is an active connection that is, a part that is, and a file that can be no connection.
    """
    connections = state.connections()
    parts = {"intake": state.intake_health(), "lrc": state.lrc_health(), "spool": state.spool_health()}
    problems = state.problems()
    reasons = [
        f"{id}: {document['reason'] or document['state']}"
        for id, document in connections.items()
        if document["active"] and not document["healthy"]
    ]
    reasons += [f"{name}: {part.get('reason')}" for name, part in parts.items() if not part["healthy"]]
    reasons += problems
    return {
        "status": UNHEALTHY if reasons else HEALTHY,
        "reasons": reasons,
        "version": __version__,
        "connections": connections,
        **parts,
        "keptQueues": state.kept_queues(),
        "problems": problems,
    }


def probe(answer: tuple[bool, str | None]) -> Document:
    """The document of a probe that asks one question."""
    good, reason = answer
    return {"status": HEALTHY if good else UNHEALTHY, "reasons": [] if good else [reason or "no reason is known"]}
