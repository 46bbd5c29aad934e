"""The code in the documents runs, and prints what they say.

Each Python block begins with a comment that names its file; blocks of one name are one file. All files of a document
make a directory, in which its tests pass, and a text block after a `main.py` is what that prints.
"""

import re
import sys
from pathlib import Path
from subprocess import run

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"# (\w+\.py)\n")


def unpack(document: str, into: Path) -> str:
    """Write the files of a document; returns what its main.py prints."""
    output, name = "", ""
    for language, code in BLOCK.findall(document):
        if language == "text":
            assert name == "main.py", f"output of {name or 'nothing'}:\n{code}"
            output = code
            continue
        named = NAME.match(code)
        assert named, f"a Python block begins with the name of its file:\n{code}"
        name = named[1]
        with (into / name).open("a") as file:
            file.write(code)
    return output


@pytest.mark.parametrize("name", ["writing-actors.md", "testing-actors.md", "writing-consumers.md"])
def test_the_code_runs(name: str, pytester: pytest.Pytester) -> None:
    document = (DOCS / name).read_text()
    output = unpack(document, pytester.path)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error")
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}
    assert outcomes["passed"] >= len(re.findall(r"^async def test_", document, re.MULTILINE)) > 0
    if output:
        main = run([sys.executable, "main.py"], cwd=pytester.path, capture_output=True, text=True, check=True)
        assert main.stdout == output


def test_a_block_without_a_name_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="begins with the name of its file"):
        unpack("```python\nprint(1)\n```\n", tmp_path)


def test_code_that_fails_is_noticed(pytester: pytest.Pytester) -> None:
    unpack("```python\n# test_x.py\ndef test_x():\n    assert 0\n```\n", pytester.path)
    assert pytester.runpytest_subprocess("-p", "no:randomly").parseoutcomes() == {"failed": 1}
