"""TLS 1.3 on bytes: OpenSSL between two memory BIOs, and the checks before any of its keys may be used.

pyOpenSSL's responder exports keys before the client's Finished, and even after it refused a certificate. So
`TlsEnd` gives keys only through `Proven`, which `step` returns when the handshake has ended without an error
*and* version, ALPN, suite, group and the verified chain were checked on the finished connection.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from proxy.credentials.certificate import UNREADABLE, PodCertificate
from proxy.credentials.credential import Credential
from proxy.credentials.judge import judge_chain
from proxy.credentials.trust import NONE_REVOKED, Revocations, believe
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.keys import PROTOCOL, Exporter
from proxy.session.profile import DEFAULT_PROFILE, TlsProfile

_READ: Final = 65_536

# OpenSSL's X509_V_ERR_INVALID_PURPOSE: a chain that we trust, for something else.
_WRONG_PURPOSE: Final = 26


@dataclass(frozen=True, slots=True, repr=False)
class Proven:
    """A finished and judged handshake: who the peer is, what was agreed, and the exporter."""

    peer: PodCertificate
    chain: tuple[bytes, ...]
    """DER, leaf first, without the root: to be judged again when roots or revocations change."""
    suite: str
    group: str
    export: Exporter


def make_context(credential: Credential, profile: TlsProfile = DEFAULT_PROFILE) -> SSL.Context:
    """Return a context for one credential and set of roots, for both roles; make a new one when either changes.

    Where ``profile`` has no single curve OpenSSL offers all its groups: `TlsEnd` refuses those outside it.

    Nothing is ever resumed: tickets and session cache are both off, since a resumed session judges nobody.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_tls13_ciphersuites(":".join(profile.suites).encode())
    if profile.curve is not None:
        context.set_tmp_ecdh(profile.curve)
    context.set_alpn_protos([PROTOCOL])
    context.set_alpn_select_callback(
        # Without ours the handshake goes on, and `_prove` refuses it.
        lambda _, offered: PROTOCOL if PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS
    )
    context.use_privatekey(credential.key)
    context.use_certificate(credential.chain[0])
    for intermediate in credential.chain[1:]:
        context.add_extra_chain_cert(intermediate)
    store = context.get_cert_store()
    if store is None:
        raise MemoryError("OpenSSL gave no certificate store")
    believe(store, credential.roots)
    return context


