"""What every delivery store promises."""

import msgspec

from backends.ports.stores import Delivery
from tests.backends.conftest import Backend


def delivery(id: str, endpoint: str = "hook-1", due_at: float = 0.0, state: str = "pending") -> Delivery:
    return Delivery(
        id=id,
        channel="webhook",
        endpoint=endpoint,
        event_id=f"event-{id}",
        event_type="user.created",
        source="entity.changed/0/7",
        payload=b'{"a":"\xc3\xa9"}\0',
        state=state,
        due_at=due_at,
    )


async def due(backend: Backend, now: float, endpoint: str = "hook-1", limit: int = 10) -> list[str]:
    return [found.id for found in await backend.deliveries.due(endpoint, now, limit)]


async def test_a_delivery_comes_back_as_it_went_in(backend: Backend) -> None:
    original = delivery("d1", due_at=1.5)
    assert await backend.deliveries.add([original]) == 1
    assert await backend.deliveries.get("d1") == original
    assert await backend.deliveries.due("hook-1", 2, 10) == [original]
    assert await backend.deliveries.get("nothing") is None


async def test_a_redelivered_event_makes_no_second_delivery(backend: Backend) -> None:
    await backend.deliveries.add([delivery("d1")])
    await backend.deliveries.save([msgspec.structs.replace(delivery("d1"), state="done", attempts=1)])
    assert await backend.deliveries.add([delivery("d1"), delivery("d2")]) == 1
    assert await backend.deliveries.add([]) == 0
    assert await due(backend, 1) == ["d2"]


async def test_endpoints_with_something_due_who_waits_longest_first(backend: Backend) -> None:
    await backend.deliveries.add(
        [
            delivery("a2", "a", 2),
            delivery("a1", "a", 1),
            delivery("b1", "b", 0.5),
            delivery("c9", "c", 9),
            delivery("d1", "d", 1.5),
        ]
    )
    assert await backend.deliveries.endpoints(3, 10, ()) == ["b", "a", "d"]
    assert await backend.deliveries.endpoints(3, 2, ()) == ["b", "a"]
    assert await backend.deliveries.endpoints(3, 10, ("b", "d", "zz")) == ["a"]
    assert await backend.deliveries.endpoints(0.4, 10, ()) == []


async def test_what_is_due_for_an_endpoint_the_oldest_first(backend: Backend) -> None:
    rows = [delivery("a3", "a", 3), delivery("a1", "a", 1), delivery("a2", "a", 2), delivery("b", "b", 0)]
    await backend.deliveries.add([*rows, delivery("a0", "a", 0, state="done")])
    assert await due(backend, 2.5, "a") == ["a1", "a2"]
    assert await due(backend, 9, "a", limit=2) == ["a1", "a2"]
    assert await due(backend, 9, "nobody") == []


async def test_the_next_due_time_leaves_out_endpoints_under_way(backend: Backend) -> None:
    assert await backend.deliveries.next_due(()) is None
    await backend.deliveries.add([delivery("a", "a", 5), delivery("b", "b", 3), delivery("b2", "b", 2)])
    await backend.deliveries.add([delivery("c", "c", 1, state="dead")])
    assert await backend.deliveries.next_due(()) == 2
    assert await backend.deliveries.next_due(("b",)) == 5
    assert await backend.deliveries.next_due(("a", "b")) is None


async def test_an_attempts_outcome_is_kept(backend: Backend) -> None:
    await backend.deliveries.add([delivery("d1")])
    tried = msgspec.structs.replace(
        delivery("d1"), attempts=1, due_at=20.5, first_at=10.0, last_at=10.25, error="503 Service Unavailable"
    )
    await backend.deliveries.save([tried])
    assert await backend.deliveries.get("d1") == tried
    assert await due(backend, 20) == []
    assert await due(backend, 21) == ["d1"]


