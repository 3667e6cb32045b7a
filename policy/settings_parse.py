"""Parsers of what settings hold: text, numbers, words, lists, paths. Each raises ValueError, with a text or without."""

from collections.abc import Callable


def text(value: object) -> str:
    """Take text alone."""
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - a value of the wrong type is one of the user's mistakes
    return value


def texts(value: object) -> list[str]:
    """Take a list of texts."""
    if not isinstance(value, list):
        raise ValueError  # noqa: TRY004 - as in text
    return [text(item) for item in value]


def checked(check: Callable[[str], object]) -> Callable[[object], str]:
    """Make a parser of a check that raises a ValueError; the key's own words replace its text."""

    def parse(value: object) -> str:
        found = text(value)
        try:
            check(found)
        except ValueError:
            raise ValueError from None
        return found

    return parse


def names(check: Callable[[tuple[str, ...]], object]) -> Callable[[object], tuple[str, ...]]:
    """Make a parser of a list of names; ``check`` raises ValueError, with what is accepted."""

    def parse(value: object) -> tuple[str, ...]:
        found = tuple(texts(value))
        check(found)
        return found

    return parse


def number(lowest: int, highest: int) -> Callable[[object], int]:
    """Make a parser of whole numbers; true and false are none, though Python counts them so."""

    def parse(value: object) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError
        return value

    return parse


def one_of(*words: str) -> Callable[[object], str]:
    """Make a parser that takes these words alone."""

    def parse(value: object) -> str:
        word = text(value)
        if word not in words:
            raise ValueError
        return word

    return parse


def boolean(value: object) -> bool:
    """Take true or false."""
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - as in text
    return value


def path(value: object) -> str:
    """Take an absolute path."""
    found = text(value)
    if not found.startswith("/") or "\0" in found:
        raise ValueError
    return found
