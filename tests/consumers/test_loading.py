"""A developer's handler by its name: what may be one, and the line that says why something is none."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.consumers.loading import HandlerError, load_handler
from actors.consumers.partitions import Delivered
from backends.ports.cloudevents import to_record
from backends.ports.events import Record
from composition.parts import load_handlers
from settings import load
from tests.consumers.fakes import event

MODULE = """
seen = []

async def on_event(event):
    seen.append(event.id)

class Batches:
    async def handle(self, events):
        seen.extend(event.id for record, event in events)

class Needy:
    def __init__(self, database):
        pass

ready = Batches()
number = 7

def sync(event):
    pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module of its own for each test, and names what is in it."""
    name = f"handlers_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda attribute: f"{name}:{attribute}"


def delivered(*ids: str) -> Sequence[Delivered]:
    made = [event(id) for id in ids]
    new = [to_record(one) for one in made]
    return [
        Delivered(Record("t", 0, at, 0, record.key, record.value, record.headers), one)
        for at, (one, record) in enumerate(zip(made, new, strict=True))
    ]


@pytest.mark.parametrize("attribute", ["on_event", "Batches", "ready"])
async def test_a_function_of_one_event_a_class_and_an_object_are_handlers(
    attribute: str, module: Callable[[str], str]
) -> None:
    handler: Any = load_handler(module(attribute))
    await handler.handle(delivered("a", "b"))
    assert __import__(module("").rstrip(":")).seen == ["a", "b"]


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("absent", "has no absent"),
        ("number", "is no handler; write an async function of one event, or a class with an async `handle(events)`"),
        ("sync", "is no handler; write"),
        ("Needy", "Needy() raised TypeError"),
    ],
)
def test_anything_else_is_refused(attribute: str, why: str, module: Callable[[str], str]) -> None:
    with pytest.raises(HandlerError, match="handlers_") as caught:
        load_handler(module(attribute))
    assert why in str(caught.value)


def test_a_module_that_is_not_there_is_named_with_the_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[[consumer]]\nname = "x"\ntopics = ["t"]\nhandler = "no_such_module:f"')
    with pytest.raises(HandlerError) as caught:
        load_handlers(load(path, {}))
    assert str(caught.value).startswith("consumer[0].handler = no_such_module:f: no_such_module cannot be imported")
    assert "\n" not in str(caught.value)
