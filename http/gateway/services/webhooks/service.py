"""The `webhooks` service: who wants to be told of which events."""

from collections.abc import Callable

from actors.metrics import Metrics
from actors.storage.messages import Read, Scan
from backends.ports.entities import Entity, Key, Write
from gateway.problem import FieldError
from gateway.request import Response
from gateway.services import idempotency, parameters
from gateway.services.answers import CONTENT_JSON, NO_STORE, Absent, Answer, as_problem
from gateway.services.operation import JSON, MERGE_PATCH, Call, Operation, Reply
from gateway.services.query import Query, make_cursor, page
from gateway.services.service import Service
from gateway.services.users.model import ID
from gateway.services.webhooks import decisions
from gateway.services.webhooks.model import (
    KIND,
    NewWebhook,
    Webhook,
    WebhookInput,
    WebhookPage,
    WebhookPatch,
    new_secret,
    rules,
    shown,
    stored,
)

_INPUT = {"url": "https://hooks.example/weir", "events": ["user.*"]}
_SHOWN = {
    "id": "0197c7a2-6f0e-7c53-9d2b-6a5b0c7d8e9f",
    **_INPUT,
    "created_at": "2026-01-31T12:00:00.000Z",
    "state": "active",
}
_CREATED = {**_SHOWN, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDuR3+1jNPb1s="}
_ROTATED = {**_CREATED, "previous_secret_expires_at": "2026-02-01T12:00:00.000Z"}


class Webhooks(Service):
    """Subscriptions. A secret is shown when it is made, and never again.

    Args:
        secret_overlap: seconds for which a replaced secret signs beside the new one.
    """

    prefix = "/webhooks"
    noun = KIND

    def __init__(
        self,
        *,
        new_id: Callable[[], str],
        now: Callable[[], float],
        metrics: Metrics,
        allow_private_endpoints: bool = False,
        secret_overlap: float = 86_400.0,
    ) -> None:
        super().__init__(new_id=new_id, now=now, metrics=metrics)
        self._secret_overlap = secret_overlap
        self._allow_private = allow_private_endpoints

    def valid_key(self, key: str) -> bool:
        return ID.fullmatch(key) is not None

    async def browse(self, call: Call) -> Response:
        query = Query(call.request.query)
        limit, after = query.limit(), query.after_id()
        found = await self.lookup("storage_scans").ask(Scan(KIND, after, limit + 1))
        items = found[:limit]
        cursor = make_cursor(items[-1].id) if len(found) > limit else None
        bodies = [shown(stored(webhook.body), self.now()) for webhook in items]
        return Response(200, [CONTENT_JSON, NO_STORE], page(bodies, cursor))

    async def read(self, call: Call) -> Response:
        found: Entity | None = None
        if self.valid_key(call.key):
            found = await self.lookup("storage_reader").ask(Read(Key(KIND, call.key)))
        if found is None:
            raise as_problem(Absent(KIND, call.key))
        return Response(200, [CONTENT_JSON, NO_STORE], shown(stored(found.body), self.now()))

    async def create(self, call: Call) -> Response:
        request = call.request
        webhook = self.body(call, WebhookInput, self._rules)
        key = idempotency.name(request.header(b"idempotency-key"), call.subject, self.prefix, request.body)
        cause = self.cause(call)
        write = decisions.create(self.new_id(), webhook, new_secret(), cause)
        answer: Answer = await self.write(idempotency.once(write, key, cause.at))
        call.replayed = answer.replayed
        return answer.response()

    async def patch(self, call: Call) -> Response:
        return await self._change(
            call, decisions.patch(call.key, self.body(call, WebhookPatch, self._rules), self.cause(call))
        )

    async def rotate(self, call: Call) -> Response:
        header = call.request.header(b"idempotency-key")
        key = idempotency.name(header, call.subject, f"{self.prefix}/{call.key}/secret", b"")
        cause = self.cause(call)
        write = decisions.rotate(call.key, new_secret(), self._secret_overlap, cause)
        return await self._change(call, idempotency.once(write, key, cause.at))

    async def delete(self, call: Call) -> Response:
        return await self._change(call, decisions.delete(call.key, self.cause(call)))

    async def _change(self, call: Call, write: Write) -> Response:
        if not self.valid_key(call.key):
            raise as_problem(Absent(KIND, call.key))
        answer: Answer = await self.write(write)
        call.replayed = answer.replayed
        return answer.response()

    def _rules(self, webhook: WebhookInput | WebhookPatch) -> list[FieldError]:
        return rules(webhook, allow_private=self._allow_private)

    operations = (
        Operation(
            method="GET",
            path="",
            name="listWebhooks",
            summary="The webhooks, oldest first, in pages.",
            handler=browse,
            action="webhook.list",
            entity="webhook",
            scope="webhooks:write",
            parameters=(parameters.LIMIT, parameters.CURSOR),
            replies=(Reply(200, "A page.", WebhookPage, example={"items": [_SHOWN], "next_cursor": None}),),
            problems=(400,),
        ),
        Operation(
            method="POST",
            path="",
            name="createWebhook",
            summary="Subscribe a URL to events. Deliveries are signed with the answer's secret (Standard Webhooks).",
            handler=create,
            action="webhook.create",
            entity="webhook",
            scope="webhooks:write",
            writes=True,
            request=WebhookInput,
            example=_INPUT,
            parameters=(parameters.IDEMPOTENCY_KEY,),
            replies=(Reply(201, "Created. The secret is shown this once.", NewWebhook, ("Location",), _CREATED),),
            problems=(400, 415, 422),
        ),
        Operation(
            method="GET",
            path="/{id}",
            name="getWebhook",
            summary="One webhook, without its secret.",
            handler=read,
            action="webhook.read",
            entity="webhook/{key}",
            scope="webhooks:write",
            replies=(Reply(200, "The webhook.", Webhook, example=_SHOWN),),
            problems=(404,),
        ),
        Operation(
            method="PATCH",
            path="/{id}",
            name="patchWebhook",
            summary="Change some members of a webhook (JSON Merge Patch, RFC 7396), or enable it again.",
            handler=patch,
            action="webhook.update",
            entity="webhook/{key}",
            scope="webhooks:write",
            writes=True,
            request=WebhookPatch,
            media=(MERGE_PATCH, JSON),
            example={"state": "active"},
            replies=(Reply(200, "The webhook as it is now, without its secret.", Webhook, example=_SHOWN),),
            problems=(400, 404, 415, 422),
        ),
        Operation(
            method="POST",
            path="/{id}/secret",
            name="rotateWebhookSecret",
            summary=(
                "Replace the secret. The one before signs as well until `previous_secret_expires_at`: until then "
                "`webhook-signature` holds a signature of each, separated by a space (Standard Webhooks)."
            ),
            handler=rotate,
            action="webhook.rotate",
            entity="webhook/{key}",
            scope="webhooks:write",
            writes=True,
            parameters=(parameters.IDEMPOTENCY_KEY,),
            replies=(Reply(200, "The new secret is shown this once.", NewWebhook, example=_ROTATED),),
            problems=(400, 404, 422),
        ),
        Operation(
            method="DELETE",
            path="/{id}",
            name="deleteWebhook",
            summary="End a subscription.",
            handler=delete,
            action="webhook.delete",
            entity="webhook/{key}",
            scope="webhooks:write",
            writes=True,
            replies=(Reply(204, "Deleted."),),
            problems=(404,),
        ),
    )
