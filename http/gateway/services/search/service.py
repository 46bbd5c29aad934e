"""The `search_service`: questions to the search index."""

from collections.abc import Callable
from typing import Annotated

import msgspec

from actors.metrics import Metrics
from backends.ports.stores import SearchHit, SearchIndex
from gateway.request import Response
from gateway.services import parameters
from gateway.services.answers import CONTENT_JSON, REVALIDATE
from gateway.services.operation import Call, Operation, Parameter, Reply
from gateway.services.query import Query, make_cursor, page, refuse
from gateway.services.service import Service

# The index ranks all that matches before it skips; nobody reads this far, crawlers excepted.
MAX_OFFSET = 10_000


class SearchPage(msgspec.Struct, frozen=True):
    """One page of hits, best first."""

    items: list[SearchHit]
    next_cursor: str | None


class SearchPosition(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds: how many hits came before."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET)]


class SearchService(Service):
    """Searches *index*, which runs its queries in a thread of its own. Any `q` is safe."""

    prefix = "/search"
    noun = "search"

    def __init__(
        self, index: SearchIndex, *, new_id: Callable[[], str], now: Callable[[], float], metrics: Metrics
    ) -> None:
        super().__init__(new_id=new_id, now=now, metrics=metrics)
        self._index = index

    async def search(self, call: Call) -> Response:
        query = Query(call.request.query)
        q, limit, position = query.text("q"), query.limit(), query.cursor(SearchPosition)
        if q is None:
            raise refuse("q", "is required")
        offset = 0 if position is None else position.offset
        hits = await self._index.query(q, query.text("type"), offset, limit + 1)
        end = offset + limit
        cursor = make_cursor(SearchPosition(end)) if len(hits) > limit and end <= MAX_OFFSET else None
        return Response(
            200, [CONTENT_JSON, REVALIDATE], page([msgspec.json.encode(hit) for hit in hits[:limit]], cursor)
        )

    operations = (
        Operation(
            method="GET",
            path="",
            name="search",
            summary="Full-text search, best hits first. Users are found by name, e-mail and bio.",
            handler=search,
            action="search.query",
            entity="search",
            scope="search:read",
            parameters=(
                Parameter(
                    "q",
                    'Words are prefixes that must all match, "quoted words" are phrases. Anything is safe.',
                    {"type": "string"},
                    required=True,
                ),
                Parameter("type", "Only hits of this type.", {"type": "string", "examples": ["user"]}),
                parameters.LIMIT,
                parameters.CURSOR,
            ),
            replies=(
                Reply(
                    200,
                    "A page. `highlight` is HTML: matches between <mark> and </mark>, all else escaped.",
                    SearchPage,
                    example={
                        "items": [
                            {
                                "type": "user",
                                "id": "0197c7a2-6f0e-7c53-9d2b-6a5b0c7d8e9f",
                                "score": 1.25,
                                "highlight": "<mark>Ada</mark> Lovelace",
                            }
                        ],
                        "next_cursor": None,
                    },
                ),
            ),
            problems=(400,),
        ),
    )
