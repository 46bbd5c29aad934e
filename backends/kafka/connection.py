"""How to reach the brokers: settings as aiokafka's clients take them, and why they cannot be reached."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.conn import create_conn

from backends.kafka.errors import UnusableKafka, reason, translated
from backends.ports.entities import StoreUnavailable

_BACKOFF_MS = 200
_CREATE_TOPICS = 19
_SINCE_2_4 = 4
"""The version of CreateTopics that lets the cluster choose the replicas (KIP-464)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """`bootstrap`: `host:port[,host:port…]`. `instance_id` "": a member of a group has no name of its own.
    `metadata_age`: topics and partitions are looked up anew so often, so that long new ones may go unseen."""

    bootstrap: str
    instance_id: str = ""
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    username: str = ""
    password: str = field(default="", repr=False)
    tls_ca: Path | None = None
    request_timeout: float = 5.0
    metadata_age: float = 30.0

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """IPv6 hosts without their brackets."""
        found = (address.strip().rpartition(":") for address in self.bootstrap.split(","))
        return [(host.strip("[]"), int(port)) for host, _, port in found]

    def options(self) -> dict[str, Any]:
        """What every aiokafka client is made with. Raises UnusableKafka for a CA file that cannot be used."""
        return {
            "bootstrap_servers": self.bootstrap,
            "client_id": "weir",
            "request_timeout_ms": int(self.request_timeout * 1000),
            "retry_backoff_ms": _BACKOFF_MS,
            "metadata_max_age_ms": int(self.metadata_age * 1000),
            **self._security(),
        }

    def _security(self) -> dict[str, Any]:
        security: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.security_protocol.endswith("SSL"):
            security["ssl_context"] = self._tls()
        if self.security_protocol.startswith("SASL"):
            security |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return security

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.tls_ca)
        except (OSError, ssl.SSLError) as error:
            raise UnusableKafka(f"kafka.tls_ca = {self.tls_ca}: {error}; name a PEM file of certificates") from None


async def probe(connection: Connection) -> None:
    """asyncio's. Return when one of the bootstrap servers answers as a Kafka broker that lets us in.

    Raises `UnusableKafka` when the operator must do something first, else `StoreUnavailable`; the line names
    the setting and what was tried.
    """
    security = connection._security()
    problems: list[tuple[str, Exception]] = []
    for host, port in connection.hosts:
        try:
            opened = await create_conn(
                host, port, request_timeout_ms=int(connection.request_timeout * 1000), **security
            )
        except Exception as error:
            problems.append((f"{host}:{port}", error))
        else:
            offered = opened._versions
            opened.close()
            check_version(offered, f"{host}:{port}")
            return
    for server, problem in problems:
        hopeless = _hopeless(server, problem)
        if hopeless is not None:
            raise hopeless
    tried = "; ".join(f"{server}: {_soft(problem)}" for server, problem in problems)
    raise StoreUnavailable(f"kafka.bootstrap = {connection.bootstrap}: no broker answers ({tried})")


def check_version(offered: Mapping[int, tuple[int, int]], server: str) -> None:
    """Given the versions of each request that a broker takes, raise UnusableKafka for one before 2.4."""
    if offered.get(_CREATE_TOPICS, (0, 0))[1] < _SINCE_2_4:
        raise UnusableKafka(f"Kafka at {server} is too old; Weir needs Kafka 2.4 or newer")


def _hopeless(server: str, error: Exception) -> UnusableKafka | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnusableKafka(
            f"Kafka at {server} has a certificate that is not trusted ({error.verify_message}); "
            "set kafka.tls_ca, or a host name that the certificate has"
        )
    if isinstance(error, ssl.SSLError):
        return UnusableKafka(f"Kafka at {server} does not speak TLS ({error.reason}); check kafka.security_protocol")
    problem = translated(error, f"open a connection to {server}")
    return problem if isinstance(problem, UnusableKafka) else None


def _soft(error: Exception) -> str:
    said = reason(error)
    if isinstance(error, TimeoutError | ConnectionResetError) or "closed" in said.lower():
        return f"{said} (a Kafka listener? the right kafka.security_protocol?)"
    return said
