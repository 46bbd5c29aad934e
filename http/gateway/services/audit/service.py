"""The `audit_service`: questions to the audit trail. Asking is audited as well."""

from collections.abc import Callable
from typing import Annotated

import msgspec

from actors.metrics import Metrics
from backends.ports.stores import AuditEntry, AuditFilter, AuditStore
from gateway.request import Response
from gateway.services import parameters
from gateway.services.answers import CONTENT_JSON, NO_STORE
from gateway.services.operation import Call, Operation, Parameter, Reply
from gateway.services.query import Query, make_cursor, page
from gateway.services.service import Service
from gateway.services.times import parse_time, rfc3339


class AuditItem(msgspec.Struct, frozen=True):
    """One audit record as clients see it."""

    id: str
    at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    subject: str
    action: str
    entity: str
    outcome: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["ok", "denied", "failed"]})]
    request_id: str
    status: int
    client: str


class AuditPage(msgspec.Struct, frozen=True):
    """One page of records, newest first."""

    items: list[AuditItem]
    next_cursor: str | None


class AuditPosition(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds: the last record shown."""

    at: float
    id: str


_TIME = {"type": "string", "description": "RFC 3339 with an offset, or Unix seconds."}
_EXAMPLE = {
    "id": "0197c7a2-6f0e-7c53-9d2b-6a5b0c7d8e9f",
    "at": "2026-01-31T12:00:00.000000Z",
    "subject": "alice",
    "action": "user.read",
    "entity": "user/0197c7a2-6f0e-7c53-9d2b-6a5b0c7d8e90",
    "outcome": "ok",
    "request_id": "0197c7a2-6f0e-7c53-9d2b-6a5b0c7d8e91",
    "status": 200,
    "client": "192.0.2.7",
}


class AuditService(Service):
    """Queries *store*, newest first. The record of a query comes after its answer."""

    prefix = "/audit"
    noun = "audit"

    def __init__(
        self, store: AuditStore, *, new_id: Callable[[], str], now: Callable[[], float], metrics: Metrics
    ) -> None:
        super().__init__(new_id=new_id, now=now, metrics=metrics)
        self._store = store

    async def query(self, call: Call) -> Response:
        query = Query(call.request.query)
        limit, position = query.limit(), query.cursor(AuditPosition)
        where = AuditFilter(
            subject=query.text("subject"),
            action=query.text("action"),
            entity=query.text("entity"),
            since=query.parsed("since", parse_time),
            until=query.parsed("until", parse_time),
        )
        before = None if position is None else (position.at, position.id)
        found = await self._store.query(where, before, limit + 1)
        shown = found[:limit]
        cursor = make_cursor(AuditPosition(shown[-1].at, shown[-1].id)) if len(found) > limit else None
        return Response(200, [CONTENT_JSON, NO_STORE], page([_document(entry) for entry in shown], cursor))

    operations = (
        Operation(
            method="GET",
            path="",
            name="queryAudit",
            summary="Audit records, newest first. Conditions are joined by AND.",
            handler=query,
            action="audit.read",
            entity="audit",
            scope="audit:read",
            parameters=(
                Parameter("subject", "Who did it.", {"type": "string"}),
                Parameter("action", "What was done: `user.read`.", {"type": "string"}),
                Parameter("entity", "To what: `user/<id>`.", {"type": "string"}),
                Parameter("since", "Not before this time.", _TIME),
                Parameter("until", "Before this time.", _TIME),
                parameters.LIMIT,
                parameters.CURSOR,
            ),
            replies=(Reply(200, "A page.", AuditPage, example={"items": [_EXAMPLE], "next_cursor": None}),),
            problems=(400,),
        ),
    )


def _document(entry: AuditEntry) -> bytes:
    # Microseconds: a record's own time, given as `since`, must not lie after the record.
    at = rfc3339(entry.at, "microseconds")
    return msgspec.json.encode(
        AuditItem(
            entry.id,
            at,
            entry.subject,
            entry.action,
            entry.entity,
            entry.outcome,
            entry.request_id,
            entry.status,
            entry.client,
        )
    )
