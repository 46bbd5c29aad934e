"""The `configuration` service: JSON values by key, cached for reading, written with their events."""

import re

import msgspec

from actors.cache_manager.messages import CONFIGURATION
from backends.ports.entities import Write
from gateway.problem import ProblemError
from gateway.request import Response
from gateway.services import parameters
from gateway.services.answers import Answer
from gateway.services.configuration import decisions
from gateway.services.events import Cause
from gateway.services.operation import Call, Operation, Reply
from gateway.services.service import Service

_KEY = re.compile(r"[A-Za-z0-9._-]{1,200}")
_EXAMPLE = {"theme": "dark", "page_size": 25}


class Configuration(Service):
    """Configuration values: the bare JSON value is the body, in both directions."""

    prefix = "/configuration"
    noun = decisions.KIND
    cache_kind = CONFIGURATION

    def valid_key(self, key: str) -> bool:
        return _KEY.fullmatch(key) is not None

    async def put(self, call: Call) -> Response:
        if not self.valid_key(call.key):
            raise ProblemError(400, "a key is 1 to 200 characters of A-Z a-z 0-9 . _ -")
        self.json_body(call)
        # Only the blanks go: numbers keep the digits that they were written with.
        value = msgspec.json.format(call.request.body, indent=-1)
        cause = self.cause(call)
        return await self._change(call, decisions.put(call.key, value, _conditions(call), cause), cause)

    async def delete(self, call: Call) -> Response:
        if not self.valid_key(call.key):
            raise ProblemError(404, f"there is no configuration {call.key[:200]!r}")
        cause = self.cause(call)
        return await self._change(call, decisions.delete(call.key, _conditions(call), cause), cause)

    async def _change(self, call: Call, write: Write, cause: Cause) -> Response:
        answer: Answer = await self.write(write, (CONFIGURATION, call.key), cause=cause)
        return answer.response()

    operations = (
        Operation(
            method="GET",
            path="/{key}",
            name="getConfiguration",
            summary="One value. Cached for thirty minutes; a write is seen at once.",
            handler=Service.read_through,
            action="configuration.read",
            entity="configuration/{key}",
            scope="configuration:read",
            cached=True,
            parameters=(parameters.IF_NONE_MATCH_READ,),
            replies=(
                Reply(200, "The value.", {}, ("ETag",), _EXAMPLE),
                Reply(304, "Unchanged.", headers=("ETag",)),
            ),
            problems=(404,),
        ),
        Operation(
            method="PUT",
            path="/{key}",
            name="putConfiguration",
            summary="Set a value: any JSON.",
            handler=put,
            action="configuration.update",
            entity="configuration/{key}",
            scope="configuration:write",
            writes=True,
            request={},
            example=_EXAMPLE,
            parameters=(parameters.IF_MATCH, parameters.IF_NONE_MATCH_WRITE),
            replies=(
                Reply(200, "Replaced.", {}, ("ETag",), _EXAMPLE),
                Reply(201, "Created.", {}, ("Location", "ETag"), _EXAMPLE),
            ),
            problems=(400, 412, 415),
        ),
        Operation(
            method="DELETE",
            path="/{key}",
            name="deleteConfiguration",
            summary="Delete a value.",
            handler=delete,
            action="configuration.delete",
            entity="configuration/{key}",
            scope="configuration:write",
            writes=True,
            parameters=(parameters.IF_MATCH,),
            replies=(Reply(204, "Deleted."),),
            problems=(404, 412),
        ),
    )


def _conditions(call: Call) -> decisions.Preconditions:
    return call.request.header(b"if-match"), call.request.header(b"if-none-match")
