"""The CA's state: named documents with compare-and-swap, and nothing else.

Where they are is a driver's affair: files, or Vault's KV. Names are `NAMESPACES` and `TOKENS` with what they are of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from ca.messages import MessageError

JsonObject = dict[str, object]
T = TypeVar("T")

TOKENS: Final = "tokens"
NAMESPACES: Final = "namespaces"


class StateError(Exception):
    """The state cannot be read or written, or is damaged; one line, which names the place."""


class StateAwayError(StateError):
    """It cannot be reached now; the same may be asked again."""


class StaleError(Exception):
    """Somebody else has written the document since it was read."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document's content and its version: 0 for one that is not there, whose content is empty."""

    content: JsonObject
    version: int


class Documents(Protocol):
    """Everything is read anew at each call; all may block, and raise `StateError`."""

    def read(self, name: str) -> Document:
        """Return the latest."""

    def write(self, name: str, content: JsonObject, version: int) -> None:
        """Put this in the place of that version, durably; raises `StaleError` where it is not the latest."""

    def state(self, name: str) -> object:
        """Return what differs, `==`, once a document has been written: cheaper than reading it."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; full ones, as `read` takes them."""


def read_as(documents: Documents, name: str, parse: Callable[[JsonObject], T]) -> tuple[T, int]:
    """Return what ``parse`` makes of a document, and its version; raises `StateError` where it is damaged."""
    document = documents.read(name)
    try:
        return parse(document.content), document.version
    except MessageError as error:
        raise StateError(f"{name}: damaged: {error}") from None


def token_name(token_id: str) -> str:
    """Return the document of a join token."""
    return f"{TOKENS}/{token_id}"


def namespace_name(namespace: str) -> str:
    """Return the document of a namespace."""
    return f"{NAMESPACES}/{namespace}"
