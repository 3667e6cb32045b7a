"""TLS ends against ends that are set up wrongly: what a key may be used for, and when."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from support.pki import START, Authority, Leaf
from typing_extensions import override

from proxy.credentials.credential import Credential
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.keys import PROTOCOL
from proxy.session.profile import TlsProfile
from proxy.session.tls import Proven, TlsEnd, make_context

A, B = "10.0.0.1", "10.0.0.2"
WALL = START.timestamp() + 60
PACKED_B = ip_address(B).packed


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def a(authority: Authority) -> Credential:
    return authority.issue(Leaf(pod="a", addresses=(A,)))


@pytest.fixture(scope="module")
def b(authority: Authority) -> Credential:
    return authority.issue(Leaf(pod="b", addresses=(B,)))


@dataclass
class Outcome:
    """How one end fared."""

    proven: Proven | None = None
    refused: Dropped | None = None


def initiator(credential: Credential, context: SSL.Context | None = None) -> TlsEnd:
    context = context or make_context(credential)
    return TlsEnd(context, credential.own, called=PACKED_B, wall=WALL)


def responder(credential: Credential, context: SSL.Context | None = None) -> TlsEnd:
    return TlsEnd(context or make_context(credential), credential.own, called=None, wall=WALL)


def talk(first: TlsEnd, second: TlsEnd) -> tuple[Outcome, Outcome]:
    """Let both talk until neither has anything to say."""
    outcomes = (Outcome(), Outcome())
    data = b""
    for turn in range(8):
        end, outcome = (first, second)[turn % 2], outcomes[turn % 2]
        if outcome.refused is None and outcome.proven is None:
            try:
                outcome.proven = end.step(data)
            except Dropped as refused:
                outcome.refused = refused
        data = end.outgoing()
    return outcomes


def plain_context(change: Callable[[SSL.Context], object], credential: Credential) -> SSL.Context:
    """Return a context that believes everybody and has not our settings: a careless or hostile peer's."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_privatekey(credential.key)
    context.use_certificate(credential.chain[0])
    change(context)
    return context


class Careless(TlsEnd):
    """Judges nobody and lets anything pass."""

    def __init__(self, context: SSL.Context, *, calls: bool) -> None:
        self._connection = SSL.Connection(context, None)
        if calls:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()

    @override
    def step(self, tls_untrusted: bytes) -> None:
        if tls_untrusted:
            self._connection.bio_write(tls_untrusted)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error:
            raise Dropped(Drop.TLS) from None


def with_alpn(context: SSL.Context) -> None:
    context.set_alpn_protos([PROTOCOL])
    context.set_alpn_select_callback(lambda _connection, _offered: PROTOCOL)


def test_two_pods_prove_themselves_and_export_the_same_keys(a: Credential, b: Credential) -> None:
    left, right = talk(initiator(a), responder(b))
    assert left.proven is not None
    assert right.proven is not None
    assert left.proven.peer.fingerprint == b.own.fingerprint
    assert right.proven.peer.fingerprint == a.own.fingerprint
    assert left.proven.group == right.proven.group == "X25519MLKEM768"
    assert left.proven.export(b"EXPORTER-x", 32, b"c") == right.proven.export(
        b"EXPORTER-x", 32, b"c"
    )
    assert left.proven.export(b"EXPORTER-x", 32, b"c") != left.proven.export(
        b"EXPORTER-x", 32, b"d"
    )


def test_responder_gives_no_keys_before_the_initiator_has_finished(
    a: Credential, b: Credential
) -> None:
    left, right = initiator(a), responder(b)
    assert left.step(b"") is None
    assert right.step(left.outgoing()) is None
    proven = left.step(right.outgoing())
    assert proven is not None
    finished = left.outgoing()
    assert right.step(finished[:-1]) is None
    assert right.step(finished[-1:]) is not None


@pytest.mark.parametrize("calls", [True, False])
def test_peer_without_our_alpn_is_refused(a: Credential, b: Credential, calls: bool) -> None:  # noqa: FBT001 - drawn
    if calls:
        _, ours = talk(Careless(plain_context(lambda _: None, a), calls=True), responder(b))
    else:
        ours, _ = talk(initiator(a), Careless(plain_context(lambda _: None, b), calls=False))
    assert ours.refused is not None
    assert ours.refused.reason in {Drop.TLS_PARAMETERS, Drop.NO_CERTIFICATE}
    assert ours.proven is None


def test_responder_without_alpn_is_refused_for_that(a: Credential, b: Credential) -> None:
    def demand(context: SSL.Context) -> None:
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)

    ours, _ = talk(initiator(a), Careless(plain_context(demand, b), calls=False))
    assert ours.refused is not None
    assert ours.refused.reason is Drop.TLS_PARAMETERS


