"""trio without actors: what one writes by hand, one message at a time over memory channels."""

import trio

from bench.runtime.measure import ASKERS, CAPACITY, Meter, Times, main

Request = tuple[int, trio.MemorySendChannel[int]]


def ask_64(times: Times) -> dict[str, float]:
    """Each ask brings a channel for its answer."""
    meter = Meter(times)

    async def serve(requests: trio.MemoryReceiveChannel[Request]) -> None:
        async for number, reply in requests:
            await reply.send(number)

    async def ask(requests: trio.MemorySendChannel[Request]) -> None:
        while meter.running():
            reply, answer = trio.open_memory_channel[int](1)
            await requests.send((1, reply))
            await answer.receive()
            meter.count += 1

    async def run() -> None:
        requests, taken = trio.open_memory_channel[Request](CAPACITY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, taken)
            async with trio.open_nursery() as askers:
                for _ in range(ASKERS):
                    askers.start_soon(ask, requests)
            requests.close()

    trio.run(run)
    return {"figure": meter.rate()}


def tell(times: Times) -> dict[str, float]:
    """Send until the channel is full, let others run, go on."""
    meter = Meter(times)

    async def receive(messages: trio.MemoryReceiveChannel[int]) -> None:
        while True:
            await messages.receive()
            meter.count += 1

    async def run() -> None:
        sender, receiver = trio.open_memory_channel[int](CAPACITY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, receiver)
            while meter.running():
                try:
                    while True:
                        sender.send_nowait(1)
                except trio.WouldBlock:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    trio.run(run)
    return {"figure": meter.rate()}


if __name__ == "__main__":
    main({"ask-64": ask_64, "ask-64-async": ask_64, "ask-64-batch": ask_64, "tell": tell, "try-tell": tell})
