"""Two instances on the same engines: how long until one knows what the other did."""

import base64
import http.client
import json
import time
from urllib.parse import urlencode, urlsplit

from bench.engines import on_core
from bench.load import percentile
from bench.peers.on_engines import WeirPair
from bench.process import Failed
from bench.registry import Row, Sample, Session

TIMES, QUICK_TIMES = 200, 20
GIVE_UP_S = 10.0


def revoked(peer: WeirPair, session: Session) -> Sample:
    """From when a revocation is sent to one instance to the first 401 of the other, which has the token cached.

    The other is asked again and again over one connection; it answers within a millisecond or two.
    """
    with on_core(session.layout.load_core):
        first, second = (http.client.HTTPConnection(urlsplit(url).netloc, timeout=GIVE_UP_S) for url in peer.urls)
        times = TIMES if session.seconds >= 2 else QUICK_TIMES
        found = sorted(1000 * once(peer, first, second) for _ in range(times))
        first.close()
        second.close()
    details = {key: percentile(found, share) for key, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))}
    return Sample(details["p99_ms"], {key: round(value, 2) for key, value in details.items()})


def once(peer: WeirPair, first: http.client.HTTPConnection, second: http.client.HTTPConnection) -> float:
    """Seconds. Raises `Failed`."""
    status, answer = form(peer, first, "/oauth/token", {"grant_type": "client_credentials"})
    if status != 200:
        raise Failed(f"/oauth/token answered {status}")
    token = json.loads(answer)["access_token"]
    for _ in range(2):  # loaded, then cached
        if (status := read(second, token)) != 404:
            raise Failed(f"the second instance answered {status} to a token that it should know")
    send(peer, first, "/oauth/revoke", {"token": token})
    sent = time.perf_counter()
    while (status := read(second, token)) == 404:
        if time.perf_counter() - sent > GIVE_UP_S:
            raise Failed(f"a revoked token is accepted after {GIVE_UP_S:.0f} s")
    took = time.perf_counter() - sent
    if status != 401:
        raise Failed(f"the second instance answered {status} to a revoked token")
    if (answered := first.getresponse()).status != 200:
        raise Failed(f"/oauth/revoke answered {answered.status}")
    answered.read()
    return took


def form(
    peer: WeirPair, connection: http.client.HTTPConnection, path: str, fields: dict[str, str]
) -> tuple[int, bytes]:
    send(peer, connection, path, fields)
    answer = connection.getresponse()
    return answer.status, answer.read()


def send(peer: WeirPair, connection: http.client.HTTPConnection, path: str, fields: dict[str, str]) -> None:
    credentials = base64.b64encode(":".join(peer.client).encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", path, urlencode(fields), headers)


def read(connection: http.client.HTTPConnection, token: str) -> int:
    """Of a user that there is not: its absence is cached, too."""
    connection.request("GET", "/users/nobody", headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


ROWS = (
    Row(
        "revoke", "p99 from revoking a token to 401 at another instance", "ms", ("weir-pair",), revoked, "lower", False
    ),
)
