"""nginx as a process of the bench: one worker, its files in the session's folder."""

import getpass
import os
from pathlib import Path

from bench.process import Process
from bench.tools import tool

# `error_log` as an argument too: nginx opens its built-in one before it has read its configuration.
MAIN = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
{user}
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{http}
}}
"""


def nginx(folder: Path, http: str, core: int | None) -> Process:
    """Start it with *http* inside its `http` block; not yet ready. Raises `Skipped` when there is no nginx."""
    program = tool("nginx")
    folder.mkdir()
    # As root its worker would become `nobody`, who cannot enter the session's folder.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(MAIN.format(folder=folder, user=user, http=http))
    return Process([program, "-p", str(folder), "-e", "stderr", "-c", str(config)], {}, folder / "log", core)