class TlsEnd:
    """One end of one handshake. After `Dropped` it is of no use but for `outgoing` (an alert to send)."""

    def __init__(  # noqa: PLR0913 - who talks to whom, by whose rules
        self,
        context: SSL.Context,
        own: PodCertificate,
        *,
        called: bytes | None,
        wall: float,
        anybody: bool = False,
        revoked: Revocations = NONE_REVOKED,
        profile: TlsProfile = DEFAULT_PROFILE,
        era: int = 0,
    ) -> None:
        """Begin as the initiator to the packed address ``called``, or as a responder where that is None.

        ``anybody`` of the project may answer a call; else its certificate must name ``called``. ``era`` says by which
        roots and revocations we judge; it is for the caller to compare.
        """
        self.own, self.era = own, era
        self._called, self._profile = called, profile
        # The connection holds this, so it must not hold us: a cycle would keep 50 KB until the collector comes.
        named = None if anybody else called
        self._judge = partial(judge_chain, own=own, called=named, wall=wall, revoked=revoked)
        # Where anybody may answer, that may be ourselves: said once the peer has proved that it holds the key.
        self._early = _Early(partial(self._judge, may_be_own=anybody), profile)
        self._deaf = False
        self._connection = SSL.Connection(context, None)
        self._connection.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._early.judge
        )
        if called is None:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()

    def step(self, tls_untrusted: bytes) -> Proven | None:
        """Feed bytes of the peer; return the result once the handshake is finished and judged, else None.

        Raises `Dropped` with the reason for which the peer was refused, or refused us.
        """
        if tls_untrusted:
            self._connection.bio_write(tls_untrusted)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return None
        except SSL.Error as error:
            raise self._early.refusal or _explain(error) from None
        try:
            proven = self._prove()
        except Dropped:
            # Our Finished may lie in the BIO: a refused peer must not get it, but may be told.
            self.outgoing()
            if self._called is None:
                self._connection.shutdown()
            raise
        if self._called is None:
            # Session tickets, which OpenSSL sends although none could be redeemed: pyOpenSSL cannot say 0.
            self.outgoing()
        return proven

    def outgoing(self) -> bytes:
        """Return what TLS wants sent to the peer."""
        try:
            return self._connection.bio_read(_READ)
        except SSL.WantReadError:
            return b""

    def read_refusal(self, tls_untrusted: bytes) -> None:
        """Feed an initiator's finished handshake: raise `Dropped` (PEER_REFUSED) on the peer's own alert.

        Bytes that do not authenticate are somebody else's and change nothing.
        """
        if self._deaf:
            return
        self._connection.bio_write(tls_untrusted)
        try:
            self._connection.read(1)
        except SSL.ZeroReturnError:
            raise Dropped(Drop.PEER_REFUSED, "closed") from None
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            refusal = _explain(error)
            if refusal.reason is Drop.PEER_REFUSED:
                raise refusal from None
            self._deaf = True

    def _prove(self) -> Proven:
        connection = self._connection
        suite, group = _check_parameters(connection, self._profile)
        chain: list[x509.Certificate] = connection.get_verified_chain(as_cryptography=True) or []
        peer = self._judge(chain)
        der = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain[:-1])
        return Proven(peer, der, suite, group, connection.export_keying_material)


class _Early:
    """Judges inside the handshake, so that a peer gets an alert and not silence; `_prove` decides."""

    def __init__(
        self,
        judge: Callable[[Sequence[x509.Certificate]], PodCertificate],
        profile: TlsProfile,
    ) -> None:
        self._judge, self._profile = judge, profile
        self.refusal: Dropped | None = None

    def judge(
        self, connection: SSL.Connection, leaf: crypto.X509, error: int, depth: int, ok: int
    ) -> bool:
        if not ok:
            reason = Drop.CERTIFICATE_PROFILE if error == _WRONG_PURPOSE else Drop.UNTRUSTED
            self.refusal = Dropped(reason, f"chain, depth {depth}, X509_V_ERR {error}")
            return False
        if depth == 0:
            try:
                _check_parameters(connection, self._profile)
                self._judge([_parsed(leaf)])
            except Dropped as refusal:
                self.refusal = refusal
                return False
        return True


def _check_parameters(connection: SSL.Connection, profile: TlsProfile) -> tuple[str, str]:
    """Return suite and group, which are agreed before either end shows its certificate."""
    suite, group = connection.get_cipher_name(), connection.get_group_name()
    if (
        connection.get_protocol_version() != SSL.TLS1_3_VERSION
        or connection.get_alpn_proto_negotiated() != PROTOCOL
        or suite not in profile.suites
        or group not in profile.groups
    ):
        raise Dropped(Drop.TLS_PARAMETERS, f"{suite}, {group}")
    return suite, group


def _parsed(leaf: crypto.X509) -> x509.Certificate:
    try:
        return leaf.to_cryptography()
    except UNREADABLE as error:
        raise Dropped(Drop.CERTIFICATE_PROFILE, str(error)) from None


def _explain(error: SSL.Error) -> Dropped:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    text = "; ".join(str(entry[-1]) for entry in queue) or type(error).__name__
    if "alert" in text:
        return Dropped(Drop.PEER_REFUSED, text)
    if "did not return a certificate" in text:
        return Dropped(Drop.NO_CERTIFICATE)
    if "no suitable" in text or "no shared" in text or "unsupported protocol" in text:
        return Dropped(Drop.TLS_PARAMETERS, text)
    return Dropped(Drop.TLS, text)
