"""What `tencrypt cert` says: the pod's own chain as a tree, and what Tencrypt would say of any certificate, and why."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from policy.certificate import UNREADABLE, check_list_signer
from policy.identity import ca_uri
from proxy.credentials.credential import Credential
from proxy.credentials.judge import check_times, judge_chain
from proxy.credentials.trust import NONE_REVOKED, Revocations, verify_again
from proxy.errors import Dropped
from proxy.status import JsonObject, draw_span

MOST_CERTIFICATES = 8


def report(credential: Credential, renewal: JsonObject, wall: float) -> JsonObject:
    """Return what the pod holds, as JSON-ready data; times in Unix seconds. Its key is not among it."""
    top = credential.chain[-1]
    root = next((one for one in credential.roots if one.subject == top.issuer), None)
    return {
        "wall": round(wall),
        "chain": [_describe(one) for one in credential.chain],
        "root": None if root is None else _describe(root),
        "roots": [_describe(one) for one in credential.roots],
        "renewal": renewal,
    }


def judge(
    pem_untrusted: bytes, credential: Credential, wall: float, revoked: Revocations = NONE_REVOKED
) -> JsonObject:
    """Return what we would say of a chain in PEM (leaf first): as a peer's, by our roots, at ``wall``."""
    try:
        chain = x509.load_pem_x509_certificates(pem_untrusted)
        described: list[object] = [_describe(one) for one in chain[:MOST_CERTIFICATES]]
    except UNREADABLE as error:
        return _verdict("unreadable", f"not a certificate in PEM: {error}", [])
    if len(chain) > MOST_CERTIFICATES:
        return _verdict("unreadable", f"more than {MOST_CERTIFICATES} certificates", described)
    try:
        verified = verify_again([one.public_bytes(Encoding.DER) for one in chain], credential.roots)
        check_times(verified, wall)
        service = _service(chain[0], credential.own.identity.trust_domain)
        if service:
            return _verdict("", f"good as {service}, and as no pod's", described)
        is_own = chain[0].fingerprint(hashes.SHA256()) == credential.own.fingerprint
        peer = judge_chain(verified, credential.own, None, wall, revoked, may_be_own=is_own)
    except Dropped as dropped:
        return _verdict(str(dropped.reason), dropped.detail, described)
    whose = "our own" if is_own else "a peer of this project"
    return _verdict("", f"{whose}: {peer.pod}, {peer.identity.uri}", described)


def _verdict(reason: str, detail: str, chain: Sequence[object]) -> JsonObject:
    return {"accepted": not reason, "reason": reason, "detail": detail, "chain": list(chain)}


def _service(leaf: x509.Certificate, trust_domain: str) -> str:
    """Return which service of the CA a certificate is for; empty for none."""
    try:
        check_list_signer(leaf, trust_domain)
    except UNREADABLE:
        pass
    else:
        return "the list signer's"
    return "the CA service's" if _uris(leaf) == [ca_uri(trust_domain)] else ""


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _describe(certificate: x509.Certificate) -> JsonObject:
    """Return what a certificate says, for people; raises one of `UNREADABLE`."""
    names: list[str] = []
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(one.value) for one in found]
    except x509.ExtensionNotFound:
        pass
    return {
        "subject": certificate.subject.rfc4514_string(),
        "names": names,
        "serial": f"{certificate.serial_number:x}",
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "not_before": int(certificate.not_valid_before_utc.timestamp()),
        "not_after": int(certificate.not_valid_after_utc.timestamp()),
        "pem": certificate.public_bytes(Encoding.PEM).decode("ascii"),
    }


def draw(report_untrusted: JsonObject) -> str:
    """Return the chain as a tree, the root above; raises KeyError or TypeError where it is no report."""
    wall = _number(report_untrusted["wall"])
    chain = _dicts(report_untrusted["chain"])
    root = report_untrusted["root"]
    above = [] if root is None else _dicts([root])
    lines: list[str] = []
    for depth, one in enumerate([*above, *reversed(chain)]):
        lines += _branch(one, depth, wall)
    others = [one for one in _dicts(report_untrusted["roots"]) if one not in above]
    for one in others:
        lines += ["", "trusted too:", *_branch(one, 0, wall)]
    [renewal] = _dicts([report_untrusted["renewal"]])
    lines += ["", f"renewal in {draw_span(renewal['next_seconds'])}"]
    if renewal["last_error"]:
        lines.append(f"{renewal['failures']} attempts failed: {renewal['last_error']}")
    return "\n".join(lines)


def draw_verdict(verdict_untrusted: JsonObject) -> str:
    """Return the verdict for people."""
    verdict = verdict_untrusted
    word = "ACCEPTED" if verdict["accepted"] else f"REFUSED  {verdict['reason']}"
    lines = [f"{word}  {verdict['detail']}".rstrip()]
    for one in _dicts(verdict["chain"]):
        lines += ["", *_branch(one, 0, None)]
    return "\n".join(lines)


def _branch(one: JsonObject, depth: int, wall: float | None) -> list[str]:
    indent = "   " * (depth - 1) + "└─ " if depth else ""
    under = "   " * depth
    names = one["names"]
    if not isinstance(names, list):
        raise TypeError("not a certificate's names")
    ends = _number(one["not_after"])
    title = str(one["subject"]) or str(names[0] if names else "without a name")
    shown = [str(name) for name in names if str(name) != title]
    left = [] if wall is None else [f"{under}left    {_span(ends - wall)}"]
    return [
        f"{indent}{_printable(title)}",
        *(f"{under}name    {_printable(name)}" for name in shown),
        f"{under}serial  {one['serial']}",
        f"{under}sha256  {one['sha256']}",
        *left,
    ]


def _span(seconds: float) -> str:
    days = int(seconds // 86_400)
    return f"{days} days" if days > 2 else draw_span(seconds)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError("not a time")
    return float(value)


def _dicts(value: object) -> list[JsonObject]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise TypeError("not certificates")
    return value
