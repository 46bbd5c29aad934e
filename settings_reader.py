"""Read a TOML file and `WEIR_…` variables into frozen dataclasses whose fields say their own rules.

Knows no key by name: `settings.py` declares them with `setting`, `secret`, `required`, `section` and `rows`. Whatever
is wrong becomes a `ConfigError`, one line that says where the value stands.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from settings_rules import Broken, Rule, dotted

T = TypeVar("T")


class ConfigError(Exception):
    """One line: the file (or `environment`), the key, the value and the cure. The command ends with code 2."""

    def __init__(self, line: str) -> None:
        # Names and values are anybody's: a line break or a lone surrogate among them would spoil the line.
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
        super().__init__("".join(escaped))


# -- What a field says about itself


def setting(default: object, rule: Rule[T]) -> T:
    """A key. Its *default* is written as in the file, and goes through the rule like any other value."""
    return field(default_factory=partial(rule, default), metadata={"default": default, "rule": rule})


def secret(default: object, rule: Rule[T]) -> T:
    """A key whose value may hold a password: no `repr` shows it."""
    return field(default_factory=partial(rule, default), metadata={"default": default, "rule": rule}, repr=False)


def required(rule: Rule[T]) -> T:
    made: T = field(metadata={"rule": rule})
    return made


def section(shape: Callable[[], T]) -> T:
    return field(default_factory=shape, metadata={"section": shape})


def rows(shape: type[T], *default: T) -> tuple[T, ...]:
    """A list of tables, `[[name]]`; rows in a file replace the *default* ones."""
    return field(default=default, metadata={"rows": shape, "default": []})


def defaults(shape: Any, at: str = "") -> dict[str, object]:
    """Every key, dotted, in order, with its default as a file writes it (`[]` for a list of tables)."""
    found: dict[str, object] = {}
    for item in fields(shape):
        name, inner = dotted(at, item.name), item.metadata.get("section")
        found |= defaults(inner, name) if inner else {name: item.metadata["default"]}
    return found


def secrets(shape: Any, at: str = "") -> set[str]:
    """The keys made by `secret`, dotted."""
    found: set[str] = set()
    for item in fields(shape):
        name, inner = dotted(at, item.name), item.metadata.get("section")
        found |= secrets(inner, name) if inner else set() if item.repr else {name}
    return found


# -- Reading


class Reader:
    """One file (None: none) and one environment, read into *shape* by `read`. Construction may raise ConfigError."""

    def __init__(self, shape: Any, path: Path | None, environ: Mapping[str, str], content: str | None = None) -> None:
        self._shape, self._file = shape, str(path)
        self._defaults = defaults(shape)
        self._secrets = secrets(shape)
        self._tree = _parse(path, read_file(path) if content is None else content) if path else {}
        self._variables: dict[str, str] = {}
        """The keys that came from the environment, each with its variable."""
        self._override(environ)

    def read(self) -> Any:
        return self._table(self._shape, self._tree, "")

    def error(self, key: str, must: str) -> ConfigError:
        """*key* = what the file or the environment wrote there, else its default: *must*."""
        value: Any = self._tree
        for part in re.findall(r"\w+", key):
            if isinstance(value, dict) and part not in value:
                return self._error(key, must, self._defaults.get(key, MISSING))
            value = value[int(part) if isinstance(value, list) else part]
        return self._error(key, must, "…" if key in self._secrets and value else value)

    def _override(self, environ: Mapping[str, str]) -> None:
        """Put the variables into the tree. One without `__` that is no key's (WEIR_REQUIRE_SERVICES) is not ours."""
        known = {"WEIR_" + key.upper().replace(".", "__"): key for key in self._defaults}
        for variable in sorted(name for name in environ if name.startswith("WEIR_")):
            if variable in known:
                self._put(known[variable], variable, environ[variable])
            elif "__" in variable:
                near = difflib.get_close_matches(variable, known, n=1, cutoff=0.75)
                hint = f"did you mean {near[0]}?" if near else "a key's variable is WEIR_SECTION__KEY"
                raise ConfigError(f"environment: unknown variable {variable}; {hint}")

    def _put(self, key: str, variable: str, text: str) -> None:
        *sections, name = key.split(".")
        table: Any = self._tree
        for part in sections:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                return  # the file has a value where a section belongs: `read` says so
        self._variables[key] = variable
        table[name] = self._decoded(key, text)

    def _decoded(self, key: str, text: str) -> object:
        """A variable's text as the kind of value its key has; text that is not is left to the key's rule."""
        default = self._defaults[key]
        if isinstance(default, str):
            return text
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            if isinstance(default, list):
                raise self._error(key, "must be a list written as JSON", text) from None
            return text

    def _table(self, shape: Any, value: object, at: str) -> Any:
        if not isinstance(value, dict):
            raise self._error(at, "must be a table", value)
        known = {item.name: item for item in fields(shape)}
        for name in value:
            if name not in known:
                raise self._unknown(name, at, list(known))
        for name, item in known.items():
            if name not in value and item.default is MISSING and item.default_factory is MISSING:
                raise self._error(dotted(at, name), "must be given")
        return shape(**{name: self._value(known[name], dotted(at, name), item) for name, item in value.items()})

    def _value(self, item: Field[Any], key: str, value: object) -> Any:
        if "section" in item.metadata:
            return self._table(item.metadata["section"], value, key)
        if "rows" in item.metadata:
            if not isinstance(value, list):
                raise self._error(key, f"must be a list of tables, [[{key}]]", value)
            return tuple(self._table(item.metadata["rows"], row, f"{key}[{index}]") for index, row in enumerate(value))
        try:
            return item.metadata["rule"](value)
        except Broken as broken:
            shown = value if broken.shown is MISSING else broken.shown
            raise self._error(key + broken.at, broken.must, shown) from None

    def _error(self, key: str, must: str, value: object = MISSING) -> ConfigError:
        source, name = self._where(key)
        return ConfigError(f"{source}: {name}{'' if value is MISSING else ' = ' + _shown(value)}: {must}")

    def _unknown(self, name: str, at: str, known: list[str]) -> ConfigError:
        near = [dotted(at, found) for found in difflib.get_close_matches(name, known, n=1)]
        if not near and not at:  # a key above its [section] header
            near = [key for key in self._defaults if key.endswith("." + name)]
        source, key = self._where(dotted(at, name))
        hint = f"did you mean {self._where(near[0])[1]}?" if near else f"known here: {', '.join(known)}"
        return ConfigError(f"{source}: unknown key {key}; {hint}")

    def _where(self, key: str) -> tuple[str, str]:
        """Where *key* was written, and its name there."""
        for start, variable in self._variables.items():
            if key.startswith(start) and key[len(start) :][:1] in ("", ".", "["):
                return "environment", variable + key[len(start) :]
        return self._file, key


def read_file(path: Path) -> str:
    """What the file says. Raises ConfigError."""
    try:
        # "-sig": some editors put a byte order mark first, which is no mistake of the operator's.
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name an existing one with --config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read ({reason}); name a readable file with --config") from None


def _parse(path: Path, content: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content)
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except ValueError as error:
        what, _, where = str(error).removesuffix(")").rpartition(" (at ")
        where = where.replace("end of document", f"line {content.count(chr(10)) + 1}, end of file")
        raise ConfigError(f"{path}: {where}: {what}" if what else f"{path}: {error}") from None


def _shown(value: object) -> str:
    """*value* on one line, without the passwords of URLs, cut to what can be read."""
    line = json.dumps(value, ensure_ascii=False, default=str)
    line = re.sub(r"//.*@|(?<=password=)\S+", "//…@", line)
    return line if len(line) <= 100 else line[:99] + "…"
