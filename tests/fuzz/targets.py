"""Every parser of untrusted bytes as a fuzz target: one exception may leave it, any other is a finding."""

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fuzz import belonging, data_path, issuing, listing, translating, verifying
from support.pki import START, Authority, Leaf

from ca.drivers.file_documents import DirectoryError
from ca.lists import parse_envelope, parse_roster
from ca.messages import (
    Bundle,
    ErrorResponse,
    JoinClaims,
    MessageError,
    SignRequest,
    SignResponse,
    encode,
    encode_claims,
    encode_token,
    parse_bundle,
    parse_claims,
    parse_error,
    parse_fingerprint,
    parse_sign_request,
    parse_sign_response,
    parse_token,
)
from ca.own_issuer import OwnIssuerError
from ca.profile import judge_csr
from ca.refusal import Refused
from ca.renew import identify
from ca.signer import SignerError
from ca.trust_bundle import parse_trust_bundle
from policy.identity import IdentityError, parse_pod_uri
from policy.rules import RulesError
from policy.settings_source import SettingsError
from proxy import rekey
from proxy.cert import judge as judge_certificate
from proxy.credentials.certificate import UNREADABLE, parse_pod_certificate
from proxy.credentials.credential import build_credential
from proxy.credentials.csr import make_key_and_csr
from proxy.dns.resolv import ResolvError
from proxy.errors import Dropped
from proxy.flow.endpoints_file import ServicesError
from proxy.lists import messages as lists_messages
from proxy.netagent.orders import OrderError
from proxy.netagent.orders import parse_order as parse_net_order
from proxy.session.tls import TlsEnd, make_context
from proxy.session.wire import FlightHeader, Hello, Hint, Retry, parse_handshake
from proxy.settings import parse_settings
from proxy.status import draw
from proxy.verify import messages as verify_messages
from proxy.verify import verdict
from proxy.verify.orders import parse_order, parse_told

WALL = START.timestamp() + 60
CLAIMS = JoinClaims(
    "0123456789abcdef",
    "shop.example",
    "nginx1",
    "shop",
    "web",
    (ip_address("10.0.0.1"), ip_address("fd00::1")),
    2_000_000_000,
)
AUTHORITY = Authority()
POD = AUTHORITY.issue(Leaf(pod="b", addresses=("10.0.0.2",)))
CONTEXT = make_context(POD)


@dataclass(frozen=True)
class Target:
    """``run`` takes any bytes; ``seeds`` are good ones to begin with."""

    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    good: bool = True
    """Whether each seed is accepted, and not only a place to begin."""

    def __call__(self, data: bytes) -> None:
        with contextlib.suppress(*self.allowed):
            self.run(data)


def text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def answer_tls(data: bytes) -> None:
    TlsEnd(CONTEXT, POD.own, called=None, wall=WALL).step(data)


def call_tls(data: bytes) -> None:
    end = TlsEnd(CONTEXT, POD.own, called=b"\x0a\0\0\1", wall=WALL)
    end.step(b"")
    end.step(data)


def hello_of_tls() -> list[bytes]:
    end = TlsEnd(CONTEXT, POD.own, called=b"\x0a\0\0\1", wall=WALL)
    end.step(b"")
    return [end.outgoing()]


def flight_of_tls() -> list[bytes]:
    end = TlsEnd(CONTEXT, POD.own, called=None, wall=WALL)
    end.step(hello_of_tls()[0])
    return [end.outgoing()]


def certificate(data: bytes) -> None:
    try:
        parsed = x509.load_der_x509_certificate(data)
    except UNREADABLE:
        return
    parse_pod_certificate(parsed)


def csr_seed() -> list[bytes]:
    _, der = make_key_and_csr()
    return [x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)]


def pod_toml() -> list[bytes]:
    return [
        b'trust_domain = "shop.example"\nname = "nginx1"\nnamespace = "shop"\nservice_account = "web"\n'
        b'ca_address = "https://10.0.1.1:8443"\nca_root_fingerprint = "sha256:' + b"0" * 64 + b'"\n'
        b'token = "' + encode_token(CLAIMS, bytes(32)).encode() + b'"\nmembers = ["10.0.0.0/24"]\n'
        b'tls_suites = ["TLS_AES_256_GCM_SHA384"]\ntls_groups = ["X25519MLKEM768", "secp384r1"]\n'
    ]


def settings(data: bytes) -> None:
    parse_settings(data.decode("utf-8", "replace"), {}, wall=WALL, read_token=str)


def drawn(data: bytes) -> None:
    status = json.loads(data)
    if isinstance(status, dict):
        draw(status)


def rekeyed(data: bytes) -> None:
    answer = json.loads(data)
    if isinstance(answer, dict):
        rekey.draw(answer)


def proof_drawn(data: bytes) -> None:
    answer = json.loads(data)
    if isinstance(answer, dict):
        verdict.draw(answer)


def pem_chain() -> list[bytes]:
    return [b"".join(c.public_bytes(Encoding.PEM) for c in (*POD.chain, *POD.roots))]


