"""Where a setting was written, a line or the environment, so that an error points at it."""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Final, Generic, Literal, TypeVar

PREFIX: Final = "TENCRYPT_"
_MOST_SHOWN: Final = 80
"""Characters of a wrong value that an error repeats: it stays one line of a terminal."""

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class SettingsError(Exception):
    """A mistake in the settings; its text is one line: where, what, and what is accepted."""


class Need(Enum):
    """Stands in place of a default for a key that has none."""

    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Key(Generic[T_co]):
    """One setting: ``parse`` takes what TOML gave and raises ValueError, with a text or without."""

    name: str
    meaning: str
    accepts: str
    parse: Callable[[object], T_co]
    default: T_co | Literal[Need.REQUIRED] = Need.REQUIRED
    secret: bool = False
    from_environment: Callable[[str], object] = str
    """Turns an environment variable's text into what TOML would have given."""

    @property
    def variable(self) -> str:
        """The environment variable that sets this key."""
        return PREFIX + self.name.upper()


def number_from_environment(text: str) -> object:
    """Read a decimal number; other text stays text, for the key's parser to refuse."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text


def list_from_environment(text: str) -> object:
    """Read a comma-separated list."""
    return [item.strip() for item in text.split(",")] if text.strip() else []


def boolean_from_environment(text: str) -> object:
    """Read true or false; other text stays text."""
    return {"true": True, "false": False}.get(text, text)


def table_from_environment(text: str) -> object:
    """Read a comma-separated list of KEY=NUMBER."""
    pairs = [item.partition("=") for item in text.split(",")] if text.strip() else []
    return {key.strip(): number_from_environment(value.strip()) for key, _, value in pairs}


def describe(keys: Iterable[Key[object]]) -> str:
    """Explain each key, for help: name, meaning, what is accepted."""
    return "\n".join(f"  {key.name}\n    {key.meaning}\n    ({key.accepts})" for key in keys)


class Source:
    """The settings as written: a file's text (TOML) and the environment, which wins."""

    def __init__(
        self,
        text_untrusted: str,
        environment: Mapping[str, str],
        file_name: str | None,
        keys: Iterable[Key[object]],
    ) -> None:
        """Read both; raises `SettingsError` for bad TOML and for keys that are none of ``keys``.

        ``file_name`` is how the user named the file, or None where there is none.
        """
        self._text = text_untrusted
        self._file_name = file_name
        self._in_file = self._read_toml()
        known = {key.name: key.variable for key in keys}
        self._environment = {
            name: environment[variable]
            for name, variable in known.items()
            if variable in environment
        }
        self._refuse_unknown(known, environment)

    def get(self, key: Key[T]) -> T:
        """Return the parsed value or the default; raises `SettingsError`."""
        if key.name in self._environment:
            value = key.from_environment(self._environment[key.name])
        elif key.name in self._in_file:
            value = self._in_file[key.name]
        elif key.default is Need.REQUIRED:
            raise self.missing(key)
        else:
            return key.default
        try:
            return key.parse(value)
        except ValueError as error:
            raise self.error(key, str(error) or key.accepts) from None

    def missing(self, key: Key[T]) -> SettingsError:
        """Make the error that says that nothing sets ``key``."""
        missing = f"{self._file_name}: {key.name}" if self._file_name else key.variable
        return SettingsError(f"{missing} is missing: {key.accepts}")

    def in_environment(self, key: Key[T]) -> bool:
        """Say whether the environment sets ``key``."""
        return key.name in self._environment

    def in_file(self, key: Key[T]) -> bool:
        """Say whether the file sets ``key``, though the environment may win over it."""
        return key.name in self._in_file

    def error(self, key: Key[T], reason: str) -> SettingsError:
        """Make the error that says where ``key`` was set, to what, and why that is wrong."""
        if key.name in self._environment:
            text = self._environment[key.name]
            place, shown = key.variable, _on_one_line(text)
        elif key.name in self._in_file:
            place = f"{self._place(key.name)} {key.name}"
            shown = _shown(self._in_file[key.name])
        else:
            return SettingsError(f"{key.name}, which is not set: {reason}")
        return SettingsError(f"{place} = {'...' if key.secret else shown}: {reason}")

    def _read_toml(self) -> dict[str, object]:
        try:
            return tomllib.loads(self._text)
        except RecursionError:
            raise SettingsError(f"{self._file_name}: nested too deep to be settings") from None
        except ValueError as error:  # TOMLDecodeError, and an integer of thousands of digits
            message = str(error)
        line = re.search(r" \(at line (\d+), column \d+\)$", message)
        place = f"{self._file_name}:{line[1]}:" if line else f"{self._file_name}:"
        what = message[: line.start()] if line else message
        raise SettingsError(f"{place} not TOML: {_on_one_line(what)}")

    def _refuse_unknown(self, known: dict[str, str], environment: Mapping[str, str]) -> None:
        for name in self._in_file:
            if name not in known:
                near = get_close_matches(name, known, 1) or sorted(known)
                raise SettingsError(
                    f"{self._place(name)} {_on_one_line(name)} is not a setting: "
                    + (f"did you mean {near[0]}?" if len(near) == 1 else ", ".join(near))
                )
        # Kubernetes invents TENCRYPT_... variables of its own for a Service named tencrypt, so only
        # what is nearly one of ours is taken for a slip of the pen.
        for variable in environment:
            if variable.startswith(PREFIX) and variable not in known.values():
                near = get_close_matches(variable, known.values(), 1, cutoff=0.92)
                if near:
                    raise SettingsError(f"{variable} is not a setting: did you mean {near[0]}?")

    def _place(self, name: str) -> str:
        line = self._line_of(name)
        return f"{self._file_name}:{line}:" if line else f"{self._file_name}:"

    def _line_of(self, name: str) -> int | None:
        """Find the line that sets a top-level key; None where the key is written with escapes."""
        quoted = re.escape(name)
        start = re.compile(rf"""\s*\[{{0,2}}\s*(["']?){quoted}\1\s*[.=\]]""")
        lines = self._text.replace("\r\n", "\n").split("\n")
        for number, line in enumerate(lines, start=1):
            if start.match(line) and _is_toml("\n".join(lines[: number - 1])):
                return number
        return None


def _is_toml(text: str) -> bool:
    """Say whether ``text`` ends between two statements, and not inside a string or list."""
    try:
        tomllib.loads(text)
    except ValueError:
        return False
    return True


def _shown(value: object) -> str:
    """Write a TOML value in a short form for one line."""
    try:
        return _on_one_line(json.dumps(value, default=str))
    except (ValueError, RecursionError):  # an integer of thousands of digits, a.a.a.a... = 1
        return "..."


def _on_one_line(text: str) -> str:
    text = text if text.isprintable() else json.dumps(text)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."
