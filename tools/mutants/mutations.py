"""From a module's source to its mutants: one small change each. Pure: text in, texts out.

Left alone, because no test of behaviour should notice: docstrings, prose, annotations, imports, decorators,
`__slots__`, type aliases, and what only a type checker runs.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from difflib import unified_diff

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any", "append": "appendleft", "popleft": "pop"}
WORD = re.compile(r"[a-z][a-z_]*")


@dataclass(frozen=True)
class Mutant:
    """`key` is the same for the same change of the same text, whatever else was changed or run before.

    `change` is what docs/mutants.md knows it by: its function, and the lines before and after, each on one line.
    """

    key: str
    file: str
    line: int
    operator: str
    source: str
    diff: str
    function: int | None
    """The first line of the function it is in (the innermost), None outside of all."""
    within: str
    """The name of that function, or `module`."""

    @property
    def change(self) -> str:
        lines = self.diff.splitlines()[2:]  # after the names of the file
        before, after = (" ".join(_code(line[1:]) for line in lines if line[0] == sign) for sign in "-+")
        return f"{self.within}: `{before}` → `{after}`"


@dataclass(frozen=True)
class _Edit:
    node: ast.AST
    operator: str
    text: str


def mutants_of(file: str, source: str) -> list[Mutant]:
    """All mutants of *source*, in the order of its lines; none that is no Python, no two the same."""
    found: list[Mutant] = []
    seen = {ast.dump(ast.parse(source))}
    functions = list(_functions(ast.parse(source)))
    edits = sorted(_edits(ast.parse(source)), key=lambda edit: (edit.node.lineno, edit.node.col_offset))  # type: ignore[attr-defined]
    for edit in edits:
        changed = _replace(source, edit.node, edit.text)
        try:
            shape = ast.dump(ast.parse(changed))
        except SyntaxError:
            continue
        if shape in seen:
            continue
        seen.add(shape)
        key = hashlib.sha256(f"{file}\0{source}\0{changed}".encode()).hexdigest()[:16]
        diff = "\n".join(unified_diff(source.splitlines(), changed.splitlines(), file, file, lineterm="", n=2))
        line: int = edit.node.lineno  # type: ignore[attr-defined]
        first, name = max(((first, name) for first, name, body in functions if line in body), default=(None, "module"))
        found.append(Mutant(key, file, line, edit.operator, changed, diff, first, name))
    return found


def _code(line: str) -> str:
    return line.partition("  # ")[0].strip()


def _functions(tree: ast.Module) -> Iterator[tuple[int, str, range]]:
    """First line (a decorator's, as code objects have it), name and lines of the body, where defaults are not in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield first, node.name, range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)


def _replace(source: str, node: ast.AST, text: str) -> str:
    """*source* with the text of *node* exchanged. Columns of the AST are offsets in UTF-8."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    begin = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
    end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
    whole = b"".join(lines)
    return (whole[:begin] + text.encode() + whole[end:]).decode()


def _edits(tree: ast.Module) -> Iterator[_Edit]:
    for node in _behaviour(tree):
        match node:
            case ast.expr():
                yield from _expression(node)
            case ast.stmt():
                yield from _statement(node)
            case ast.comprehension(ifs=tests):
                yield from (_negated(test) for test in tests)


def _behaviour(node: ast.AST) -> Iterator[ast.AST]:
    """*node* and what is below it, without what only readers and type checkers see."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr) or _is_prose(node) or _is_for_types(node):
        return
    yield node
    hidden = {"annotation", "returns", "decorator_list", "bases", "type_comment", "keys"}
    for name, value in ast.iter_fields(node):
        if name not in hidden:
            for below in value if isinstance(value, list) else [value]:
                if isinstance(below, ast.AST):
                    yield from _behaviour(below)


def _is_prose(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_for_types(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__")]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            # `Offer = Literal[...]`, `Node = Cell | SupervisorNode`, `M = TypeVar("M")`
            return name[:1].isupper() and not name.isupper() and not isinstance(value, ast.Constant)
        case ast.Call(func=ast.Name(id="cast" | "TypeVar")):
            return True
    return False


def _negated(test: ast.expr) -> _Edit:
    return _Edit(test, "negate", f"(not ({ast.unparse(test)}))")


def _expression(node: ast.expr) -> Iterator[_Edit]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            yield _changed(node, "comparison", ops=[COMPARISONS[type(operator)]()])
        case ast.BoolOp(op=operator):
            yield _changed(node, "boolean", op=ast.And() if isinstance(operator, ast.Or) else ast.Or())
        case ast.BinOp(op=operator) if type(operator) in ARITHMETIC:
            yield _changed(node, "arithmetic", op=ARITHMETIC[type(operator)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield _Edit(node, "sign", f"({ast.unparse(operand)})")
        case ast.IfExp(test=test):
            yield _negated(test)
        case ast.Constant(value=bool() as value):
            yield _Edit(node, "constant", repr(not value))
        case ast.Constant(value=int() | float() as value):
            yield _Edit(node, "constant", repr(value + 1))
        case ast.Constant(value=str() as value) if WORD.fullmatch(value):
            yield _Edit(node, "constant", repr(f"not_{value}"))
        case ast.Name(id=name, ctx=ast.Load()) if name in OPPOSITES:
            yield _Edit(node, "opposite", OPPOSITES[name])
        case ast.Attribute(value=value, attr=name) if name in OPPOSITES and name not in ("min", "max"):
            yield _Edit(node, "opposite", f"{ast.unparse(value)}.{OPPOSITES[name]}")
        case ast.Call(func=ast.Name(id="reversed"), args=[inner]):
            yield _Edit(node, "opposite", f"list({ast.unparse(inner)})")


def _changed(node: ast.expr, operator: str, **fields: object) -> _Edit:
    other = deepcopy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return _Edit(node, operator, f"({ast.unparse(other)})")


def _statement(node: ast.stmt) -> Iterator[_Edit]:
    match node:
        case ast.If(test=test) | ast.While(test=test):
            if not isinstance(test, ast.Constant):
                yield _negated(test)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield _Edit(node, "return", "return None")
        case ast.Return(value=None):
            yield _Edit(node, "delete", "pass")
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield _Edit(node, "delete", "pass")
        case ast.AnnAssign(value=ast.expr()):
            yield _Edit(node, "delete", "pass")
