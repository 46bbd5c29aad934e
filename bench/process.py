"""Child processes: started on a core, watched until they answer, ended for certain."""

import os
import resource
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_S = 20.0
STOP_S = 15.0
TAIL_LINES = 20
SESSION, UTIME, STIME, RSS = 3, 11, 12, 21  # fields of /proc/ID/stat after the name, see proc(5)


class Failed(Exception):
    """A part of the bench did not do what it had to; the message says which, and why."""


class Skipped(Exception):
    """This machine, or this build of Weir, cannot do it. No failure; the message says why, in one line."""


def raise_file_limit(files: int = 0) -> None:
    """Let this process and those it starts open as many files as it may. Raises `Skipped` below *files*."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files and hard != resource.RLIM_INFINITY and hard < files:
        raise Skipped(f"needs {files:,} open files (ulimit -Hn), and may have {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def fetch(url: str, token: str = "", body: bytes | None = None, timeout: float = 10.0) -> bytes:
    """GET *url*, or POST *body* to it. Raises OSError (also for a status that is not 2xx)."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    # The certificate is one that the bench has just made; trust is not what is measured.
    context = ssl._create_unverified_context() if url.startswith("https:") else None
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=timeout, context=context) as response:
        content: bytes = response.read()
        return content


def output_of(command: Sequence[str], env: Mapping[str, str]) -> str:
    """Run *command* in the checkout and return what it printed. Raises `Failed`."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=START_S, check=False
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout.strip()


class Process:
    """A server of ours. Its output goes to *log*, of which a failure shows the end."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path, core: int | None) -> None:
        self._name, self._log = " ".join(command[1:]), log
        with log.open("wb") as out:
            # A session of its own: Ctrl-C at the terminal reaches us alone, and we end it in order.
            self._child = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **env}, stdout=out, stderr=out, start_new_session=True
            )
        pin(self._child.pid, core)

    def wait_ready(self, url: str, token: str = "") -> None:
        """Return when *url* answers 2xx. Raises `Failed` when the process ends first or takes over `START_S`."""
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up:
            self.check()
            try:
                fetch(url, token, timeout=1.0)
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise Failed(f"{self._name}: not ready after {START_S:.0f} s\n{self._tail()}")

    def check(self) -> None:
        if self._child.poll() is not None:
            raise Failed(f"{self._name}: ended with code {self._child.returncode}\n{self._tail()}")

    def cpu_seconds(self) -> float:
        """Processor time used so far, by it and the processes it started, threads included; 0 without /proc."""
        ticks = sum(int(fields[UTIME]) + int(fields[STIME]) for fields in self._family())
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Bytes of memory that it and the processes it started hold (RSS); 0 without /proc."""
        return sum(int(fields[RSS]) for fields in self._family()) * os.sysconf("SC_PAGE_SIZE")

    def _family(self) -> Iterator[list[str]]:
        """Of each process of its session, the fields of /proc/ID/stat from `state` on."""
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[SESSION]) == self._child.pid:
                yield fields

    def stop(self) -> None:
        """SIGTERM; after `STOP_S` SIGKILL to it and to what it started. A server that must be killed has failed."""
        if self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self._name}: did not stop within {STOP_S:.0f} s of SIGTERM\n{self._tail()}") from None
        finally:
            if self._child.poll() is None:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def pin(pid: int, core: int | None) -> None:
    """Keep a process that has just begun (and the threads it will start) on one core; None leaves it free."""
    if core is not None:
        os.sched_setaffinity(pid, {core})
