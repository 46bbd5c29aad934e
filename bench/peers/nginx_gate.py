"""nginx doing the flow's reads as its users would: limit_req, auth_request and proxy_pass.

The service and the Auth Service behind it are two more `server`s of the same nginx: Weir and FastAPI answer
from the one process on the one core too. They answer with `return`, which costs next to nothing.
"""

import json
import secrets
import time
import uuid
from pathlib import Path

from bench.certificate import Certificate, certificate
from bench.load import ORIGIN
from bench.peers.http_peer import SUBJECT, USERS, HttpPeer
from bench.peers.nginx import nginx
from bench.process import Failed, fetch, free_port
from bench.registry import Session

# The limits are so high that they never refuse. The verdict on a token is cached for a minute, as in Weir.
# The access log stands for the audit trail, written in batches: at most 50 ms old.
HTTP = """\
    limit_req_zone $http_authorization zone=caller:16m rate=500000r/s;
    limit_req_zone $binary_remote_addr zone=address:16m rate=500000r/s;
    map_hash_bucket_size 256;
    proxy_cache_path {folder}/cache keys_zone=tokens:16m max_size=64m use_temp_path=off;
    log_format audit escape=json '{{"at":"$time_iso8601","request_id":"$request_id","method":"$request_method",'
        '"entity":"$uri","status":"$status","subject":"$subject"}}';
    map $http_origin $allowed_origin {{ "{origin}" $http_origin; default ""; }}
    map $http_authorization $known {{ "Bearer {token}" "{subject}"; default ""; }}

    upstream auth {{ server 127.0.0.1:{auth}; keepalive 64; }}
    upstream users {{ server 127.0.0.1:{users}; keepalive 64; }}

    server {{
        listen 127.0.0.1:{auth};
        location / {{
            if ($known = "") {{ return 401; }}
            add_header X-Subject $known;
            return 200 '{{"active":true}}';
        }}
    }}
    server {{
        listen 127.0.0.1:{users};
        location ~ ^/users/(?<id>[0-9a-f-]+)$ {{
            add_header ETag '"1"';
            return 200 '{user}';
        }}
    }}
    server {{
        listen 127.0.0.1:{port}{tls};
        server_name _;
        {certificate}
        access_log {folder}/audit.log audit buffer=64k flush=50ms;
        limit_req zone=caller burst=1000000 nodelay;
        limit_req zone=address burst=1000000 nodelay;
        proxy_http_version 1.1;
        proxy_set_header Connection "";

        location /users {{
            auth_request /_auth;
            auth_request_set $subject $upstream_http_x_subject;
            proxy_set_header X-Subject $subject;
            proxy_set_header X-Request-ID $request_id;
            proxy_pass http://users;
            add_header Access-Control-Allow-Origin $allowed_origin always;
            add_header Vary Origin always;
            add_header X-Request-ID $request_id always;
        }}
        location = /_auth {{
            internal;
            proxy_pass http://auth;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            proxy_cache tokens;
            proxy_cache_key $http_authorization;
            proxy_cache_valid 200 60s;
        }}
    }}
"""

USER = {
    "id": "$id",
    "name": "Reader 1",
    "email": "reader1@bench.example",
    "bio": "Is read.",
    "version": 1,
    "created_at": "2026-01-01T00:00:00.000Z",
    "updated_at": "2026-01-01T00:00:00.000Z",
}


class NginxGate(HttpPeer):
    """*tls*: HTTPS, HTTP/1.1 and HTTP/2 by ALPN."""

    kind = "users"
    needs: tuple[str, ...] = ("nginx",)

    def __init__(self, tls: bool = False) -> None:
        super().__init__()
        self._tls = tls
        self._audits = Path()

    def launch(self, session: Session) -> None:
        self.token = secrets.token_urlsafe(32)
        port, folder = free_port(), session.folder / "nginx"
        self._audits = folder / "audit.log"
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        config = HTTP.format(
            folder=folder,
            origin=ORIGIN,
            token=self.token,
            subject=SUBJECT,
            user=json.dumps(USER, separators=(",", ":")),
            port=port,
            auth=free_port(),
            users=free_port(),
            tls=" ssl http2" if self._tls else "",
            certificate=directives(certificate(session.folder)) if self._tls else "",
        )
        self.process = nginx(folder, config, session.layout.server_core)
        self.process.wait_ready(f"{self.url}/users/0", self.token)

    def prepare(self) -> list[str]:
        ids = [str(uuid.uuid4()) for _ in range(USERS)]
        for id in ids:
            if f'"id":"{id}"'.encode() not in fetch(f"{self.url}/users/{id}", self.token):
                raise Failed(f"{self.url}/users/{id} is another user")
        try:
            fetch(f"{self.url}/users/{ids[0]}", "not-the-token")
        except OSError as error:
            if getattr(error, "code", None) != 401:
                raise
        else:
            raise Failed(f"{self.url} lets an unknown token pass")
        self.expected_audits = USERS + 1  # one more by `wait_ready`; refusals have no subject
        return [f"/users/{id}" for id in ids]

    def count_audits(self) -> tuple[int, bool]:
        time.sleep(0.2)  # its buffer's 50 ms, and some
        with self._audits.open("rb") as lines:
            return sum(f'"subject":"{SUBJECT}"'.encode() in line for line in lines), True


def directives(pair: Certificate) -> str:
    return f"ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};"