TARGETS: dict[str, Target] = {
    "handshake": Target(
        lambda data: parse_handshake(memoryview(data)),
        (Dropped,),
        lambda: [
            Hello(1).encode(),
            Retry(1, bytes(20)).encode(),
            FlightHeader(1, 2, 3, bytes(20), 4).encode(0, 0, b"tls"),
            Hint(1, 2).encode(),
        ],
    ),
    "record": Target(data_path.open_record, (Dropped,), data_path.record_seeds),
    "packet": Target(data_path.packet, (Dropped,), data_path.packet_seeds),
    "frame": Target(data_path.frame, (Dropped,), data_path.frame_seeds),
    "arrived": Target(data_path.arrived, (Dropped,), data_path.arrived_seeds),
    "joined": Target(data_path.joined, (), data_path.joined_seeds),
    "seen": Target(verifying.seen_frame, (), verifying.frame_seeds),
    "verify": Target(verify_messages.parse, (Dropped,), verifying.message_seeds),
    "lists": Target(lists_messages.parse, (Dropped,), listing.message_seeds),
    "envelope": Target(parse_envelope, (MessageError,), listing.envelope_seeds),
    "roster": Target(parse_roster, (MessageError,), listing.payload_seeds),
    "signed-roster": Target(listing.believe, (Dropped,), listing.envelope_seeds),
    "order": Target(parse_order, (Dropped,), verifying.order_seeds),
    "told": Target(parse_told, (Dropped,), verifying.told_seeds),
    "query": Target(belonging.query, (Dropped,), belonging.query_seeds),
    "answer": Target(belonging.answer, (Dropped,), belonging.answer_seeds),
    "resolv": Target(
        belonging.resolv, (ResolvError,), lambda: [b"search x\nnameserver 10.0.0.1\n"]
    ),
    "rules": Target(text(belonging.rules), (RulesError,), lambda: [belonging.RULES.encode()]),
    "clearance": Target(
        text(belonging.clearance), (ValueError,), lambda: [b"10.0.0.9 tcp/80-90", b"fd00::/64 icmp"]
    ),
    "endpoints": Target(text(translating.endpoints), (ServicesError,), translating.endpoints_seeds),
    "translated": Target(translating.translated, (Dropped,), translating.packet_seeds),
    "judged": Target(belonging.judged, (Dropped,), data_path.packet_seeds),
    "net-order": Target(
        parse_net_order, (OrderError,), lambda: [b"7 +member 10.0.0.2 fd00::2", b"8 fresh 60"]
    ),
    "tls-answer": Target(answer_tls, (Dropped,), hello_of_tls),
    "tls-call": Target(call_tls, (Dropped,), flight_of_tls, good=False),
    "certificate": Target(
        certificate,
        (Dropped,),
        lambda: [c.public_bytes(Encoding.DER) for c in POD.chain],
    ),
    "caller": Target(
        lambda data: identify(data, "shop.example", datetime.fromtimestamp(WALL, UTC)),
        (Refused,),
        lambda: [c.public_bytes(Encoding.DER) for c in POD.chain],
    ),
    "chain": Target(lambda data: build_credential(POD.key, data, POD.roots), (Dropped,), pem_chain),
    "identity": Target(
        text(parse_pod_uri), (IdentityError,), lambda: [POD.own.identity.uri.encode()]
    ),
    "csr": Target(text(judge_csr), (Refused,), csr_seed),
    "token": Target(
        text(parse_token), (MessageError,), lambda: [encode_token(CLAIMS, bytes(32)).encode()]
    ),
    "claims": Target(parse_claims, (MessageError,), lambda: [encode_claims(CLAIMS)]),
    "ca-record": Target(
        issuing.record, (MessageError, ValueError, RecursionError), issuing.record_seeds
    ),
    "sign-request": Target(
        parse_sign_request, (MessageError,), lambda: [encode(SignRequest("csr"))]
    ),
    "sign-response": Target(
        parse_sign_response,
        (MessageError,),
        lambda: [encode(SignResponse(("leaf",), {}, 1.5))],
    ),
    "trust-bundle": Target(parse_trust_bundle, (MessageError,), issuing.trust_seeds),
    "vouched": Target(
        issuing.vouched, (Dropped, MessageError, ValueError, RecursionError), issuing.vouched_seeds
    ),
    "revocations": Target(
        issuing.revocations, (MessageError, ValueError, RecursionError), issuing.revocations_seeds
    ),
    "bundle": Target(parse_bundle, (MessageError,), lambda: [encode(Bundle(("root",)))]),
    "error": Target(parse_error, (MessageError,), lambda: [encode(ErrorResponse("held", "it is"))]),
    "fingerprint": Target(
        text(parse_fingerprint), (MessageError,), lambda: [b"sha256:" + b"0" * 64]
    ),
    "settings": Target(settings, (SettingsError,), pod_toml),
    "vault-settings": Target(
        text(issuing.vault_settings), (SettingsError,), lambda: [issuing.SETTINGS.encode()]
    ),
    "vault-answer": Target(issuing.answered, (SignerError,), issuing.answer_seeds),
    "signed": Target(issuing.signed, (SignerError,), issuing.signed_seeds),
    "own-issuer": Target(
        issuing.own_issuer, (OwnIssuerError,), lambda: [issuing.ROOT_PEM.encode()], good=False
    ),
    "copy": Target(issuing.copied, (DirectoryError,), issuing.copy_seeds),
    "cert-judge": Target(lambda data: judge_certificate(data, POD, WALL), (), pem_chain),
    "status": Target(
        drawn,
        (ValueError, KeyError, TypeError, OverflowError, RecursionError),
        lambda: [b'{"pod": {}, "certificate": {"serial": "1", "renewal": {"failures": 1}}}'],
        good=False,
    ),
    "proof": Target(
        proof_drawn,
        (ValueError, KeyError, TypeError, OverflowError, RecursionError),
        verifying.proof_seeds,
    ),
    "rekey": Target(
        rekeyed,
        (ValueError, KeyError, TypeError, RecursionError),
        lambda: [b'{"sessions": [{"peer": "a", "identity": "b", "before": 1, "after": null}]}'],
    ),
}
