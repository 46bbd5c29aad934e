"""What docs/deploy.md, compose.yaml and the manifests name exists, and their numbers go together."""

import ast
import re
from pathlib import Path

import pytest

from settings import Settings, load
from settings_reader import defaults
from settings_rules import duration

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
KUBERNETES = ROOT / "deploy" / "kubernetes"
CONFIG_MAP = (KUBERNETES / "configmap.yaml").read_text()
DEPLOYMENT = (KUBERNETES / "deployment.yaml").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KEYS = defaults(Settings)
VARIABLES = {"WEIR_" + key.upper().replace(".", "__"): key for key in KEYS}


def yaml_pairs(text: str) -> dict[str, str]:
    """The `WEIR_…: value` lines of a YAML file, without quotes and comments."""
    found = {}
    for name, value in re.findall(r"^ *(WEIR_\w+): (.+?)(?: +# .*)?$", text, re.M):
        found[name] = value[1:-1] if value[0] in "'\"" else value
    return found


@pytest.mark.parametrize("file", ["docs/deploy.md", "compose.yaml", "Dockerfile", "deploy/kubernetes/configmap.yaml",
                                  "deploy/kubernetes/deployment.yaml"])  # fmt: skip
def test_every_variable_is_a_settings(file: str) -> None:
    named = set(re.findall(r"\bWEIR_[A-Z]\w*", (ROOT / file).read_text())) - {"WEIR_SECTION__KEY"}
    assert named, file
    assert named <= VARIABLES.keys()


def test_every_key_that_the_guide_names_exists() -> None:
    sections = {key.split(".")[0] for key in KEYS}
    named = {word for word in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)`", GUIDE) if word.split(".")[0] in sections}
    assert len(named) > 20
    # Topics and files have dots, too.
    assert named - {"cache.invalidate", "audit.key", "admin.token"} <= KEYS.keys()


def test_every_metric_that_the_guide_names_is_registered() -> None:
    registered = set()
    for folder in ("actors", "backends", "composition", "http/gateway"):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text()))
            registered |= {
                node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            nodes = ast.walk(ast.parse(path.read_text()))
            registered |= {
                f"{node.values[0].value}*"
                for node in nodes
                if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant)
            }
    prefixes = tuple(name[:-1] for name in registered if name.startswith("weir_") and name.endswith("*"))
    named = set(re.findall(r"\bweir_[a-z_]+", GUIDE))
    assert len(named) > 15
    assert {name for name in named if name not in registered and not name.startswith(prefixes or ("-",))} == set()


@pytest.mark.parametrize("text", [CONFIG_MAP, COMPOSE], ids=["kubernetes", "compose"])
def test_the_settings_are_settings(text: str) -> None:
    given = yaml_pairs(text)
    given["WEIR_POSTGRES__DSN"] = "postgresql://weir:secret@postgres:5432/weir"
    settings = load(None, given)
    assert settings.kafka.bootstrap == "kafka:9092"
    assert settings.server.trusted_proxies


def test_the_grace_periods_are_longer_than_the_shutdown() -> None:
    shutdown = duration(yaml_pairs(CONFIG_MAP)["WEIR_SERVER__SHUTDOWN_DEADLINE"])
    assert int(re.search(r"terminationGracePeriodSeconds: (\d+)", DEPLOYMENT)[1]) >= shutdown + 10  # type: ignore[index]
    default = duration(KEYS["server.shutdown_deadline"])
    assert int(re.search(r"stop_grace_period: (\d+)s", COMPOSE)[1]) >= default + 10  # type: ignore[index]


def test_nginx_keeps_connections_for_less_long_than_weir() -> None:
    nginx = (ROOT / "deploy" / "nginx.conf").read_text()
    kept = duration(re.search(r"keepalive_timeout (\S+);", nginx)[1])  # type: ignore[index]
    assert kept < duration(KEYS["server.keep_alive_timeout"])
    patience = duration(re.search(r"proxy_read_timeout (\S+);", nginx)[1])  # type: ignore[index]
    assert patience > duration(KEYS["server.request_timeout"])


def test_probes_and_the_health_check_ask_the_operators_listener() -> None:
    port = str(load(None, {}).admin.bind.port)
    assert re.findall(r"path: (/\w+), port: (\w+)", DEPLOYMENT) == [
        ("/healthz", "admin"), ("/healthz", "admin"), ("/readyz", "admin"),
    ]  # fmt: skip
    assert f"name: admin, containerPort: {port}" in DEPLOYMENT
    assert f"http://127.0.0.1:{port}/healthz" in DOCKERFILE


def test_the_image_has_every_source_and_nothing_else() -> None:
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M))
    names = {name for line in copied for name in line.split()}
    sources = {"supervisor.py", "config.toml", "actors", "backends", "composition", "http", "pyproject.toml"}
    sources |= {path.name for path in ROOT.glob("settings*.py")} | {"requirements.lock"}
    assert names == sources
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name if not name.startswith("settings") else "settings*.py" for name in sources} == allowed
    assert not re.search(r"(?i)password|secret=|token=", re.sub(r"(?m)^#.*", "", DOCKERFILE))


def test_every_manifest_is_applied_and_the_secrets_are_made_in_the_guide() -> None:
    listed = set(re.findall(r"- (\w+\.yaml)", (KUBERNETES / "kustomization.yaml").read_text()))
    assert listed == {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    for name, key in re.findall(r"secretKeyRef: \{name: (\S+), key: ([^}]+)\}", DEPLOYMENT):
        assert f"create secret generic {name} " in GUIDE
        assert f"--from-literal={key}=" in GUIDE
    for file in re.findall(r"subPath: (\S+),", DEPLOYMENT):
        assert f"--from-literal={file}=" in GUIDE
