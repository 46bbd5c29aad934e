"""A side of a micro bench: a program that does one piece of work, and prints what it measured."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.process import ROOT, TAIL_LINES, Failed, pin
from bench.registry import Sample, Session

# Enough for thousands of operations, and few enough seconds that all rows together stay below a minute.
SECONDS, WARMUP_S = 0.8, 0.2
GIVE_UP_S = 30.0


class Program:
    """`python -m MODULE WORK` in a process of its own for each sample, on the server's core."""

    needs: tuple[str, ...] = ()
    seconds, warmup_s = SECONDS, WARMUP_S
    """At most; a session may ask for less."""

    def __init__(self, python: Path, module: str) -> None:
        self._python, self._module = python, module
        self.kind = module  # nobody else can do its rows' work
        self.env: Mapping[str, str] = {}
        self.more: Sequence[str] = ()

    def start(self, session: Session) -> None:
        if not self._python.exists():
            raise Failed(f"there is no {self._python}; run `make setup`")

    def finish(self) -> list[str]:
        return []

    def stop(self) -> None:
        """Nothing runs between two samples."""

    def measure(self, work: str, session: Session) -> Sample:
        """Run the program on *work*. Raises `Failed` when it fails or hangs."""
        command = [str(self._python), "-m", self._module, work]
        command += ["--seconds", str(min(self.seconds, session.seconds))]
        command += ["--warmup", str(min(self.warmup_s, session.warmup_s)), *self.more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, **self.env}}
        with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as child:  # type: ignore[call-overload]
            pin(child.pid, session.layout.server_core)
            try:
                out, err = child.communicate(timeout=GIVE_UP_S)
            except BaseException as error:
                child.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise Failed(f"{self._module} {work} hung") from None
                raise
        if child.returncode:
            last = "\n".join(err.splitlines()[-TAIL_LINES:])
            raise Failed(f"{self._module} {work}: exit code {child.returncode}\n{last}")
        measured = json.loads(out)
        return Sample(measured.pop("figure"), measured)
