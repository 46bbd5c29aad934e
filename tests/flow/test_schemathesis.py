"""Schemathesis makes requests out of `/openapi.json`: no answer is a 5xx, or one that the document does not have."""

import os
import shutil
import subprocess

import pytest

from tests.flow.server import GENEROUS, running

SCHEMATHESIS = os.environ.get("WEIR_SCHEMATHESIS") or shutil.which("schemathesis")

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(
        SCHEMATHESIS is None,
        reason="no schemathesis: pipx install schemathesis (then on PATH, or WEIR_SCHEMATHESIS=path)",
    ),
]

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method",
)  # fmt: skip
SECONDS = 120


def test_every_answer_is_in_the_document(tmp_path):
    with running(tmp_path, GENEROUS) as server:
        made = server.cli("client", "create", "--name", "schemathesis", "--scope", "users:read").stdout
        client = dict(line.split("=", 1) for line in made.split())
        for options in (
            ["-H", f"Authorization: Bearer {server.token()}", "--exclude-path-regex", "^/oauth"],
            ["--auth", f"{client['client_id']}:{client['client_secret']}", "--include-path-regex", "^/oauth"],
        ):
            ran = subprocess.run(
                [
                    str(SCHEMATHESIS), "run", f"{server.url}/openapi.json", *options, "--checks", ",".join(CHECKS),
                    "--continue-on-failure", "--max-time", str(SECONDS), "--warnings", "off",
                ],
                cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS * 4,
            )  # fmt: skip
            assert ran.returncode == 0, ran.stdout[-4000:]
        assert server.metric("weir_requests_total", route="/users") > 100
        assert server.metric("weir_requests_total", route="/oauth", status="200") > 10
        assert server.stop() == 0
