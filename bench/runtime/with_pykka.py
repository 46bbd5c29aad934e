"""Pykka as its users write it: a ThreadingActor, asks from one thread, the futures of 64 asks in flight."""

import pykka

from bench.runtime.measure import ASKERS, Meter, Times, main


class Echo(pykka.ThreadingActor):
    def on_receive(self, message: int) -> int:
        return message


def ask_64(times: Times) -> dict[str, float]:
    """64 asks pipelined, then all their answers: quicker than asking anew after each answer."""
    echo = Echo.start()
    meter = Meter(times)
    while meter.running():
        pykka.get_all([echo.ask(number, block=False) for number in range(ASKERS)])
        meter.count += ASKERS
    echo.stop()
    return {"figure": meter.rate()}


def ask_1(times: Times) -> dict[str, float]:
    echo = Echo.start()
    meter = Meter(times)
    while meter.running():
        echo.ask(1)
        meter.count += 1
    echo.stop()
    return {"figure": meter.rate()}


if __name__ == "__main__":
    main({"ask-64": ask_64, "ask-1": ask_1, "ask-64-async": ask_64, "ask-1-async": ask_1, "ask-64-batch": ask_64})
