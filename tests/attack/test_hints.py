"""Forged HINTs: the one unauthenticated datagram that is believed, a little."""

from collections.abc import Callable
from itertools import repeat

from attack.conftest import Stage
from support.siege import Siege, sessions

from proxy.drivers import clock
from proxy.session.wire import CANONICAL_STRUCT, RECORD, Hint

COUNT = 20_000
LAST_PACE = 4.0  # seconds; after 1 and 2 (docs/decisions/0003, HINT)
Besiege = Callable[..., Siege]


def test_forged_hints_start_a_handshake_now_and_then_and_end_nothing(
    stage: Stage, besiege: Besiege
) -> None:
    peer = stage.pod("two")
    heard = [d.payload for d in stage.heard_at("two") if d.payload[0] == RECORD]
    *_, index, counter = CANONICAL_STRUCT.unpack_from(heard[-1])
    with besiege(renews=True) as siege:
        began = clock.monotonic()
        (before,) = sessions(siege.victim, siege.beside)
        hint = siege.attacker.datagram(peer.ipv4, Hint(index, counter).encode())
        grown = siege.throw(repeat(hint, COUNT * stage.factor), ["received hint"])
        started = grown["sent hello"]
        assert 1 <= started <= 3 + (clock.monotonic() - began) / LAST_PACE
        assert grown["drop hint"] >= siege.thrown - started
        now = sessions(siege.victim, siege.beside)
        assert max(s["generation"] for s in now) <= before["generation"] + started
