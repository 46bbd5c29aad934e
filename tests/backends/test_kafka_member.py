"""A member of a consumer group on a real Kafka: what `GroupMember` promises, and what aiokafka would spoil."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio

from backends.kafka.errors import ConsumerStuck
from backends.kafka.member import Timing
from backends.ports.event_log import Attempt
from backends.ports.groups import Commit
from tests.backends.kafka_groups import QUICK, Cluster, cluster
from tests.engines.kafka import Broker

# A start of aiokafka's that is cancelled leaves its first connection to the collector, which warns of it.
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture
async def kafka(kafka_broker: Broker) -> AsyncIterator[Cluster]:
    async with cluster(kafka_broker) as opened:
        with trio.fail_after(60):
            yield opened


async def test_a_group_begins_at_the_start_and_goes_on_where_it_committed(kafka: Cluster) -> None:
    topic = await kafka.topic()
    await kafka.fill(topic, "a", "b", "c")
    first = await kafka.consumer("begins", topic)
    await first.read(3)
    assert first.starts[topic, 0].offset == 0
    await first.member.commit({(topic, 0): Commit(2, "beside")})
    await first.member.leave()
    second = await kafka.consumer("begins", topic)
    await second.read(1)
    assert second.values == ["c"]
    assert second.starts[topic, 0][::2] == (2, "beside")


async def test_metadata_beyond_what_the_broker_takes_costs_no_offset(kafka: Cluster) -> None:
    topic = await kafka.topic()
    await kafka.fill(topic, "a", "b", "c")
    first = await kafka.consumer("too-much", topic)
    await first.read(3)
    await first.member.commit({(topic, 0): Commit(2, "x" * 5000)})
    await first.member.leave()
    second = await kafka.consumer("too-much", topic)
    await second.read(1)
    assert second.starts[topic, 0][::2] == (2, "")


async def test_partitions_move_to_who_joins_and_back_from_who_leaves(kafka: Cluster) -> None:
    topic = await kafka.topic(4)
    one = await kafka.consumer("moves", topic)
    await one.own(4)
    two = await kafka.consumer("moves", topic)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(two.own, 2)
        await one.own(2)
    assert not one.starts.keys() & two.starts.keys()
    assert ("revoked", [(topic, p) for p in range(4)]) in one.told
    await two.member.leave()
    await one.own(4)
    epochs = [start.epoch for start in one.starts.values()]
    assert min(epochs) == max(epochs) > 1


async def test_a_revoke_waits_for_the_drain_and_its_commit_counts(kafka: Cluster) -> None:
    topic = await kafka.topic(2)
    for partition in range(2):
        await kafka.fill(topic, *"abcde", partition=partition)
    one = await kafka.consumer("drains", topic)

    async def slowly() -> None:
        await trio.sleep(1)

    one.on_revoke = slowly
    await one.read(10)  # and nothing is committed until the revoke
    two = await kafka.consumer("drains", topic)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(two.own, 1)
        await one.own(1)
    await one.poll()
    await two.poll()
    assert len(one.values) == 10
    assert two.values == []
    assert {start.offset for start in (*one.starts.values(), *two.starts.values())} == {5}


async def test_a_drain_beyond_its_budget_holds_up_nobody(kafka: Cluster) -> None:
    topic = await kafka.topic(2)
    one = await kafka.consumer("budget", topic)
    one.on_revoke = trio.sleep_forever
    await one.own(2)
    two = await kafka.consumer("budget", topic)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(QUICK.revoke + QUICK.rebalance):
            nursery.start_soon(one.run)
            await two.own(1)
        nursery.cancel_scope.cancel()


async def test_a_consumer_that_stops_polling_is_out_and_comes_back(kafka: Cluster) -> None:
    """A handler slower than the poll interval: its partitions go to the others, its late commit does not count."""
    topic = await kafka.topic()
    await kafka.fill(topic, "a", "b")
    slow = await kafka.consumer("slow", topic, timing=_timing(poll=1.5))
    await slow.read(2)
    other = await kafka.consumer("slow", topic)
    await other.own(1)  # while the slow one does not poll
    await other.read(2)
    await other.commit()
    await slow.member.commit({(topic, 0): Commit(1)})
    assert await kafka.log.committed("slow", topic) == {(topic, 0): 2}
    await slow.poll()
    assert slow.told[-1] == ("lost", [(topic, 0)])


async def test_a_pause_of_everything_keeps_the_membership(kafka: Cluster) -> None:
    topic = await kafka.topic()
    one = await kafka.consumer("paused", topic, timing=_timing(poll=1.0, session=1.5))
    await one.own(1)
    one.member.pause([(topic, 0)])
    await kafka.fill(topic, "a")
    for _ in range(8):
        assert await one.poll(0.5) == 0
    one.member.resume([(topic, 0)])
    await one.read(1)
    assert [word for word, _ in one.told] == ["assigned"]


async def test_a_partition_that_nobody_takes_from_is_not_read_without_end(kafka: Cluster) -> None:
    topic = await kafka.topic()
    await kafka.fill(topic, *(str(n) for n in range(9_000)))
    one = await kafka.consumer("bounded", topic)
    await one.own(1)
    one.member.pause([(topic, 0)])
    for _ in range(10):
        await one.poll(0.2)
    assert len(one.member._buffer) < 3_000
    one.member.resume([(topic, 0)])
    await one.read(9_000)
    assert one.values == [str(n) for n in range(9_000)]


async def test_a_poll_that_is_cancelled_loses_nothing(kafka: Cluster) -> None:
    topic = await kafka.topic(3)
    one = await kafka.consumer("cancelled", topic)
    await one.own(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fill_slowly, kafka, topic, 60)
        while len(one.values) < 60:
            with trio.move_on_after(0.003):
                await one.poll()
    assert sorted(one.values, key=int) == [str(n) for n in range(60)]


async def test_a_seek_reads_again_from_there(kafka: Cluster) -> None:
    topic = await kafka.topic()
    await kafka.fill(topic, *"abcd")
    one = await kafka.consumer("seeks", topic)
    await one.read(4)
    one.member.seek((topic, 0), 1)
    await one.read(7)
    assert one.values == [*"abcd", *"bcd"]


async def test_a_poll_returns_when_it_is_woken(kafka: Cluster) -> None:
    topic = await kafka.topic()
    one = await kafka.consumer("woken", topic)
    await one.own(1)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(5):
            nursery.start_soon(one.poll, 50.0)
            await trio.sleep(0.1)
            one.member.wake()


async def test_a_commit_forgets_the_attempts_below_it(kafka: Cluster) -> None:
    topic = await kafka.topic()
    await kafka.fill(topic, "a", "b")
    one = await kafka.consumer("tries", topic)
    await one.read(2)
    await kafka.log.save_attempt("tries", (topic, 0), 0, Attempt(1, 0.0, 0.0, 0.0, "boom"))
    await one.commit()
    assert await kafka.log.attempts("tries", (topic, 0)) == {}


async def test_a_member_with_a_name_keeps_its_partitions_over_a_restart(kafka: Cluster) -> None:
    """Static membership: no rebalance for the others when it comes back within the session's time."""
    topic = await kafka.topic(2)
    other = await kafka.consumer("named", topic, instance_id="b", timing=_timing(session=10.0))
    named = await kafka.consumer("named", topic, instance_id="a", timing=_timing(session=10.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.run)
        await named.own(1)
        await other.until(lambda: len(other.starts) == 1)
        (mine,) = named.starts
        told = len(other.told)
        await named.member.leave()
        again = await kafka.consumer("named", topic, instance_id="a", timing=_timing(session=10.0))
        await again.own(1)
        assert list(again.starts) == [mine]
        assert len(other.told) == told
        nursery.cancel_scope.cancel()


async def test_a_topic_that_comes_later_is_read(kafka: Cluster) -> None:
    topic = await kafka.topic()
    one = await kafka.consumer("later", topic, "later.later.retry")
    await one.own(1)
    await kafka.fill("later.later.retry", "a")
    with trio.fail_after(40):
        await one.read(1)


async def _fill_slowly(kafka: Cluster, topic: str, many: int) -> None:
    for n in range(many):
        await kafka.fill(topic, str(n), partition=n % 3)


def _timing(**changed: float) -> Timing:
    return replace(QUICK, **changed)


async def test_a_client_that_silently_reads_no_more_is_given_up(kafka: Cluster) -> None:
    topic = await kafka.topic()
    one = await kafka.consumer("stuck", topic, timing=_timing(stuck=1.5))
    await one.own(1)
    one.member._run.consumer._fetcher._fetch_task.cancel()
    await kafka.fill(topic, "a")
    with trio.fail_after(20), pytest.raises(ConsumerStuck, match=f"{topic}/0 stands at 0 for . s though there is more"):
        await one.read(1)
    await one.member.leave()
    again = await kafka.consumer("stuck", topic)
    await again.read(1)


async def test_a_client_whose_membership_ended_is_given_up(kafka: Cluster) -> None:
    topic = await kafka.topic()
    one = await kafka.consumer("ended", topic)
    await one.own(1)
    one.member._run.consumer._coordinator._coordination_task.cancel()
    with trio.fail_after(20), pytest.raises(ConsumerStuck):
        await one.read(1)


async def test_what_the_consumer_raises_when_told_comes_out_of_its_poll(kafka: Cluster) -> None:
    topic = await kafka.topic()
    one = await kafka.consumer("raises", topic)
    one.on_assigned = KeyError("mine")
    with pytest.raises(KeyError, match="mine"):
        await one.own(1)
    one.on_assigned = None
    await kafka.fill(topic, "a")
    await one.read(1)
