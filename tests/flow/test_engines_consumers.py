"""Consumer groups of three instances on Kafka while instances are killed, leave and join, and the broker restarts:
nothing is lost, order holds per key, and each record that failed is in one dead-letter topic."""

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.flow.installation import Installation, installed, is_whole
from tests.flow.killed_handlers import Effects
from tests.flow.published import records
from tests.flow.server import GENEROUS, ROOT, eventually

pytestmark = [pytest.mark.process, pytest.mark.engines, pytest.mark.long]

CONFIG = f"""
consumers.backoff_base = "20ms"
consumers.backoff_cap = "100ms"
{GENEROUS}
[[consumer]]
name = "effects"
topics = ["entity.changed"]
handler = "{Effects.__module__}:{Effects.__name__}"
concurrency = 8
"""
KINDS = ("plain", "plain", "plain", "slow", "failing", "broken")
Note = Callable[[str, object], None]
DEAD = "entity.changed.effects.dlt"


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with installed() as made:
        yield made


class Rounds:
    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.effects = installation.folder / "effects.txt"
        self.servers = [installation.instance(CONFIG) for _ in range(3)]
        self.token = ""
        self.changes: dict[str, str] = {}
        """What was acknowledged: (user, version) → the kind of change."""

    def up(self) -> None:
        """Start what is down, again and again while poison kills it; everything is whole."""

        def all_up() -> bool:
            for server in self.servers:
                if server.process is None or server.process.poll() is not None:
                    server.start(wait=False)
            return all(is_whole(server) for server in self.servers)

        def none_ended() -> bool:
            try:
                return all_up()
            except RuntimeError:  # one ended meanwhile: the next look starts it
                return False

        eventually(none_ended, 120, 0.2)

    def write(self, users: int) -> None:
        for _ in range(users):
            server = random.choice([s for s in self.servers if s.process is not None and s.process.poll() is None])
            try:
                with server.client(self.token) as client:
                    self._user(client)
            except httpx.TransportError:
                pass  # it died: what it did not acknowledge may have happened or not

    def _user(self, client: httpx.Client) -> None:
        kind = random.choice(KINDS)
        made = client.post("/users", json={"name": f"{kind} x", "email": "a@example.org", "bio": ""})
        if made.status_code != 201:
            return
        id = made.json()["id"]
        self.changes[f"{id} 1"] = kind
        for version in range(2, 2 + random.randrange(3)):
            kind = random.choice(KINDS)
            if client.patch(f"/users/{id}", json={"name": f"{kind} {version}"}).status_code != 200:
                return
            self.changes[f"{id} {version}"] = kind

    def poison(self) -> None:
        with self.servers[0].client(self.token) as client:
            made = client.post("/users", json={"name": "poison", "email": "a@example.org", "bio": ""})
            if made.status_code == 201:
                self.changes[f"{made.json()['id']} 1"] = "poison"

    def disturb(self, number: int) -> None:
        """Kill, stop in order, or restart the broker; what is down comes back."""
        server = self.servers[number % 3]
        match number % 5:
            case 3:
                self.installation.kafka.kill()
                self.write(3)
                self.installation.kafka.start()
            case 1 | 4 if server.process is not None and server.process.poll() is None:
                assert server.stop() == 0
            case _ if server.process is not None and server.process.poll() is None:
                server.kill9()
        self.write(4)
        if server.process is not None and server.process.poll() is not None:
            server.start(wait=False)

    def done(self) -> dict[str, list[int]]:
        """The versions of each user that were done, in the order of the effects; a repetition shows."""
        found: dict[str, list[int]] = defaultdict(list)
        for line in self.effects.read_text().splitlines() if self.effects.exists() else ():
            what, _, user, version, _ = line.split()
            if what == "done":
                found[user].append(int(version))
        return found

    def dead(self) -> dict[str, list[str]]:
        """(user, version) → the topics in which it is a dead letter."""
        found: dict[str, list[str]] = defaultdict(list)
        for topic, letters in records(self.installation.kafka.bootstrap, ".dlt").items():
            for letter in letters:
                change = json.loads(letter.value)
                found[f"{change['id']} {change['version']}"].append(topic)
        return found

    def check(self) -> None:
        wanted = {at for at, kind in self.changes.items() if kind in ("plain", "slow")}
        failed = set(self.changes) - wanted

        def missing() -> list[set[str]]:
            done = {f"{user} {version}" for user, versions in self.done().items() for version in versions}
            return [wanted - done, failed - self.dead().keys()]

        end = time.monotonic() + 90
        while any(missing()) and time.monotonic() < end:
            self.up()  # poison kills whoever tries it
            time.sleep(0.5)
        assert missing() == [set(), set()]
        dead = self.dead()
        assert {at: topics for at, topics in dead.items() if set(topics) != {DEAD}} == {}
        assert set(dead) & set(self.changes) == failed, "an innocent one is among the dead letters"
        for user, versions in self.done().items():
            first = list(dict.fromkeys(versions))
            assert first == sorted(first), f"{user}: {versions}"


def rounds(installation: Installation, count: int, monkeypatch: pytest.MonkeyPatch, note: Note) -> None:
    run = Rounds(installation)
    monkeypatch.setenv("WEIR_TEST_EFFECTS", str(run.effects))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'http'}")
    try:
        run.up()
        run.token = run.servers[0].token()
        for number in range(count):
            run.write(6)
            if number % 5 == 2:
                run.poison()
            time.sleep(random.uniform(0, 0.5))
            run.disturb(number)
        run.up()
        run.check()
        done = list(run.done().values())
        note("changes", len(run.changes))
        note("done again", sum(map(len, done)) - sum(len(set(versions)) for versions in done))
    finally:
        for server in run.servers:
            if server.process is not None and server.process.poll() is None:
                server.kill9()
        installation.mend()


def test_ten_rounds(installation: Installation, monkeypatch: pytest.MonkeyPatch, record_property: Note) -> None:
    rounds(installation, 10, monkeypatch, record_property)


@pytest.mark.long
def test_two_hundred_rounds(installation: Installation, monkeypatch: pytest.MonkeyPatch, record_property: Note) -> None:
    rounds(installation, 200, monkeypatch, record_property)
