"""What the documents point at exists."""

import re
from pathlib import Path

import pytest

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
