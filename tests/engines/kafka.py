"""A real Kafka for the test session: one broker in KRaft mode, and one that a test may kill, stop and restart.

Beside its open listener a broker has one with passwords (`SASL`), whose users have the rights that their name says.
"""

import gc
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.engines import executable, free_port, log_tail, missing

LIBS = Path(__file__).parents[2] / ".services" / "kafka" / "libs"
START_S = 60.0
USERS = {"admin": "admin-secret", "nobody": "nobody-secret"}
"""User and password of the SASL listener: `admin` may do everything, `nobody` nothing."""

# The heap is small and compiling is left to the quick compiler: a broker lives for a minute.
JVM = ("-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


class Broker:
    """One broker and controller in one process. Its ports and its data stay over `kill` and `start`.

    A broker tells its clients where to find it, so who is to come through a proxy needs a listener that says so:
    with *proxied* (it gets that listener's port and returns the proxy's) there is one.
    """

    def __init__(self, folder: Path, proxied: Callable[[int], int] | None = None, jvm: Sequence[str] = JVM) -> None:
        self._folder = folder
        self._jvm = jvm
        self._proxied_port = free_port() if proxied else 0
        self._proxy_port = proxied(self._proxied_port) if proxied else 0
        self._java = java()
        self._port, self._sasl_port, self._controller_port = free_port(), free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "broker.log"
        self._properties = folder / "server.properties"
        self._properties.write_text(self._configuration())
        self._run("kafka.tools.StorageTool", "format", "--standalone", "-t", "4L6g3nShT-eMCtK--X86sw",
                  "-c", str(self._properties))  # fmt: skip

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def proxied_bootstrap(self) -> str:
        return f"127.0.0.1:{self._proxy_port}"

    @property
    def sasl_bootstrap(self) -> str:
        return f"127.0.0.1:{self._sasl_port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Returns when the broker takes requests, or at once without *wait*."""
        if not self.running:
            with self._log.open("ab") as log:
                command = [*_dies_with_us(), *self._command("kafka.Kafka", str(self._properties))]
                self._process = subprocess.Popen(command, stdout=log, stderr=log)
        if wait:
            self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.running:
            # The port opens last of all, once the broker has recovered and was told to serve.
            if self._answers() and self._serving():
                return
            time.sleep(0.05)
        pytest.fail(f"Kafka did not start:\n{log_tail(self._log)}", pytrace=False)

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._log.unlink(missing_ok=True)

    def suspend(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.running and self._process is not None:
            self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def _serving(self) -> bool:
        return self._log.exists() and b"Kafka Server started" in self._log.read_bytes()

    def _run(self, *command: str) -> None:
        done = subprocess.run(self._command(*command), capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"{command[0]} failed:\n{done.stdout}{done.stderr}", pytrace=False)

    def _command(self, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={Path(__file__).parent / 'kafka-log4j2.properties'}"
        return [self._java, *self._jvm, logging, "-cp", f"{LIBS}/*", *arguments]

    def _configuration(self) -> str:
        users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
        public = f"PLAIN://127.0.0.1:{self._port},SASL://127.0.0.1:{self._sasl_port}"
        advertised = public
        if self._proxy_port:
            public += f",PROXIED://127.0.0.1:{self._proxied_port}"
            advertised += f",PROXIED://127.0.0.1:{self._proxy_port}"
        login = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        return f"""
            process.roles=broker,controller
            node.id=1
            controller.quorum.bootstrap.servers=127.0.0.1:{self._controller_port}
            controller.listener.names=CONTROLLER
            listeners={public},CONTROLLER://127.0.0.1:{self._controller_port}
            advertised.listeners={advertised}
            listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SASL:SASL_PLAINTEXT
            inter.broker.listener.name=PLAIN
            sasl.enabled.mechanisms=PLAIN
            listener.name.sasl.plain.sasl.jaas.config={login}
            authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
            super.users=User:ANONYMOUS;User:admin
            log.dirs={self._folder / "data"}
            offsets.topic.num.partitions=1
            offsets.topic.replication.factor=1
            transaction.state.log.num.partitions=1
            transaction.state.log.replication.factor=1
            transaction.state.log.min.isr=1
            share.coordinator.state.topic.num.partitions=1
            share.coordinator.state.topic.replication.factor=1
            share.coordinator.state.topic.min.isr=1
            broker.session.timeout.ms=1000
            broker.heartbeat.interval.ms=300
            group.initial.rebalance.delay.ms=0
            group.min.session.timeout.ms=1000
            log.cleaner.dedupe.buffer.size=2097152
            num.network.threads=2
            num.io.threads=2
            background.threads=2
        """.replace("            ", "")


def java() -> str:
    """The `java` to run Kafka with; the test is skipped (or fails) where there is none, or no Kafka."""
    found = executable("Kafka (Java)", "java")
    line = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'"(\d+)', line)
    if version is None or int(version[1]) < 17 or not list(LIBS.glob("kafka_*.jar")):
        missing("Kafka")
    return found


def _dies_with_us() -> list[str]:
    """A session that is killed leaves no broker behind."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _broker(factory: pytest.TempPathFactory, name: str) -> Iterator[Broker]:
    folder = factory.mktemp(name)
    broker = Broker(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that stays up for the whole session; tests have topics and groups of their own on it."""
    yield from _broker(tmp_path_factory, "kafka")


@pytest.fixture(scope="session")
def _faulty_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from _broker(tmp_path_factory, "faulty-kafka")


@pytest.fixture
def faulty_kafka(_faulty_kafka: Broker) -> Iterator[Broker]:
    """A broker to kill -9, SIGSTOP and restart; whole again for the next test."""
    _faulty_kafka.resume()
    _faulty_kafka.start()
    yield _faulty_kafka
    _faulty_kafka.resume()


@pytest.fixture(autouse=True)
def _left_to_the_collector(request: pytest.FixtureRequest) -> Iterator[None]:
    """aiokafka leaves the first connection of a `start` that was cancelled or failed to the garbage collector. It is
    found while its own test's warnings are filtered, and not in some other test."""
    yield
    if any("kafka" in name for name in (*request.fixturenames, request.node.path.name)):
        gc.collect()
