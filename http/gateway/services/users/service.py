"""The `users` service: profiles, cached for reading, written with their events."""

from actors.cache_manager.messages import USER_PROFILE
from actors.storage.messages import Scan
from backends.ports.entities import Write
from gateway.problem import ProblemError
from gateway.request import Response
from gateway.services import idempotency, parameters
from gateway.services.answers import CONTENT_JSON, REVALIDATE, Answer
from gateway.services.bodies import faults, invalid
from gateway.services.events import Cause
from gateway.services.operation import JSON, MERGE_PATCH, Call, Operation, Reply
from gateway.services.query import Query, make_cursor, page
from gateway.services.service import Service
from gateway.services.users import decisions
from gateway.services.users.model import ID, KIND, User, UserInput, UserPage, UserPatch, rules

EXAMPLE_INPUT = {"name": "Ada Lovelace", "email": "ada@example.org", "bio": "Wrote the first program."}
EXAMPLE = {
    "id": "0197c7a2-6f0e-7c53-9d2b-6a5b0c7d8e9f",
    **EXAMPLE_INPUT,
    "version": 1,
    "created_at": "2026-01-31T12:00:00.000Z",
    "updated_at": "2026-01-31T12:00:00.000Z",
}


class Users(Service):
    """Users by id, in pages, and their writes. Each read is audited, and each write in its transaction."""

    prefix = "/users"
    noun = KIND
    cache_kind = USER_PROFILE

    def valid_key(self, key: str) -> bool:
        return ID.fullmatch(key) is not None

    async def browse(self, call: Call) -> Response:
        query = Query(call.request.query)
        limit, after = query.limit(), query.after_id()
        found = await self.lookup("storage_scans").ask(Scan(KIND, after, limit + 1))
        shown = found[:limit]
        cursor = make_cursor(shown[-1].id) if len(found) > limit else None
        return Response(200, [CONTENT_JSON, REVALIDATE], page([user.body for user in shown], cursor))

    async def create(self, call: Call) -> Response:
        request = call.request
        user = self.body(call, UserInput, rules)
        key = idempotency.name(request.header(b"idempotency-key"), call.subject, self.prefix, request.body)
        id, cause = self.new_id(), self.cause(call)
        write = idempotency.once(decisions.create(id, user, cause), key, cause.at)
        answer: Answer = await self.write(write, (USER_PROFILE, id), cause=cause)
        call.replayed = answer.replayed
        return answer.response()

    async def replace(self, call: Call) -> Response:
        user = self.body(call, UserInput, rules)
        cause = self.cause(call)
        return await self._change(call, decisions.replace(call.key, user, _conditions(call), cause), cause)

    async def patch(self, call: Call) -> Response:
        changes = self.json_body(call)
        errors = faults(changes, UserPatch)
        if errors:
            raise invalid(errors)
        cause = self.cause(call)
        return await self._change(call, decisions.patch(call.key, changes, _conditions(call), cause), cause)

    async def delete(self, call: Call) -> Response:
        cause = self.cause(call)
        return await self._change(call, decisions.delete(call.key, _conditions(call), cause), cause)

    async def _change(self, call: Call, write: Write, cause: Cause) -> Response:
        if not self.valid_key(call.key):
            raise ProblemError(404, f"there is no user {call.key[:200]!r}")
        answer: Answer = await self.write(write, (USER_PROFILE, call.key), cause=cause)
        return answer.response()

    operations = (
        Operation(
            method="GET",
            path="",
            name="listUsers",
            summary="The users, oldest first, in pages.",
            handler=browse,
            action="user.list",
            entity="user",
            scope="users:read",
            parameters=(parameters.LIMIT, parameters.CURSOR),
            replies=(Reply(200, "A page.", UserPage, example={"items": [EXAMPLE], "next_cursor": None}),),
            problems=(400,),
        ),
        Operation(
            method="POST",
            path="",
            name="createUser",
            summary="Create a user.",
            handler=create,
            action="user.create",
            entity="user",
            scope="users:write",
            writes=True,
            request=UserInput,
            example=EXAMPLE_INPUT,
            parameters=(parameters.IDEMPOTENCY_KEY,),
            replies=(Reply(201, "Created.", User, ("Location", "ETag"), EXAMPLE),),
            problems=(400, 415, 422),
        ),
        Operation(
            method="GET",
            path="/{id}",
            name="getUser",
            summary="One user. Cached for five minutes; a write is seen at once.",
            handler=Service.read_through,
            action="user.read",
            entity="user/{key}",
            scope="users:read",
            cached=True,
            parameters=(parameters.IF_NONE_MATCH_READ,),
            replies=(Reply(200, "The user.", User, ("ETag",), EXAMPLE), Reply(304, "Unchanged.", headers=("ETag",))),
            problems=(404,),
        ),
        Operation(
            method="PUT",
            path="/{id}",
            name="replaceUser",
            summary="Replace what can be set of a user.",
            handler=replace,
            action="user.update",
            entity="user/{key}",
            scope="users:write",
            writes=True,
            request=UserInput,
            example=EXAMPLE_INPUT,
            parameters=(parameters.IF_MATCH,),
            replies=(Reply(200, "The user as it is now.", User, ("ETag",), {**EXAMPLE, "version": 2}),),
            problems=(400, 404, 412, 415, 422),
        ),
        Operation(
            method="PATCH",
            path="/{id}",
            name="patchUser",
            summary="Change some members of a user (JSON Merge Patch, RFC 7396).",
            handler=patch,
            action="user.update",
            entity="user/{key}",
            scope="users:write",
            writes=True,
            request=UserPatch,
            media=(MERGE_PATCH, JSON),
            example={"bio": "Wrote the first program."},
            parameters=(parameters.IF_MATCH,),
            replies=(Reply(200, "The user as it is now.", User, ("ETag",), {**EXAMPLE, "version": 2}),),
            problems=(400, 404, 412, 415, 422),
        ),
        Operation(
            method="DELETE",
            path="/{id}",
            name="deleteUser",
            summary="Delete a user.",
            handler=delete,
            action="user.delete",
            entity="user/{key}",
            scope="users:write",
            writes=True,
            parameters=(parameters.IF_MATCH,),
            replies=(Reply(204, "Deleted."),),
            problems=(404, 412),
        ),
    )


def _conditions(call: Call) -> decisions.Preconditions:
    return call.request.header(b"if-match"), call.request.header(b"if-none-match")
