"""What nobody handled is counted by reason, and offered to whoever watches."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import DeadLetter, Mailbox
from tests.runtime.support import Crash, Echo, Hold, Journal, Refuse, child, open_system, tree


async def test_each_loss_has_its_reason_and_its_message(autojump_clock: MockClock) -> None:
    letters: list[DeadLetter] = []
    root = tree(child("a", Journal(), mailbox=Mailbox(1, "drop_old")), child("b", Journal()))
    async with open_system(root) as system:
        system.dead_letters.subscribe(letters.append)
        hold, dropped, crash, refused, abandoned = Hold(), Echo(), Crash(), Refuse("no"), Echo()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(dropped)
        await system.ref("a").tell(Echo())
        hold.released.set()
        await wait_all_tasks_blocked()
        await system.ref("a").tell(crash)
        await wait_all_tasks_blocked()
        await system.ref("b").tell(refused)
        await system.ref("b").tell(Echo(after=2))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await system.ref("b").ask(abandoned)
    late = Echo()
    system.ref("a").try_tell(late)
    assert letters == [
        DeadLetter("a", dropped, "dropped"),
        DeadLetter("a", crash, "crashed"),
        DeadLetter("b", refused, "rejected"),
        DeadLetter("b", abandoned, "abandoned"),
        DeadLetter("a", late, "stopped"),
    ]
    assert system.dead_letters.counts == {(letter.actor, letter.reason): 1 for letter in letters}


async def test_what_is_handled_is_no_dead_letter(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        for n in range(20):
            assert await system.ref("a").ask(Echo(n)) == n
            await system.ref("a").tell(Echo(n))
    assert not system.dead_letters.counts
