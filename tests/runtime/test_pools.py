"""A pool: equal workers behind one reference."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ActorRestarting, ActorStopped, Backoff, Mailbox, Pool, SupervisorGaveUp, System
from tests.runtime.support import (
    AnswerLater,
    Asking,
    Crash,
    Echo,
    Hold,
    Journal,
    Run,
    Scripted,
    ask_all,
    child,
    open_system,
    state_of,
    tree,
)


async def who(actor: Scripted) -> str:
    return actor._cell.id


WHO = Run(who)
SLOW = Backoff(first=9.0)


def pool(journal: Journal, size: int = 3, **options: Any) -> Pool:
    options.setdefault("mailbox", Mailbox(16))
    return Pool("pool", partial(Scripted, "worker", journal), size=size, **options)


async def ask_one_by_one(system: System, count: int) -> list[str]:
    return [await system.ref("pool").ask(WHO) for _ in range(count)]


async def test_asks_go_round_the_workers(autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal()))) as system:
        assert await ask_one_by_one(system, 6) == ["pool.1", "pool.2", "pool.3"] * 2


async def test_tells_go_round_too(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(pool(journal))) as system:
        for _ in range(3):
            await system.ref("pool").tell(Hold())
            assert system.ref("pool").try_tell(Echo())
        await wait_all_tasks_blocked()
        assert sorted(state_of(system, f"pool.{n}")["mailbox_depth"] for n in (1, 2, 3)) == [0, 1, 1]


async def test_least_queued_counts_what_is_queued_and_in_hand(autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal(), route="least_queued"))) as system:
        await system.ref("pool.1").tell(Hold())
        await system.ref("pool.1").tell(Echo())
        await system.ref("pool.2").tell(Hold())
        await wait_all_tasks_blocked()
        assert await ask_one_by_one(system, 3) == ["pool.3"] * 3
        await system.ref("pool").tell(Hold())
        await wait_all_tasks_blocked()
        hold = Hold()
        await system.ref("pool").tell(hold)  # 2 and 3 have one each in hand, 1 has two
        assert state_of(system, "pool.1")["mailbox_depth"] == 1


async def test_a_worker_that_was_never_started_has_no_load(autojump_clock: MockClock) -> None:
    loads: list[int] = []

    async def look(actor: Scripted) -> None:
        loads.append(actor.system.ref("pool.1")._cell.load())

    journal = Journal()
    async with open_system(tree(child("a", journal, starting=look), pool(journal))):
        assert loads == [0]


async def test_least_queued_counts_what_is_still_to_be_answered(autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal(), size=2, route="least_queued"))) as system:
        await system.ref("pool.1").tell(AnswerLater(after=None))
        await wait_all_tasks_blocked()
        assert await ask_one_by_one(system, 3) == ["pool.2"] * 3


@pytest.mark.parametrize("route", ["round_robin", "least_queued"])
@pytest.mark.usefixtures("schedule")
async def test_simultaneous_asks_are_spread_evenly(route: str, autojump_clock: MockClock) -> None:
    async def slow_who(actor: Scripted) -> str:
        await trio.sleep(1)
        return actor._cell.id

    async with open_system(tree(pool(Journal(), route=route))) as system:
        answers = await ask_all(system, "pool", [Run(slow_who)] * 9)
        assert Counter(answers) == {"pool.1": 3, "pool.2": 3, "pool.3": 3}
        assert trio.current_time() == 3


async def test_equal_keys_go_to_one_worker(autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal(), route="hash", key=lambda message: message.fn))) as system:
        assert len(set(await ask_one_by_one(system, 5))) == 1


@pytest.mark.parametrize("route", ["round_robin", "least_queued"])
async def test_a_worker_in_backoff_is_avoided_while_another_is_ready(route: str, autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal(), route=route, backoff=SLOW))) as system:
        await system.ref("pool.2").tell(Crash())
        await wait_all_tasks_blocked()
        assert set(await ask_one_by_one(system, 6)) == {"pool.1", "pool.3"}
        await trio.sleep(10)
        assert set(await ask_one_by_one(system, 6)) == {"pool.1", "pool.2", "pool.3"}


async def test_when_none_is_ready_the_ask_ends_as_that_of_one_worker(autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal(), size=2, backoff=SLOW))) as system:
        for n in (1, 2):
            await system.ref(f"pool.{n}").tell(Crash())
        await wait_all_tasks_blocked()
        with pytest.raises(ActorRestarting) as restarting:
            await system.ref("pool").ask(Echo())
        assert restarting.value.retry_after == 9


async def test_an_ended_worker_gets_nothing(autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal(), size=2, backoff=SLOW))) as system:
        await system.ref("pool.1").stop()
        assert await ask_one_by_one(system, 3) == ["pool.2"] * 3
        await system.ref("pool.2").tell(Crash())
        await wait_all_tasks_blocked()
        for _ in range(3):
            with pytest.raises(ActorRestarting):
                await system.ref("pool").ask(Echo())


async def test_a_worker_that_asks_its_pool_gets_another_one(autojump_clock: MockClock) -> None:
    async def ask_pool(actor: Scripted) -> Any:
        return [await actor.lookup("pool").ask(WHO) for _ in range(4)]

    async with open_system(tree(pool(Journal(), size=2))) as system:
        assert await system.ref("pool.1").ask(Run(ask_pool)) == ["pool.2"] * 4


async def test_workers_are_restarted_one_by_one_and_too_many_failures_escalate(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(pool(journal, intensity=1, backoff=Backoff(min=0, max=0)), intensity=0)
    with pytest.raises(SupervisorGaveUp, match="supervisor pool gave up"):
        async with open_system(root, journal) as system:
            await crash_two(system)


async def crash_two(system: System) -> None:
    await system.ref("pool.1").tell(Crash())
    await wait_all_tasks_blocked()
    assert [state_of(system, f"pool.{n}")["restarts"] for n in (1, 2, 3)] == [1, 0, 0]
    await system.ref("pool.2").tell(Crash())
    await trio.sleep(1)


@pytest.mark.parametrize("how", ["stop", "drain", "kill"])
async def test_the_pools_end_ends_its_workers_together(how: str, autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal(), size=2))) as system, trio.open_nursery() as nursery:
        asks = [Asking(system, "pool", Echo(n, after=1), nursery) for n in range(4)]
        monitor = await system.ref("pool").monitor()
        await wait_all_tasks_blocked()
        await getattr(system.ref("pool"), how)()
        await wait_all_tasks_blocked()
        assert trio.current_time() == {"stop": 1, "drain": 2, "kill": 0}[how]
        assert sum(ask.value is not None for ask in asks) == {"stop": 2, "drain": 4, "kill": 0}[how]
        assert (await monitor).next == "end"
        with pytest.raises(ActorStopped):
            await system.ref("pool").ask(Echo())
        assert state_of(system, "pool")["state"] == "stopped"


async def test_it_stops_with_the_system_and_handles_what_is_queued(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with open_system(tree(pool(Journal(), size=2))) as system:
            asks = [Asking(system, "pool", Echo(n, after=0.5), nursery) for n in range(4)]
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert [ask.value for ask in asks] == [0, 1, 2, 3]


async def test_the_snapshot_shows_its_workers(autojump_clock: MockClock) -> None:
    async with open_system(tree(pool(Journal(), size=2))) as system:
        node = state_of(system, "pool")
        assert (node["kind"], node["route"], node["size"]) == ("pool", "round_robin", 2)
        assert [(child["id"], child["kind"]) for child in node["children"]] == [
            ("pool.1", "actor"),
            ("pool.2", "actor"),
        ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "at least 1 worker"),
        ({"route": "random"}, "route must be one of"),
        ({"route": "hash"}, "needs a key"),
        ({"key": str}, "needs a key"),
    ],
)
def test_a_wrong_declaration_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pool(Journal.__new__(Journal), **options)


async def test_the_ids_of_workers_are_ids_of_the_tree(autojump_clock: MockClock) -> None:
    clash = Pool("pool.1", partial(Scripted, "x", Journal()), size=1, mailbox=Mailbox(1))
    with pytest.raises(ValueError, match=r"called 'pool\.1'"):
        async with open_system(tree(pool(Journal()), clash)):
            pass
