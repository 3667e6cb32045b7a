"""Who and what can be measured, by name; and the order in which it is done."""

from bench.peers import Peer
from bench.peers.envoy import Envoy
from bench.peers.nebula import Nebula
from bench.peers.openvpn import OpenVPN
from bench.peers.plain import Plain
from bench.peers.tencrypt import Tencrypt, fall_backs
from bench.peers.wireguard import WireGuard
from bench.peers.yardstick import Yardstick
from bench.work import Alone, Work
from bench.work.bulk import Bulk
from bench.work.dns import Dns
from bench.work.flood import Flood
from bench.work.handshakes import Handshakes
from bench.work.http import Http
from bench.work.issuance import Issuance
from bench.work.memory import Memory
from bench.work.pingpong import PingPong
from bench.work.sessions import Sessions
from bench.work.start import Start


def all_peers() -> list[Peer]:
    """Give every peer, in the order of the table."""
    named: list[Peer] = [
        Plain(),
        Envoy(),
        WireGuard(),
        OpenVPN(),
        Nebula(),
        Yardstick(),
        Tencrypt(),
    ]
    return named + fall_backs()


def all_works() -> list[Work]:
    """Give every work that two pods do; memory last, so that it is read after traffic."""
    return [
        Bulk(1),
        Bulk(4),
        Flood(small=True),
        Flood(small=False),
        PingPong(),
        PingPong(beside_bulk=True),
        Http(),
        Memory(),
    ]


def all_alone() -> list[Alone]:
    """Give every work without pods."""
    return [Handshakes(), Dns(), Start(), Sessions(), Issuance()]
