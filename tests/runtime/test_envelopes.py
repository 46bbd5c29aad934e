"""The slot of an ask's answer: whoever settles it first wins, and who comes later is told so."""

from collections.abc import Callable
from typing import Any

import outcome
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ActorStopped, Reject
from actors.runtime.envelope import Envelope

Settle = Callable[[Envelope], bool]


def answer(envelope: Envelope) -> bool:
    return envelope.answer(1)


def reject(envelope: Envelope) -> bool:
    return envelope.reject("no")


def fail(envelope: Envelope) -> bool:
    return envelope.fail(ActorStopped("it has ended"))


SETTLERS: list[Settle] = [answer, reject, fail]


def seen(result: outcome.Outcome[Any]) -> Settle:
    """Which of them an asker got this from."""
    match result:
        case outcome.Value(1):
            return answer
        case outcome.Error(Reject(error="no")):
            return reject
        case outcome.Error(ActorStopped()):
            return fail
    raise AssertionError(result)


@pytest.mark.parametrize("second", SETTLERS)
@pytest.mark.parametrize("first", SETTLERS)
@pytest.mark.parametrize("waits_already", [True, False])
async def test_the_first_wins(waits_already: bool, first: Settle, second: Settle, autojump_clock: MockClock) -> None:
    envelope = Envelope("message", True, None)
    got: list[outcome.Outcome[Any]] = []

    async def ask() -> None:
        got.append(await outcome.acapture(envelope.wait))

    async with trio.open_nursery() as nursery:
        if waits_already:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
        assert not envelope.settled
        assert first(envelope) is True
        assert envelope.settled
        assert second(envelope) is False
        if not waits_already:
            nursery.start_soon(ask)
    assert seen(got[0]) is first
    assert not envelope.abandoned


@pytest.mark.parametrize("settle", SETTLERS)
async def test_who_has_gone_gets_nothing(settle: Settle, autojump_clock: MockClock) -> None:
    envelope = Envelope("message", True, None)
    with trio.move_on_after(1):
        await envelope.wait()
    assert envelope.abandoned
    assert settle(envelope) is False


@pytest.mark.parametrize("settle", SETTLERS)
async def test_a_told_message_is_settled_once_too(settle: Settle) -> None:
    envelope = Envelope("message", False, None)
    assert [settle(envelope), settle(envelope)] == [True, False]
    assert envelope.settled
