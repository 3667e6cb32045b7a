"""Who a pod is: its certificate from the project's CA, TLS with it, and the judgement of section 5."""

import base64
import hashlib
import json
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from ipaddress import ip_address
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from independent.records import Direction
from independent.wire import VERSION, Flight
from OpenSSL import SSL, crypto

ALPN: Final = b"tencrypt/1"
SUITES: Final = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
GROUP: Final = "X25519MLKEM768"
_BOTH_ENDS: Final = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


class Refused(Exception):  # noqa: N818 - an event of the protocol, not an error of the program
    """The peer, or its certificate, is not one to talk to; the text says why."""


@dataclass(frozen=True)
class Peer:
    """What a pod's certificate says."""

    fingerprint: bytes
    project: str
    account: str
    pod: str
    addresses: frozenset[str]

    def same_pod(self, other: "Peer | None") -> bool:
        """Tell whether both are of one pair's end: SPIFFE id and pod name."""
        names = (self.project, self.account, self.pod)
        return other is not None and names == (other.project, other.account, other.pod)


@dataclass(frozen=True)
class Credential:
    """`own` is the view of ourselves that peers are judged by; `suites` is what TLS may agree on."""

    key: ec.EllipticCurvePrivateKey
    chain: Sequence[x509.Certificate]
    roots: Sequence[x509.Certificate]
    own: Peer
    suites: Sequence[str] = SUITES


def enrol(reach: Callable[[], socket.socket], fingerprint: str, token: str) -> Credential:
    """Make a key and have the CA sign it for `token`, as a pod does.

    `reach` gives a connected TCP socket. The CA is known by its root's fingerprint, no name.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    text = csr.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    roots = _ask(reach(), blind, ("GET", "/v1/bundle"))["roots"]
    (root,) = [pem for pem in roots if _fingerprint(pem) == fingerprint]
    sighted = ssl.create_default_context(cadata=root)
    sighted.check_hostname = False
    answer = _ask(reach(), sighted, ("POST", "/v1/sign"), {"csr": text}, token)
    chain = [_certificate(pem) for pem in answer["chain"]]
    trusted = _roots(answer["trust"], _certificate(root))
    return Credential(key, chain, trusted, read_leaf(chain[0]))


def _roots(vouched: dict[str, Any], pinned: x509.Certificate) -> list[x509.Certificate]:
    """Section 15: the roots of a bundle that the pinned root vouches for (roots without intermediates alone)."""
    bundle = base64.urlsafe_b64decode(vouched["bundle"] + "==")
    named = f"/tencrypt/statement/{hashlib.sha256(bundle).hexdigest()}"
    for (pem,) in vouched["statements"]:
        statement = _certificate(pem)
        names = statement.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        try:
            statement.verify_directly_issued_by(pinned)
        except (ValueError, InvalidSignature):
            continue
        if uri.endswith(named):
            return [_certificate(one["certificate"]) for one in json.loads(bundle)["roots"]]
    raise Refused("the pinned root vouches for no such roots")


def _ask(
    reached: socket.socket,
    context: ssl.SSLContext,
    what: tuple[str, str],
    body: dict[str, str] | None = None,
    token: str = "",
) -> dict[str, Any]:
    http = HTTPConnection("ca")
    with context.wrap_socket(reached) as http.sock:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        http.request(*what, json.dumps(body) if body else None, headers if body else {})
        response = http.getresponse()
        text = response.read()
        if response.status != 200:
            raise Refused(f"the CA answered {response.status}: {text[:200]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode("ascii"))


def _fingerprint(pem: str) -> str:
    return f"sha256:{_certificate(pem).fingerprint(hashes.SHA256()).hex()}"


def read_leaf(leaf: x509.Certificate) -> Peer:
    """Section 5, check 3: a pod's certificate and nothing else."""
    of = leaf.extensions
    try:
        constraints = of.get_extension_for_class(x509.BasicConstraints).value
        usage = of.get_extension_for_class(x509.KeyUsage).value
        purposes = set(of.get_extension_for_class(x509.ExtendedKeyUsage).value)
        names = of.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound as error:
        raise Refused(str(error)) from None
    assert isinstance(names, x509.SubjectAlternativeName)
    if constraints.ca or not usage.digital_signature or not purposes >= _BOTH_ENDS:
        raise Refused("not a pod's certificate")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    if (len(uris), len(dns)) != (1, 1) or len(list(names)) != 2 + len(addresses):
        raise Refused("names: one URI, one DNS name, addresses")
    project, _, account = uris[0].removeprefix("spiffe://").partition("/sa/")
    pod, _, namespace = dns[0].removesuffix(".pod").partition(".")
    if not 1 <= len(addresses) <= 16 or project.rpartition("/ns/")[2] != namespace:
        raise Refused("addresses, or a DNS name of another namespace")
    fingerprint = leaf.fingerprint(hashes.SHA256())
    return Peer(fingerprint, project, account, pod, frozenset(map(str, addresses)))


