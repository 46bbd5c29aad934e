"""Requests and events in two servers that share nothing but the engines: together they do the whole flow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines.kafka import Broker
from tests.engines.postgres import Server as Postgres
from tests.flow.server import Server, eventually
from tests.flow.workers import engines, started

pytestmark = [pytest.mark.process, pytest.mark.engines]


@contextmanager
def both(folder: Path, config: str) -> Iterator[tuple[Server, Server]]:
    folder.mkdir(exist_ok=True)
    with (
        started(folder / "gateway", f'server.roles = ["gateway"]\n{config}', workers=1) as gateway,
        started(folder / "consumers", f'server.roles = ["consumers"]\n{config}', workers=1) as consumers,
    ):
        yield gateway, consumers


def children(server: Server) -> list[str]:
    with server.admin() as admin:
        return [node["id"] for node in admin.get("/tree").json()["children"]]


def test_a_gateway_and_consumers_do_the_whole_flow_together(
    postgres: Postgres, kafka_broker: Broker, tmp_path: Path
) -> None:
    config = engines(postgres, kafka_broker, postgres.create_database())
    with both(tmp_path, config) as (gateway, consumers):
        assert children(gateway) == ["admin", "control", "state", "request_path", "routing", "front_end"]
        assert children(consumers) == ["admin", "control", "state", "consumers"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(consumers.url)
        token = consumers.token()  # every operation is there, whatever the role
        with gateway.client(token) as client:
            made = client.post("/users", json={"name": "Grace Hopper", "email": "g@example.com", "bio": ""})
            assert made.status_code == 201, made.text
            id = made.json()["id"]
            assert client.get(f"/users/{id}").status_code == 200

            def found() -> bool:
                return id in [hit["id"] for hit in client.get("/search?q=hopper").json()["items"]]

            def audited() -> bool:
                items: list[dict[str, Any]] = client.get(f"/audit?entity=user/{id}").json()["items"]
                return {"user.create", "user.read"} <= {item["action"] for item in items}

            eventually(found, within=60)
            eventually(audited, within=60)
            assert consumers.cli("token", "revoke", token).returncode == 0
            eventually(lambda: client.get(f"/users/{id}").status_code == 401)  # heard of by the gateway
        for server in (gateway, consumers):
            assert server.cli("dlq", "list").returncode == 0
            assert httpx.get(f"{server.admin_url}/metrics").status_code == 200
        assert consumers.stop(60) == 0
        assert gateway.stop(60) == 0
        assert "Traceback" not in gateway.log.read_text() + consumers.log.read_text()
