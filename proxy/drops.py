"""Why something was refused: one enumeration for counters, log fields and test assertions."""

from collections import Counter
from enum import StrEnum, unique


@unique
class Drop(StrEnum):
    """Each reason is counted under its value; the comment says who is to blame as a rule."""

    # Datagrams, before anything is known of their sender.
    MALFORMED = "malformed"  # not a datagram of wire version 1
    VERSION = "version"  # offers no version that we speak
    COOKIE = "cookie"  # a FLIGHT whose cookie is forged, of another address, or too old
    UNKNOWN_HANDSHAKE = "unknown_handshake"  # answers no handshake of ours
    HANDSHAKE_MISMATCH = "handshake_mismatch"  # contradicts what the same handshake said before
    HANDSHAKES_FULL = "handshakes_full"  # too many half-open ones, in all or from one source
    HANDSHAKES_PACED = "handshakes_paced"  # one source, or all, ask faster than handshakes may cost
    SESSIONS_FULL = "sessions_full"  # as many sessions as this pod keeps
    HINT = "hint"  # a HINT that fits no session, or came too soon after the last
    # Records.
    UNKNOWN_INDEX = "unknown_index"  # no session: ours ended, or the peer restarted, or forged
    WRONG_ENDPOINT = "wrong_endpoint"  # the first record comes from elsewhere than its handshake
    REPLAY = "replay"  # counter seen before, or too old
    TOKEN = "token"  # noqa: S105 - a reason's name; the header is forged
    REASSEMBLY = "reassembly"  # a piece contradicts the others of its record
    INCOMPLETE = "incomplete"  # pieces of a record were lost
    FORGED = "forged"  # the AEAD did not open
    SESSION_ENDED = "session_ended"  # a limit of age, volume or certificate was reached
    UNKNOWN_KIND = (
        "unknown_kind"  # a control record of a later version, or not for its sender to send
    )
    # Peers that are refused after TLS said who they are.
    TLS = "tls"  # OpenSSL refused the handshake
    TLS_PARAMETERS = "tls_parameters"  # version, ALPN, suite or key-exchange group
    NO_CERTIFICATE = "no_certificate"
    UNTRUSTED = "untrusted"  # the chain ends in no root of ours
    LIST_STALE = "list_stale"  # nobody has told us for too long who is withdrawn: ours to mend
    REVOKED = "revoked"  # the certificate, its issuer or the pod was withdrawn
    CERTIFICATE_TIME = "certificate_time"  # expired, or not valid yet
    CERTIFICATE_PROFILE = "certificate_profile"  # not a pod's certificate
    FOREIGN_PROJECT = "foreign_project"  # another trust domain or namespace
    ADDRESS_NOT_NAMED = "address_not_named"  # does not name the address that we called
    OWN_ADDRESS = "own_address"  # claims our own certificate or addresses
    PEER_REFUSED = "peer_refused"  # the peer refused us, by a TLS alert
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    ROSTER = (
        "roster"  # a signed list that is not our project's, not the CA's, over, or older than ours
    )
    BUNDLE = "bundle"  # roots for which no root of ours vouches, or of another project
    GENERATION = "generation"  # DONE without a choice, or one that would exhaust the numbers
    # Inner packets.
    PACKET_MALFORMED = "packet_malformed"  # not a whole IPv4 or IPv6 packet
    PACKET_FORBIDDEN = "packet_forbidden"  # source route, redirect, neighbour discovery
    FOREIGN_SOURCE = "foreign_source"  # not named in the sender's certificate, or not our own
    FOREIGN_DESTINATION = "foreign_destination"  # not an address of ours
    FOREIGN_QUOTE = (
        "foreign_quote"  # an ICMP error about a packet that we did not send to its sender
    )
    NOT_A_MEMBER = "not_a_member"  # reached tenc0 but goes outside the project
    UNKNOWN_ADDRESS = "unknown_address"  # inside the cluster's ranges, and nothing says whose
    NO_ENDPOINT = "no_endpoint"  # a Service's address, and nobody serves that port of it now
    POLICY_OUT = "policy_out"  # the rules let this pod open no such flow to the peer
    POLICY_IN = "policy_in"  # the rules let the peer open no such flow to this pod
    QUEUE_FULL = "queue_full"  # too many packets wait for a handshake
    NO_SESSION = "no_session"  # the handshake for which the packet waited failed
    TOO_BIG = "too_big"  # does not fit the path (the application was told), or no record
    ECN = "ecn"  # a router marked congestion, and the packet's ends understand no marks
    SOCKET = "socket"  # the kernel took no datagram
    KERNEL = "kernel"  # the net agent did not carry out what the membership says
    TUN = "tun"  # the kernel took no packet
    # DNS.
    DNS_MALFORMED = "dns_malformed"  # not a query, or an answer that nobody can read
    DNS_FORGED = "dns_forged"  # an answer of another id or question than was asked
    DNS_FULL = "dns_full"  # more queries under way than we keep; the oldest are given up
    DNS_REFUSED = "dns_refused"  # what an answer says could not be carried out
    BUG = "bug"  # an exception that should not be: the log has it


Drops = Counter[Drop]
