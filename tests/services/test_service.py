"""What every service inherits: the fast path, requests that hurt nobody else, evictions, audits."""

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from actors.cache_manager.messages import USER_PROFILE, GetMany, Invalidate, Load
from actors.metrics import Counter
from actors.runtime import Actor, Child, Mailbox, Reject, Supervisor, open_system
from gateway.request import Request
from gateway.services.messages import ServiceRequest
from gateway.services.users.service import Users
from tests.services.fakes import NOW, Sink, World, document

ADA = {"name": "Ada", "email": "ada@example.org"}


async def created(api: World) -> str:
    id: str = document(await api.call("users", "POST", json=ADA))["id"]
    return id


async def test_reads_of_what_is_cached_ask_the_cache_and_nobody_else(api: World) -> None:
    ids = [await created(api) for _ in range(3)]
    for id in ids:
        await api.call("users", "GET", f"/{id}")
    api.cache_asked.clear()
    statuses: list[int] = []

    async def read(id: str) -> None:
        statuses.append((await api.call("users", "GET", f"/{id}")).status)

    async with trio.open_nursery() as nursery:
        for id in ids * 20:
            nursery.start_soon(read, id)
    assert statuses == [200] * 60
    assert all(isinstance(message, GetMany) for message in api.cache_asked)
    assert sum(len(message.keys) for message in api.cache_asked) == 60


async def test_a_hit_does_not_wait_for_a_miss_nor_for_a_write(api: World, autojump_clock: MockClock) -> None:
    known, other = await created(api), await created(api)
    await api.call("users", "GET", f"/{known}")
    api.store.hang = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(api.call, "users", "GET", f"/{other}"))
        nursery.start_soon(partial(api.call, "users", "POST", json=ADA))
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(0.1):
            assert (await api.call("users", "GET", f"/{known}")).status == 200
        nursery.cancel_scope.cancel()


async def test_a_write_that_hangs_is_given_up_and_evicts(api: World, autojump_clock: MockClock) -> None:
    id = await created(api)
    api.store.hang = True
    api.cache_asked.clear()
    start = trio.current_time()
    answer = await api.call("users", "DELETE", f"/{id}")
    assert answer.status == 504
    assert Users.task_timeout <= trio.current_time() - start < Users.task_timeout + 1
    await trio.testing.wait_all_tasks_blocked()
    assert api.cache_asked == [Invalidate(((USER_PROFILE, id),))]


async def test_the_eviction_comes_before_the_answer(api: World) -> None:
    id = await created(api)
    api.cache_asked.clear()
    await api.call("users", "PATCH", f"/{id}", json={"bio": "x"})
    (asked,) = api.cache_asked
    assert isinstance(asked, Invalidate)
    assert asked.keys == ((USER_PROFILE, id),)
    assert asked.event, "its own event would evict again"


async def test_a_caller_that_goes_away_does_not_undo_its_write(api: World) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(api.call, "users", "POST", json=ADA))
            while not api.store.entities:
                await trio.lowlevel.checkpoint()
            scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    (entity,) = api.store.entities.values()
    evicted = {name for message in api.cache_asked if isinstance(message, Invalidate) for name in message.keys}
    assert (USER_PROFILE, entity.id) in evicted
    assert [event.topic for event in api.store.events] == ["entity.changed", "cache.invalidate", "audit"]


async def test_what_is_no_request_is_refused(api: World) -> None:
    with pytest.raises(Reject) as refused:
        await api.system.ref("users").ask("hello", timeout=60)
    assert isinstance(refused.value.error, TypeError)


class Failing(Actor[Any]):
    """Refuses every message."""

    async def handle(self, message: Any) -> Any:
        raise Reject(RuntimeError("broken"))


class OldCache(Actor[Any]):
    """Answers with entries that no entity ever was."""

    async def handle(self, message: Any) -> Any:
        return ["not an entity"] if isinstance(message, GetMany) else "not an entity"


@pytest.mark.parametrize("cache", [Failing, OldCache])
async def test_a_cache_that_talks_nonsense_costs_that_request_alone(
    autojump_clock: MockClock, cache: type[Actor[Any]]
) -> None:
    world = World()
    published: list[Any] = []
    users = partial(Users, new_id=world.new_id, now=world.now, metrics=world.metrics)
    children = [
        Child("publisher", partial(Sink, published), mailbox=Mailbox(1, on_full="reject")),
        Child("cache_manager", cache, mailbox=Mailbox(10)),
        Child("users", users, mailbox=Mailbox(10)),
    ]
    request = Request("GET", f"/users/{world.new_id()}", b"", [], b"", "::1", "r1")
    async with open_system(Supervisor("root", children=children)) as system:
        for _ in range(2):
            answer = await system.ref("users").ask(ServiceRequest(request, request.path[6:]), timeout=60)
            assert answer.status == 500
        (node,) = [child for child in system.snapshot()["children"] if child["id"] == "users"]
    assert node["restarts"] == 0
    assert [message.event.time for message in published] == [NOW, NOW]


async def test_audits_that_find_no_room_are_counted_and_hold_up_nothing(autojump_clock: MockClock) -> None:
    class Stuck(Actor[Any]):
        async def handle(self, message: Any) -> Any:
            await trio.sleep_forever()

    world = World()
    users = partial(Users, new_id=world.new_id, now=world.now, metrics=world.metrics)
    children = [
        Child("publisher", Stuck, mailbox=Mailbox(1)),
        Child("cache_manager", Failing, mailbox=Mailbox(10)),
        Child("users", users, mailbox=Mailbox(10)),
    ]
    request = Request("GET", "/users/x", b"", [], b"", "::1", "r1")
    async with open_system(Supervisor("root", children=children)) as system:
        for _ in range(5):
            answer = await system.ref("users").ask(ServiceRequest(request, "/x"), timeout=60)
            assert answer.status == 404
    (dropped,) = [family for family in world.metrics.families() if family.name == "weir_audit_dropped_total"]
    assert isinstance(dropped, Counter)
    assert dropped.values[("mailbox",)] == 3


async def test_a_miss_is_loaded_through_the_cache(api: World) -> None:
    id = await created(api)
    api.cache_asked.clear()
    await api.call("users", "GET", f"/{id}")
    assert api.cache_asked == [GetMany(USER_PROFILE, (id,)), Load(USER_PROFILE, id)]