async def test_outcomes_are_kept_together(backend: Backend) -> None:
    await backend.deliveries.add([delivery("d1"), delivery("d2")])
    await backend.deliveries.save([msgspec.structs.replace(delivery(id), state="done") for id in ("d1", "d2")])
    await backend.deliveries.save([])
    assert await backend.deliveries.counts() == {"done": 2}


async def test_only_the_dead_are_reset(backend: Backend) -> None:
    dead = msgspec.structs.replace(delivery("d1"), state="dead", attempts=3, first_at=1.0, last_at=9.0, error="gone")
    await backend.deliveries.add([dead, delivery("d2"), delivery("d3", state="done")])
    assert await backend.deliveries.reset("d1", 50.0)
    again = msgspec.structs.replace(delivery("d1", due_at=50.0), replays=1, pending_since=50.0)
    assert await backend.deliveries.get("d1") == again
    assert not await backend.deliveries.reset("d1", 60.0)
    assert not await backend.deliveries.reset("d2", 60.0)
    assert not await backend.deliveries.reset("d3", 60.0)
    assert not await backend.deliveries.reset("nothing", 60.0)


async def test_each_replay_is_counted_and_outlives_the_next_attempts(backend: Backend) -> None:
    await backend.deliveries.add([delivery("d1", state="dead")])
    for replays in (1, 2):
        assert await backend.deliveries.reset("d1", 50.0)
        (found,) = await backend.deliveries.due("hook-1", 50.0, 1)
        assert found.replays == replays
        await backend.deliveries.save([msgspec.structs.replace(found, state="dead", attempts=3)])


async def test_what_is_pending_for_an_endpoint_is_withdrawn_due_or_not(backend: Backend) -> None:
    rows = [delivery("a1", "a"), delivery("a2", "a", 90.0), delivery("a3", "a", state="dead"), delivery("b", "b")]
    await backend.deliveries.add([*rows, delivery("a4", "a", state="done")])
    assert await backend.deliveries.withdraw("a", 7.0, "disabled") == 2
    assert await backend.deliveries.withdraw("a", 8.0, "disabled") == 0
    assert await backend.deliveries.counts() == {"withdrawn": 2, "dead": 1, "done": 1, "pending": 1}
    found = await backend.deliveries.get("a2")
    assert found == msgspec.structs.replace(rows[1], state="withdrawn", last_at=7.0, error="disabled")
    assert not await backend.deliveries.reset("a2", 9.0)


async def test_since_when_the_oldest_has_been_pending(backend: Backend) -> None:
    assert await backend.deliveries.oldest() is None
    rows = [msgspec.structs.replace(delivery(f"d{n}", due_at=1.0), pending_since=10.0 + n) for n in range(3)]
    await backend.deliveries.add([*rows, delivery("dead", state="dead")])
    assert await backend.deliveries.oldest() == 10.0
    await backend.deliveries.save([msgspec.structs.replace(rows[0], state="done"), rows[1]])
    assert await backend.deliveries.oldest() == 11.0


async def test_states_are_counted(backend: Backend) -> None:
    assert await backend.deliveries.counts() == {}
    await backend.deliveries.add([delivery("a"), delivery("b"), delivery("c", state="dead")])
    assert await backend.deliveries.counts() == {"pending": 2, "dead": 1}
    assert await backend.deliveries.pending() == 2


async def test_only_what_is_done_or_withdrawn_is_purged(backend: Backend) -> None:
    ended = ("done", "withdrawn", "done", "done")
    done = [msgspec.structs.replace(delivery(f"d{n}"), state=s, last_at=float(n)) for n, s in enumerate(ended)]
    dead = msgspec.structs.replace(delivery("dead"), state="dead", last_at=0.0)
    await backend.deliveries.add([*done, dead, delivery("pending")])
    assert await backend.deliveries.purge(3.0, 2) == 2
    assert await backend.deliveries.purge(3.0, 2) == 1
    assert await backend.deliveries.purge(3.0, 2) == 0
    assert await backend.deliveries.counts() == {"done": 1, "dead": 1, "pending": 1}