def judge_leaf(leaf: x509.Certificate, own: Peer, called: str | None) -> Peer:
    """Section 5, checks 3, 4, 6 and 7; nothing tells this client what is revoked (5)."""
    peer = read_leaf(leaf)
    if peer.project != own.project:
        raise Refused("another project")
    if peer.fingerprint == own.fingerprint or peer.addresses & own.addresses:
        raise Refused("our own certificate, or one of our addresses")
    if called is not None and str(ip_address(called)) not in peer.addresses:
        raise Refused("the certificate does not name the address that was called")
    return peer


def connection(credential: Credential, called: str | None) -> SSL.Connection:
    """Make TLS over memory: as a client if an address was `called`, else as a server."""
    own = credential.own

    def verify(_: SSL.Connection, seen: crypto.X509, __: int, depth: int, good: int) -> bool:
        if not good or depth:
            return bool(good)
        try:
            judge_leaf(seen.to_cryptography(), own, called)
        except Refused:
            return False
        return True

    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_tls13_ciphersuites(":".join(credential.suites).encode())
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
    context.set_alpn_protos([ALPN])
    context.set_alpn_select_callback(lambda _, offered: ALPN if ALPN in offered else b"")
    context.use_privatekey(credential.key)
    context.use_certificate(credential.chain[0])
    for between in credential.chain[1:]:
        context.add_extra_chain_cert(between)
    store = context.get_cert_store()
    assert store is not None
    for root in credential.roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    made = SSL.Connection(context)
    if called is None:
        made.set_accept_state()
    else:
        made.set_connect_state()
    return made


def judge(tls: SSL.Connection, credential: Credential, called: str | None) -> Peer:
    """Section 5 on the finished connection; TLS has verified the chain (2)."""
    agreed = (tls.get_protocol_version_name(), tls.get_alpn_proto_negotiated())
    if agreed != ("TLSv1.3", ALPN) or tls.get_cipher_name() not in credential.suites:
        raise Refused("version, ALPN or suite")
    if tls.get_group_name() != GROUP:
        raise Refused("group")
    leaf = tls.get_peer_certificate(as_cryptography=True)
    if leaf is None:
        raise Refused("no certificate")
    return judge_leaf(leaf, credential.own, called)


@dataclass(frozen=True)
class Keys:
    initiator: Direction
    responder: Direction
    session: bytes


def export(tls: SSL.Connection, call: Flight, answer: Flight, who: tuple[Peer, Peer]) -> Keys:
    """Section 6, of one FLIGHT of each side and the certificates of initiator and responder."""
    fields = (
        *(ALPN, bytes((VERSION,)), bytes((call.newest,)), bytes((call.oldest,))),
        *(call.initiator, answer.responder),
        *(number.to_bytes(4, "big") for number in (call.index, answer.index)),
        *(number.to_bytes(4, "big") for number in (call.features, answer.features)),
        call.generation.to_bytes(8, "big"),
        *(peer.fingerprint for peer in who),
    )
    context = b"".join(len(field).to_bytes(2, "big") + field for field in fields)

    def exported(what: str, size: int) -> bytes:
        label = f"EXPORTER-tencrypt {what}".encode("ascii")
        key: bytes = tls.export_keying_material(label, size, context)
        return key

    suite = tls.get_cipher_name()
    assert suite is not None
    initiator, responder = (
        Direction(suite, exported(f"{role} record", 44), exported(f"{role} header", 32))
        for role in ("initiator", "responder")
    )
    return Keys(initiator, responder, exported("session id", 16))
