"""Fuzz targets of signed lists: what the CA signs, in which envelope, and what pods say to each other of it."""

from support.pki import START, Authority, Leaf
from support.rosters import Lists, make_roster

from ca.lists import encode_roster
from proxy.credentials.roster import verify_roster
from proxy.credentials.trust import Believed
from proxy.lists.messages import Ask, Part, Version

NOW = START.timestamp()
LISTS = Lists(NOW)
OWN = Authority().issue(Leaf()).own


def believe(data: bytes) -> None:
    verify_roster(data, Believed((LISTS.issuer.root,)), OWN, NOW)


def envelope_seeds() -> list[bytes]:
    return [LISTS.sign(make_roster(NOW))]


def payload_seeds() -> list[bytes]:
    return [encode_roster(make_roster(NOW)), encode_roster(make_roster(NOW, entries=()))]


def message_seeds() -> list[bytes]:
    age = (7, 1_700_000_000)
    return [Version(age).encode(), Ask(age, 1075).encode(), Part(age, 0, 5, b"piece").encode()]
