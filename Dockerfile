# syntax=docker/dockerfile:1
# Weir in a container: `docker build -t weir .`. See docs/deploy.md.

FROM python:3.11-slim-bookworm AS build
WORKDIR /opt/weir
# What is installed is what the lock names, by hash; it changes less often than the sources, so it is a layer below them.
COPY requirements.lock ./
RUN python -m venv .venv \
 && .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml supervisor.py settings.py settings_reader.py settings_rules.py config.toml ./
COPY actors actors
COPY backends backends
COPY composition composition
COPY http http
RUN .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation -e . \
 && .venv/bin/python -m compileall -q . \
 && .venv/bin/python supervisor.py check

FROM python:3.11-slim-bookworm
# Nothing of it needs root, and nothing below /opt/weir is ever written.
RUN groupadd --gid 10001 weir \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/weir --shell /usr/sbin/nologin weir \
 && install -d -o weir -g weir -m 0700 /var/lib/weir
COPY --from=build /opt/weir /opt/weir
WORKDIR /opt/weir
# Settings are WEIR_SECTION__KEY variables, secrets among them: none is in the image. The operator's listener stays on
# the container's own loopback unless WEIR_ADMIN__BIND says otherwise.
ENV PATH=/opt/weir/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    WEIR_DATA__DIR=/var/lib/weir \
    WEIR_SERVER__BIND=0.0.0.0:8000
USER 10001:10001
VOLUME /var/lib/weir
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/healthz', timeout=2)"]
# `docker run weir token issue …` works too; on a running container: `docker exec CONTAINER python supervisor.py …`.
ENTRYPOINT ["python", "supervisor.py"]
