"""What a daemon and the watcher of its net agent say to each other: JSON in one message each, and batches of entries.

    daemon                                     watcher
    {"do": "look", ...}  ------------------>   looks, and listens where it shall
               <-----------------------------  {"told": "looking", "ports": ...}
    {"do": "flow", ...}  (the asker's)  --->   lets canaries run
               <-----------------------------  {"told": "flowed", "flows": ...}
    {"do": "end"}  ------------------------>   reads what is left
               <-----------------------------  batches of entries, then {"told": "ended", ...}

Both sides treat the other's words as hostile: the watcher has the descriptor of a packet socket, the daemon the keys.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeVar

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.verify.frames import ENTRY, Tallies
from proxy.verify.messages import SHARE

Address = IPv4Address | IPv6Address
T = TypeVar("T")

LARGEST: Final = 60_000
"""Bytes of a message."""

BATCH: Final = 2_000
"""Entries of a batch: what a daemon judges without letting packets wait for long."""

_BATCHED: Final = b"\0"
_MOST: Final = 64
_LONGEST: Final = 300
_COUNT: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Look:
    """Look at what passes between us and ``peer``, whose sessions are at ``ends`` too."""

    peer: tuple[Address, ...]
    ends: tuple[tuple[Address, int], ...] = ()
    listen: tuple[Address, ...] = ()
    """Own addresses at which to take canaries; none for the asker's watcher."""

    share: bytes = b""
    """The asker's watcher's part in the canaries, for the answerer's."""

    def encode(self) -> bytes:
        """Return the message."""
        return _encode(
            do="look",
            peer=list(map(str, self.peer)),
            ends=[[str(address), port] for address, port in self.ends],
            listen=list(map(str, self.listen)),
            share=self.share.hex(),
        )


@dataclass(frozen=True, slots=True)
class Flow:
    """Where canaries shall run, by TCP and by UDP."""

    source: Address
    destination: Address
    tcp: int
    udp: int


@dataclass(frozen=True, slots=True)
class Flows:
    """Let canaries run there and back on each of these ways; ``share`` is the answerer's watcher's part in them."""

    flows: tuple[Flow, ...]
    share: bytes

    def encode(self) -> bytes:
        """Return the message."""
        flows = [[str(f.source), str(f.destination), f.tcp, f.udp] for f in self.flows]
        return _encode(do="flow", flows=flows, share=self.share.hex())


@dataclass(frozen=True, slots=True)
class Finish:
    """Tell what was seen, and end."""

    def encode(self) -> bytes:
        """Return the message."""
        return _encode(do="end")


@dataclass(frozen=True, slots=True)
class Looking:
    """Every frame is seen from now on; for each address of ``listen`` a TCP and a UDP port."""

    share: bytes
    """Our part in the canaries."""

    ports: tuple[tuple[int, int], ...]

    def encode(self) -> bytes:
        """Return the message."""
        return _encode(told="looking", share=self.share.hex(), ports=self.ports)


@dataclass(frozen=True, slots=True)
class Flowed:
    """How one flow went: ``returned`` of ``sent`` bytes came back as they should; ``error`` is empty where all did."""

    protocol: str
    source: str
    destination: str
    sent: int
    returned: int
    error: str


@dataclass(frozen=True, slots=True)
class AllFlowed:
    """How all flows went."""

    flows: tuple[Flowed, ...]

    def encode(self) -> bytes:
        """Return the message."""
        return _encode(told="flowed", flows=[_flowed(flow) for flow in self.flows])


@dataclass(frozen=True, slots=True)
class Ended:
    """What was seen, less the entries, which came before."""

    tallies: Tallies
    texts: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the message."""
        return _encode(told="ended", counts=astuple(self.tallies), texts=self.texts)


Order = Look | Flows | Finish
Told = Looking | AllFlowed | Ended | bytes


def batches(entries: bytes | bytearray) -> Iterable[bytes]:
    """Give the messages that hold these entries."""
    step = BATCH * ENTRY.size
    return (_BATCHED + entries[at : at + step] for at in range(0, len(entries), step))


def parse_order(message_untrusted: bytes) -> Order:
    """Return what a daemon wants. Raises `Dropped` (MALFORMED)."""
    return _parse(message_untrusted, _order)


def parse_told(message_untrusted: bytes) -> Told:
    """Return what a watcher tells; bytes are whole entries. Raises `Dropped` (MALFORMED)."""
    if message_untrusted[:1] == _BATCHED and len(message_untrusted) % ENTRY.size == 1:
        return message_untrusted[1:]
    return _parse(message_untrusted, _told)


def _parse(message_untrusted: bytes, read: Callable[[dict[str, object]], T]) -> T:
    try:
        said = json.loads(message_untrusted)
        if isinstance(said, dict):
            return read(said)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise Dropped(Drop.MALFORMED, "between daemon and watcher")


def _order(said: dict[str, object]) -> Order:
    match said["do"]:
        case "look":
            return Look(
                _addresses(said["peer"]),
                tuple(_end(*_list(one)) for one in _list(said["ends"])),
                _addresses(said["listen"]),
                _share(said["share"]),
            )
        case "flow":
            flows = tuple(_flow(*_list(one)) for one in _list(said["flows"]))
            return Flows(flows, _share(said["share"]))
        case "end":
            return Finish()
        case _:
            raise ValueError


def _told(said: dict[str, object]) -> Looking | AllFlowed | Ended:
    match said["told"]:
        case "looking":
            pairs = [_list(one) for one in _list(said["ports"])]
            ports = tuple((_port(tcp), _port(udp)) for tcp, udp in pairs)
            return Looking(_share(said["share"]), ports)
        case "flowed":
            return AllFlowed(tuple(_read_flowed(*_list(one)) for one in _list(said["flows"])))
        case "ended":
            counts = map(_count, _list(said["counts"]))
            return Ended(Tallies(*counts), tuple(map(_text, _list(said["texts"]))))
        case _:
            raise ValueError


def _encode(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def _flowed(flow: Flowed) -> list[object]:
    return [flow.protocol, flow.source, flow.destination, flow.sent, flow.returned, flow.error]


def _read_flowed(  # noqa: PLR0913, PLR0917 - a row
    protocol: object,
    source: object,
    destination: object,
    sent: object,
    returned: object,
    error: object,
) -> Flowed:
    words = _text(protocol), _text(source), _text(destination)
    return Flowed(*words, _count(sent), _count(returned), _text(error))


def _flow(source: object, destination: object, tcp: object, udp: object) -> Flow:
    one, other = _address(source), _address(destination)
    if one.version != other.version or not _port(tcp) or not _port(udp):
        raise ValueError
    return Flow(one, other, _port(tcp), _port(udp))


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise ValueError
    return value


def _addresses(value: object) -> tuple[Address, ...]:
    return tuple(map(_address, _list(value)))


def _address(value: object) -> Address:
    address = ip_address(_text(value))
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError
    return address


def _end(address: object, port: object) -> tuple[Address, int]:
    return _address(address), _port(port)


def _share(value: object) -> bytes:
    share = bytes.fromhex(_text(value))
    if share and len(share) != SHARE:
        raise ValueError
    return share


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST or not value.isprintable():
        raise ValueError
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _COUNT:
        raise ValueError
    return value


def _port(value: object) -> int:
    port = _count(value)
    if port > 0xFFFF:
        raise ValueError
    return port
