"""What `tencrypt explain` says of an address: what would become of a packet to it, and by which fact.

The same objects answer as for packets: membership, rules, sessions.
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Final

from policy.identity import PodIdentity
from proxy.flow.clearance import Clearance
from proxy.flow.membership import Kind, Membership, Verdict
from proxy.flow.policy import Policy
from proxy.session.session import Session
from proxy.status import JsonObject, draw_table

ENCRYPTED, BYPASSED, REFUSED, LOCAL = "encrypted", "bypassed", "refused", "local"
PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1}

_WHY: Final = {
    "own": "this pod's own address: the kernel delivers it, and we never see it",
    "resolver": "a resolver of this pod: queries go to the DNS proxy, all else to it is refused",
    "exception": "listed in clear: {}",
    "static": "in members: {}",
    "session": "named by the certificate of {}, in a session",
    "roster": "on the authority's signed list of live pods: {}",
    "service": "an address of the Service {}",
    "zone": "DNS says that it is {}, a name of the project",
    "bypass": "DNS says that it is {}, of another project, and dns_bypass is set",
    "outside": "outside of cluster_ranges",
    "range": "in {}, and nothing says whose it is",
}


class Explainer:
    """Answers for one pod."""

    def __init__(  # noqa: PLR0913 - all that decides
        self,
        own: PodIdentity,
        members: Membership,
        policy: Policy,
        current: Mapping[bytes, Session],
        clear_out: Iterable[Clearance],
        *,
        strict: bool,
        endpoints: Callable[[bytes, int, int | None], list[str] | None] = lambda *_: None,
    ) -> None:
        """Ask these; ``current`` are the sessions that seal, by packed address.

        ``endpoints`` says who takes new flows to a virtual address's port; None where it is none's, or nobody knows.
        """
        self._endpoints = endpoints
        self._own, self._members, self._policy = own, members, policy
        self._current, self._clear_out, self._strict = current, tuple(clear_out), strict

    def explain(self, address: bytes, protocol: int, port: int | None) -> JsonObject:
        """Return what becomes of a packet to an address (packed) as JSON-ready data."""
        verdict = self._members.judge(address)
        why = _WHY[verdict.source].format(verdict.detail)
        outcome, reason = self._outcome(verdict, address, protocol, port)
        session = self._current.get(address) if verdict.kind is Kind.MEMBER else None
        return {
            "address": str(ip_address(address)),
            "outcome": outcome,
            "reason": reason or why,
            "kind": str(verdict.kind),
            "source": verdict.source,
            "fact": why,
            "session": None if session is None else _session(session),
            "rule": self._rule(session, protocol, port),
            "endpoints": self._endpoints(address, protocol, port),
        }

    def _outcome(
        self, verdict: Verdict, address: bytes, protocol: int, port: int | None
    ) -> tuple[str, str]:
        listed = self._listed(address, protocol, port)
        if listed is not None and verdict.kind is not Kind.OWN:
            return BYPASSED, f"clear_out lists {listed}"
        if verdict.kind is Kind.OWN:
            return LOCAL, ""
        if verdict.kind is Kind.EXTERNAL:
            return BYPASSED, ""
        if verdict.kind is Kind.UNKNOWN:
            if self._strict:
                return REFUSED, ""
            return BYPASSED, "encryption is permissive, and no certificate is known to name it"
        session = self._current.get(address)
        if session is None:
            return ENCRYPTED, "a member, and a handshake comes first: refused unless it succeeds"
        if self._policy.enforce and port is not None and not self._decide(session, protocol, port):
            return REFUSED, "the rules let this pod open no such flow to the peer"
        return ENCRYPTED, ""

    def _listed(self, address: bytes, protocol: int, port: int | None) -> Clearance | None:
        parsed = ip_address(address)
        return next(
            (
                one
                for one in self._clear_out
                if one.network.version == parsed.version
                and parsed in one.network
                and one.covers(protocol, port)
            ),
            None,
        )

    def _decide(self, session: Session, protocol: int, port: int | None) -> bool:
        peer = session.peer.identity
        return self._policy.rules.decide(self._own, peer, protocol, port).allowed

    def _rule(self, session: Session | None, protocol: int, port: int | None) -> str | None:
        """Return which rule decides, where a peer and a port are known."""
        if session is None or port is None:
            return None
        decision = self._policy.rules.decide(self._own, session.peer.identity, protocol, port)
        if decision.rule is None:
            return "no rule is about it: allowed"
        said = "allowed" if decision.allowed else "refused"
        return f"{said} by the rule in line {decision.rule.line}"


def _session(session: Session) -> JsonObject:
    return {
        "peer": session.peer.pod,
        "identity": session.peer.identity.uri,
        "cipher": session.suite,
        "group": session.group,
    }


def draw(answer_untrusted: JsonObject) -> str:
    """Return an answer as one screen; raises KeyError or TypeError where it is none."""
    found = answer_untrusted["addresses"]
    if not isinstance(found, list):
        raise TypeError("not an explanation")
    if not found:
        return f"{answer_untrusted['target']}: no resolver knows an address of it"
    lines: list[str] = []
    for one in found:
        if not isinstance(one, dict):
            raise TypeError("not an explanation")
        # Where the fact is the reason, it has been said.
        rows = [("FACT", str(one["fact"]))] if one["fact"] != one["reason"] else []
        session = one["session"]
        if isinstance(session, dict):
            rows.append(("PEER", f"{session['peer']}  {session['identity']}"))
            rows.append(("SESSION", f"{session['cipher']}, {session['group']}"))
        endpoints = one["endpoints"]
        if isinstance(endpoints, list):
            rows.append(("ENDPOINTS", ", ".join(map(str, endpoints)) or "none: refused"))
        if one["rule"] is not None:
            rows.append(("RULE", str(one["rule"])))
        table = draw_table(rows) if rows else []
        lines += [f"{one['address']}  {one['outcome']}: {one['reason']}", *table, ""]
    return "\n".join(lines).rstrip()