def test_peer_without_certificate_is_refused(b: Credential) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    with_alpn(context)
    _, ours = talk(Careless(context, calls=True), responder(b))
    assert ours.refused is not None
    assert ours.refused.reason is Drop.NO_CERTIFICATE


def test_session_cannot_be_resumed_past_the_judgement(a: Credential, b: Credential) -> None:
    context, ours = plain_context(with_alpn, a), make_context(b)
    first, second = Careless(context, calls=True), responder(b, ours)
    first.step(b"")
    second.step(first.outgoing())
    first.step(second.outgoing())
    # The ticket that OpenSSL writes after the handshake, taken out before `step` throws it away.
    second._connection.bio_write(first.outgoing())
    second._connection.do_handshake()
    first._connection.bio_write(second.outgoing())
    with pytest.raises(SSL.WantReadError):
        first._connection.read(1)
    session = first._connection.get_session()
    assert session is not None

    again = Careless(context, calls=True)
    again._connection.set_session(session)
    judged: list[int] = []
    end = responder(b, ours)

    def judge(_tls: SSL.Connection, _leaf: crypto.X509, _error: int, depth: int, ok: int) -> bool:
        judged.append(depth)
        return bool(ok)

    end._connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, judge)
    _, outcome = talk(again, end)
    assert outcome.proven is not None
    assert 0 in judged


def test_peer_of_tls_1_2_is_refused(a: Credential, b: Credential) -> None:
    def old(context: SSL.Context) -> None:
        with_alpn(context)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)

    _, ours = talk(Careless(plain_context(old, a), calls=True), responder(b))
    assert ours.refused is not None
    assert ours.refused.reason is Drop.TLS_PARAMETERS


def test_peer_that_offers_only_a_classical_group_is_refused(a: Credential, b: Credential) -> None:
    def classical(context: SSL.Context) -> None:
        with_alpn(context)
        context.set_tmp_ecdh(ec.SECP256R1())

    wide = TlsProfile(groups=("X25519MLKEM768", "secp256r1"))
    lax = TlsEnd(make_context(b, wide), b.own, called=None, wall=WALL, profile=wide)
    _, control = talk(Careless(plain_context(classical, a), calls=True), lax)
    assert control.proven is not None
    _, ours = talk(Careless(plain_context(classical, a), calls=True), responder(b))
    assert ours.refused is not None
    assert ours.refused.reason is Drop.TLS_PARAMETERS


def test_peer_with_another_suite_is_refused(a: Credential, b: Credential) -> None:
    def weaker(context: SSL.Context) -> None:
        with_alpn(context)
        context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")

    _, ours = talk(Careless(plain_context(weaker, a), calls=True), responder(b))
    assert ours.refused is not None
    assert ours.refused.reason is Drop.TLS_PARAMETERS


def test_refused_responder_never_gets_our_finished(authority: Authority, a: Credential) -> None:
    other = authority.issue(Leaf(pod="b", namespace="bank", addresses=(B,)))
    ours, theirs = talk(initiator(a), responder(other))
    assert ours.refused is not None
    assert ours.refused.reason is Drop.FOREIGN_PROJECT
    assert theirs.proven is None
    assert theirs.refused is not None
    assert theirs.refused.reason is Drop.PEER_REFUSED


def test_refused_initiator_hears_the_alert_and_strangers_bytes_change_nothing(
    authority: Authority, b: Credential
) -> None:
    other = authority.issue(Leaf(pod="a", namespace="bank", addresses=(A,)))
    # It believes that B is of its own project: only B refuses.
    left, right = TlsEnd(make_context(other), other.own, called=PACKED_B, wall=WALL), responder(b)
    left.step(b"")
    right.step(left.outgoing())
    assert left.step(right.outgoing()) is not None
    with pytest.raises(Dropped) as caught:
        right.step(left.outgoing())
    assert caught.value.reason is Drop.FOREIGN_PROJECT
    alert = right.outgoing()
    with pytest.raises(Dropped) as heard:
        left.read_refusal(alert)
    assert heard.value.reason is Drop.PEER_REFUSED


def test_strangers_bytes_after_the_handshake_change_nothing(a: Credential, b: Credential) -> None:
    left, right = initiator(a), responder(b)
    left.step(b"")
    right.step(left.outgoing())
    assert left.step(right.outgoing()) is not None
    left.read_refusal(b"\x15\x03\x03\x00\x02\x02\x28")
    left.read_refusal(b"\x17\x03\x03\x00\x20" + bytes(32))
    left.read_refusal(bytes(100))
