"""What the documents point at exists."""

import re
import shlex
from pathlib import Path

import click
import pytest

from actors.runtime import Supervisor
from backends.embedded.database import Database
from backends.embedded.engine import Engine
from composition.listening import Listening
from composition.parts import Parts
from gateway.admin.audit_operations import AuditOperations
from gateway.admin.dead_letter_operations import DeadLetterOperations
from settings import load
from supervisor import tree, weir

ROOT = Path(__file__).resolve().parent.parent
PROMISES = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "runtime-semantics.md").read_text())
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "bench" / "README.md"]


@pytest.mark.parametrize(("file", "test"), sorted(set(PROMISES)))
def test_every_promise_of_the_runtime_names_a_test_that_exists(file, test):
    assert f"def {test}(" in (ROOT / "tests" / "runtime" / file).read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document}: {target}"


def edges(node: Supervisor) -> set[tuple[str, str]]:
    found = {(node.id, child.id) for child in node.children}
    return found.union(*(edges(child) for child in node.children if isinstance(child, Supervisor)))


def drawn(document: Path) -> list[tuple[str, str]]:
    """(parent, child) of each line of the tree that *document* draws, in its order."""
    found, parents = [], ["root"]
    for bars, id in re.findall(r"^ *((?:│   )*)[├└]── (\w+) ", document.read_text(), re.M):
        depth = len(bars) // 4
        found.append((parents[depth], id))
        parents[depth + 1 :] = [id]
    return found


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", ROOT / "docs" / "architecture.md"], ids=lambda path: path.name
)
def test_the_tree_that_is_drawn_is_the_tree(document, tmp_path):
    with Database.open(tmp_path / "weir.db") as database:
        declared = tree(Parts(load(None, {}), Engine(database)), Listening())
    shown = drawn(document)
    assert len(shown) > 10
    assert set(shown) <= edges(declared)
    of_root = [child.id for child in declared.children]
    assert [id for parent, id in shown if parent == "root"] == of_root, "started from top to bottom"


def test_every_file_that_the_architecture_names_is_in_the_house():
    rooms = [ROOT / name for name in ("actors", "backends", "composition", "http", "tests")]
    ours = [ROOT / "supervisor.py", ROOT / "settings.py", *rooms, *(path for room in rooms for path in room.rglob("*"))]
    named = re.findall(r"`([\w/]+\.py|[\w/]+/)`", (ROOT / "docs" / "architecture.md").read_text())
    absent = [name for name in named if not any(f"{path}/".endswith(f"/{name.strip('/')}/") for path in ours)]
    assert len(named) > 20
    assert absent == []


COMMAND_LINES = {
    shlex.join(words): words
    for document in (ROOT / "README.md", ROOT / "docs" / "operating-events.md")
    for line in re.findall(r"^python supervisor\.py (.*)", document.read_text(), re.M)
    if (words := [word for word in shlex.split(line, comments=True) if word not in "[]>"])
}


@pytest.mark.parametrize("words", COMMAND_LINES.values(), ids=COMMAND_LINES.keys())
def test_every_command_that_is_shown_exists_with_its_options(words):
    command: click.Command = weir
    while isinstance(command, click.Group) and words and not words[0].startswith(("-", "[")):
        name, *words = words
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.strip("[]") for word in words if word.strip("[").startswith("--")} <= known


def test_every_operation_that_is_shown_exists_with_its_arguments():
    shown = dict(
        re.findall(r"^\| (`(?:dlq|audit)\..*?) \| (.*?) \|$", (ROOT / "docs/operating-events.md").read_text(), re.M)
    )
    known = {**DeadLetterOperations(None).by_name(), **AuditOperations(None, None, None).by_name()}
    named = set()
    for names, arguments in shown.items():
        for name in re.findall(r"`([a-z.]+)`", names):
            named.add(name)
            taken = known[name].__annotations__.keys() - {"return", "progress"}
            assert set(re.findall(r"`([a-z_]+)`", arguments)) == taken, name
    assert named == known.keys()
