"""Each security check is taken out by name, and the one test that must turn red does.

A mutant is an edit of the source in a copy of the tree. Its test passes on the whole tree (the tier that it
belongs to shows that); here it must fail, or the check could be lost without anybody noticing.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIM = "tests/sim/test_two_nodes.py"
TRUST = "tests/sim/test_trust.py"
PATHS = "tests/sim/test_paths.py"
HOSTILE = "tests/sim/test_hostile_paths.py"
UNIT = "tests/unit/proxy"
CERTIFICATE = f"{UNIT}/credentials/test_certificate.py::test_anything_else_is_refused"


@dataclass(frozen=True)
class Mutant:
    """``old`` stands once in ``file``; with ``new`` in its place ``test`` fails."""

    name: str
    file: str
    old: str
    new: str
    test: str
    also: tuple[str, str, str] | None = None
    """A second edit, where two checks stand behind each other. (TLS 1.2 would take four: not listed.)"""

    def edits(self) -> list[tuple[str, str, str]]:
        return [(self.file, self.old, self.new), *([self.also] if self.also else [])]


MUTANTS = [
    Mutant(
        "state without a good cookie",
        "proxy/session/answers.py",
        "if not self._jar.is_good(header.cookie, source, header.initiator_id, now):",
        "if False:",
        f"{SIM}::test_captured_flight_from_another_address_makes_no_state",
    ),
    Mutant(
        "cookie for every address",
        "proxy/session/cookie.py",
        'endpoint[1].to_bytes(2, "big") + host',
        'endpoint[1].to_bytes(2, "big")',
        f"{UNIT}/session/test_cookie.py::test_cookie_serves_nobody_else",
    ),
    Mutant(
        "cookie for ever",
        "proxy/session/cookie.py",
        " and age <= COOKIE_LIFE",
        "",
        f"{UNIT}/session/test_cookie.py::test_cookie_serves_nobody_else",
    ),
    Mutant(
        "a first record from any address",
        "proxy/session/session.py",
        "if source != self.endpoint and not self.confirmed:",
        "if False:",
        f"{PATHS}::test_first_record_counts_only_from_where_the_handshake_was",
    ),
    Mutant(
        "a session moves while the old address answers",
        "proxy/session/trial.py",
        "if (self.answered_here and not self._preferred) or age >= GIVE_UP:",
        "if age >= GIVE_UP:",
        f"{PATHS}::test_thief_who_passes_on_what_he_gets_moves_nothing",
    ),
    Mutant(
        "a session moves to an address that does not answer",
        "proxy/session/trial.py",
        "Outcome.MOVE if self.answered_there and sure",
        "Outcome.MOVE if sure",
        f"{PATHS}::test_thief_cannot_move_a_session_whose_peer_is_cut_off",
    ),
    Mutant(
        "handshakes without end",
        "proxy/session/answers.py",
        "        if short is not None:\n",
        "        if False:\n",
        "tests/sim/test_pace.py::test_pod_that_shakes_hands_without_end_is_held_to_its_share",
    ),
    Mutant(
        "a copy of a PING takes its answer away",
        "proxy/session/table.py",
        "            if source != session.endpoint:\n",
        "            if False:\n",
        f"{HOSTILE}::test_thief_who_takes_the_answers_of_the_old_address_moves_nothing",
    ),
    Mutant(
        "a thief keeps what he got in an unguarded moment",
        "proxy/session/upkeep.py",
        "preferred = source in named and session.endpoint not in named",
        "preferred = False",
        f"{HOSTILE}::test_session_comes_back_from_a_thief_who_silenced_its_path_for_a_moment",
    ),
    Mutant(
        "known peers share with strangers of their network",
        "proxy/session/answers.py",
        "networks = source[:1] if known else _networks(source)",
        "networks = _networks(source)",
        f"{HOSTILE}::test_strangers_do_not_keep_a_known_pod_from_renewing",
    ),
    Mutant(
        "other roots, and sessions stay",
        "proxy/session/registry.py",
        "verified = verify_again(chain, self._credential.roots)",
        "verified = [x509.load_der_x509_certificate(der) for der in chain]",
        f"{TRUST}::test_root_that_is_gone_closes_the_sessions_that_need_it_and_no_others",
        also=(
            "proxy/session/registry.py",
            "from typing import Final\n",
            "from cryptography import x509\nfrom typing import Final\n",
        ),
    ),
    Mutant(
        "the withdrawn keep their sessions",
        "proxy/session/registry.py",
        "        self._revoked = revoked\n        self._close_refused(now)\n",
        "        self._revoked = revoked\n",
        f"{TRUST}::test_revoked_pod_loses_its_sessions_and_gets_no_other",
    ),
    Mutant(
        "the withdrawn may come back",
        "proxy/session/registry.py",
        "            revoked=self._revoked,\n",
        "",
        f"{TRUST}::test_revoked_pod_loses_its_sessions_and_gets_no_other",
        also=("proxy/session/registry.py", "        self._judge_again(proven.chain, now)\n", ""),
    ),
    Mutant(
        "a list that comes during a handshake",
        "proxy/session/registry.py",
        "        self._judge_again(proven.chain, now)\n",
        "",
        f"{TRUST}::test_list_that_changes_during_a_handshake_is_heeded",
    ),
    Mutant(
        "a silent path is taken for a narrow one",
        "proxy/session/path_size.py",
        "if not self._small_answered:",
        "if False:",
        f"{PATHS}::test_silent_path_says_nothing_about_its_size",
    ),
    Mutant(
        "a packet in several datagrams whatever its DF says",
        "proxy/outbound.py",
        "if len(packet) + RECORD_OVERHEAD > size and not may_split(packet):",
        "if False:",
        f"{PATHS}::test_application_is_told_what_fits",
    ),
    Mutant(
        "a mark of congestion is lost",
        "proxy/packet/ecn.py",
        "if outer == CE and inner == NOT_ECT:",
        "if False:",
        f"{PATHS}::test_marks_of_the_path_reach_the_application",
    ),
    Mutant(
        "a certificate for one end alone",
        "proxy/credentials/certificate.py",
        "if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH} <= purposes:",
        "if not purposes:",
        CERTIFICATE,
    ),
    Mutant(
        "an authority's certificate as a pod's",
        "proxy/credentials/certificate.py",
        "if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:",
        "if False:",
        CERTIFICATE,
    ),
    Mutant(
        "other names beside the pod's",
        "proxy/credentials/certificate.py",
        "if len(uris) != 1 or len(dns) != 1 or len(names) != 2 + len(ips):",
        "if len(uris) != 1 or len(dns) != 1:",
        f"{UNIT}/credentials/test_certificate.py::test_name_of_another_kind_beside_the_right_ones_is_refused",
    ),
    Mutant(
        "more bytes to an unproved address than came",
        "proxy/session/wire.py",
        "if kind == HELLO and size == HELLO_SIZE:",
        "if kind == HELLO and size >= 16:",
        f"{UNIT}/session/test_wire.py::test_hello_that_is_not_padded_is_not_answered",
    ),
    Mutant(
        "control records of any number of datagrams",
        "proxy/inbound.py",
        "if self._plain[0] != PACKET and datagram_untrusted[0] != RECORD:",
        "if False:",
        "tests/sim/test_hostile.py::test_control_record_of_several_datagrams_is_refused",
    ),
    Mutant(
        "sessions without number",
        "proxy/session/registry.py",
        "if len(self.sessions) >= MOST_SESSIONS:",
        "if False:",
        "tests/sim/test_pace.py::test_no_more_sessions_than_there_is_room_for",
    ),
    Mutant(
        "no replay window",
        "proxy/session/record.py",
        "if not self._window.is_fresh(counter):",
        "if False:",
        f"{UNIT}/session/test_record.py::test_record_opens_only_once",
    ),
    Mutant(
        "window moves before the record opened",
        "proxy/session/record.py",
        '        nonce = (self._iv ^ counter).to_bytes(12, "big")\n        size = total - TAG',
        "        self._window.commit(counter)\n"
        '        nonce = (self._iv ^ counter).to_bytes(12, "big")\n        size = total - TAG',
        f"{UNIT}/session/test_record.py::test_forged_record_does_not_move_the_window",
    ),
    Mutant(
        "no token",
        "proxy/session/record.py",
        "        self._check_token(header, segment, token)\n",
        "",
        f"{UNIT}/session/test_record.py::test_wrong_token_is_refused_before_any_state",
    ),
    Mutant(
        "header not authenticated",
        "proxy/session/record.py",
        "header = header[:_SEGMENT_AT] + bytes((segment >> 1,)) + header[_SEGMENT_AT + 1 :]",
        "header = header[:_SEGMENT_AT] + bytes((0,)) + header[_SEGMENT_AT + 1 :]",
        f"{UNIT}/session/test_record.py::test_record_opens_whatever_order_its_pieces_take",
    ),
    Mutant(
        "last write wins",
        "proxy/session/reassembly.py",
        " or segment in partial.have:",
        ":",
        f"{UNIT}/session/test_record.py::test_repeated_piece_does_not_replace_the_first",
    ),
    Mutant(
        "key without a limit",
        "proxy/session/record.py",
        "        if self.blocks > LAST_BLOCK:\n            raise Unusable\n        self.counter",
        "        self.counter",
        f"{UNIT}/session/test_record.py::test_key_refuses_to_seal_past_its_limit",
    ),
    Mutant(
        "any inner source",
        "proxy/inbound.py",
        "if source not in session.peer.addresses:",
        "if False:",
        f"{SIM}::test_peer_with_foreign_source_is_refused",
    ),
    Mutant(
        "any inner destination",
        "proxy/inbound.py",
        "if destination not in self._own:",
        "if False:",
        f"{SIM}::test_peer_with_foreign_destination_is_refused",
    ),
    Mutant(
        "redirects, source routes and neighbour discovery pass",
        "proxy/packet/ip.py",
        "if options[at] in _SOURCE_ROUTES:",
        "if False:",
        f"{UNIT}/packet/test_ip.py::test_packet_that_would_steer_a_link_is_refused",
    ),
    Mutant(
        "any project",
        "proxy/credentials/judge.py",
        "    _check_project(peer, own)\n",
        "",
        f"{SIM}::test_answering_peer_with_a_wrong_certificate_is_refused",
    ),
    Mutant(
        "any time",
        "proxy/credentials/judge.py",
        "    _check_times(chain_untrusted, wall)\n",
        "",
        f"{SIM}::test_calling_peer_with_a_wrong_certificate_is_refused_and_hears_of_it",
    ),
    Mutant(
        "our own addresses in another's certificate",
        "proxy/credentials/judge.py",
        "    _check_not_ourselves(peer, own)\n",
        "",
        f"{SIM}::test_answering_peer_with_a_wrong_certificate_is_refused",
    ),
    Mutant(
        "whoever answers",
        "proxy/credentials/judge.py",
        "        _check_called(peer, called)\n",
        "        pass\n",
        f"{SIM}::test_answering_peer_with_a_wrong_certificate_is_refused",
    ),
    Mutant(
        "any name of the pod",
        "proxy/credentials/certificate.py",
        "if dns[0] != pod_dns_name(pod, identity.namespace):",
        "if False:",
        f"{SIM}::test_answering_peer_with_a_wrong_certificate_is_refused",
    ),
    Mutant(
        "any authority",
        "proxy/session/tls.py",
        '            self.refusal = Dropped(reason, f"chain, depth {depth}, X509_V_ERR {error}")\n'
        "            return False\n",
        "",
        f"{SIM}::test_peer_of_another_authority_is_refused",
        also=("proxy/session/registry.py", "        self._judge_again(proven.chain, now)\n", ""),
    ),
    Mutant(
        "no certificate needed",
        "proxy/session/tls.py",
        "SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT",
        "SSL.VERIFY_PEER",
        f"{UNIT}/session/test_tls.py::test_peer_without_certificate_is_refused",
        also=("proxy/credentials/judge.py", "raise Dropped(Drop.NO_CERTIFICATE)", "return own"),
    ),
    Mutant(
        "any ALPN",
        "proxy/session/tls.py",
        "        or connection.get_alpn_proto_negotiated() != PROTOCOL\n",
        "",
        f"{UNIT}/session/test_tls.py::test_responder_without_alpn_is_refused_for_that",
    ),
    Mutant(
        "any key-exchange group",
        "proxy/session/tls.py",
        "        or group not in profile.groups\n",
        "",
        f"{UNIT}/session/test_tls.py::test_peer_that_offers_only_a_classical_group_is_refused",
    ),
    Mutant(
        "group outside the profile is accepted",
        "proxy/session/tls.py",
        "or group not in profile.groups",
        'or group not in {"X25519MLKEM768", "secp384r1", "secp256r1"}',
        "tests/sim/test_profiles.py::test_pods_without_a_common_choice_refuse_each_other_and_send_nothing",
    ),
    Mutant(
        "suite outside the profile is accepted",
        "proxy/session/tls.py",
        "        or suite not in profile.suites\n",
        "",
        f"{UNIT}/session/test_profile.py::test_suite_outside_the_profile_is_refused_whatever_openssl_agreed_to",
    ),
    Mutant(
        "OpenSSL is held to no suite",
        "proxy/session/tls.py",
        '    context.set_tls13_ciphersuites(":".join(profile.suites).encode())\n',
        "",
        f"{UNIT}/session/test_profile.py::test_suite_that_the_caller_prefers_is_used",
    ),
    Mutant(
        "a group is refused at the end only, and the peer not told",
        "proxy/session/tls.py",
        "                _check_parameters(connection, self._profile)\n",
        "",
        f"{UNIT}/session/test_profile.py::test_two_pods_agree_within_both_profiles_or_both_refuse",
    ),
    Mutant(
        "a refused peer gets our Finished",
        "proxy/session/tls.py",
        "            except Dropped as refusal:\n"
        "                self.refusal = refusal\n                return False\n",
        "            except Dropped:\n                pass\n",
        f"{UNIT}/session/test_tls.py::test_refused_responder_never_gets_our_finished",
    ),
    Mutant(
        "strangers end a handshake that waits for DONE",
        "proxy/session/tls.py",
        "            if refusal.reason is Drop.PEER_REFUSED:\n                raise refusal from None",
        "            raise refusal from None",
        f"{UNIT}/session/test_tls.py::test_strangers_bytes_after_the_handshake_change_nothing",
    ),
    Mutant(
        "the responder moves before a record opened",
        "proxy/session/answers.py",
        "                session = self._registry.establish(responder, now)\n",
        "                session = self._registry.establish(responder, now)\n"
        "                moved = dict.fromkeys(session.peer.addresses, session)\n"
        "                self._registry.current.update(moved)\n",
        f"{SIM}::test_altering_a_flight_spoils_that_attempt_and_ends_no_session",
    ),
    Mutant(
        "receiver index not bound",
        "proxy/session/keys.py",
        "        (responder.index, 4),\n",
        "",
        f"{SIM}::test_altering_a_flight_spoils_that_attempt_and_ends_no_session",
    ),
    Mutant(
        "every HINT is believed",
        "proxy/session/table.py",
        "if not recent or not self._registry.pairs[pair_key(session.peer)].heed_hint(now):",
        "if False:",
        f"{SIM}::test_forged_hint_starts_a_handshake_at_most_and_rarely",
    ),
    Mutant(
        "HINTs without end",
        "proxy/session/table.py",
        "if self._hints[bucket] < _HINTS_A_BUCKET:",
        "if True:",
        f"{SIM}::test_hints_are_few_however_many_strange_records_come",
    ),
    Mutant(
        "a finished handshake's copies begin another",
        "proxy/session/answers.py",
        "if header.responder_id or key in self._tombstones:",
        "if header.responder_id:",
        f"{SIM}::test_late_copy_of_a_finished_handshake_begins_no_other",
    ),
    Mutant(
        "any server of the project is the CA",
        "proxy/drivers/ca_client.py",
        "            if der is None or not _names_only(der, uri):",
        "            if der is None:",
        "tests/unit/proxy/drivers/test_ca_client.py::test_pods_certificate_does_not_make_a_ca",
    ),
    Mutant(
        "the CA of any root",
        "proxy/drivers/ca_client.py",
        "    if fingerprint not in offered:",
        "    fingerprint = next(iter(offered), fingerprint)\n    if fingerprint not in offered:",
        "tests/unit/proxy/drivers/test_ca_client.py::test_ca_with_another_root_gets_no_token",
    ),
    Mutant(
        "any server with our root in its bundle",
        "proxy/drivers/ca_client.py",
        "    context.verify_mode = ssl.CERT_REQUIRED\n",
        "    context.verify_mode = ssl.CERT_OPTIONAL\n",
        "tests/unit/proxy/drivers/test_ca_client.py::test_pods_certificate_does_not_make_a_ca",
        also=(
            "proxy/drivers/ca_client.py",
            "            if der is None or not _names_only(der, uri):",
            "            if False:",
        ),
    ),
    Mutant(
        "a token's claims are believed",
        "ca/issue.py",
        "if record is None or not hmac.compare_digest(record.hash, token_hash(token_untrusted)):",
        "if record is None:",
        "tests/unit/ca/test_issue.py::test_token_with_altered_claims_is_refused",
    ),
    Mutant(
        "a token for ever",
        "ca/issue.py",
        "if wall.timestamp() >= record.claims.expires:",
        "if False:",
        "tests/unit/ca/test_issue.py::test_token_can_be_used_until_it_expires",
    ),
    Mutant(
        "an address for two",
        "ca/issue.py",
        "    _check_addresses_free(claims, leases, wall)\n",
        "",
        "tests/unit/ca/test_issue.py::test_address_held_by_another_token_is_refused_until_that_certificate_ends",
    ),
    Mutant(
        "a CSR may ask",
        "ca/profile.py",
        "if list(csr.subject) or list(csr.attributes):",
        "if False:",
        "tests/unit/ca/test_profile.py::test_csr_cannot_ask_for_names_or_rights",
    ),
    Mutant(
        "a key that the sender does not hold",
        "ca/profile.py",
        "if not csr.is_signature_valid:",
        "if False:",
        "tests/unit/ca/test_profile.py::test_key_that_the_sender_does_not_hold_is_not_certified",
    ),
    Mutant(
        "a certificate renewed for ever",
        "ca/renew.py",
        "if wall > certificate.not_valid_after_utc + GRACE:",
        "if False:",
        "tests/unit/ca/test_renew.py::test_certificate_can_be_renewed_for_a_day_after_its_end",
    ),
    Mutant(
        "a certificate renewed before it begins",
        "ca/renew.py",
        "if wall < certificate.not_valid_before_utc:",
        "if False:",
        "tests/unit/ca/test_renew.py::test_certificate_that_has_not_begun_is_refused",
    ),
    Mutant(
        "every earlier key may renew",
        "ca/renew.py",
        "return caller.key in {lease.key, lease.previous} and (",
        "return (",
        "tests/unit/ca/test_renew.py::test_earlier_key_is_worth_nothing_once_its_successor_was_used",
    ),
    Mutant(
        "any purpose renews",
        "ca/renew.py",
        "if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH} <= purposes:",
        "if False:",
        "tests/unit/ca/test_renew.py::test_certificate_that_is_not_a_pods_is_refused",
    ),
    Mutant(
        "a renewal may keep its key",
        "ca/issue.py",
        "    if key == by_key:",
        "    if False:",
        "tests/unit/ca/test_renew.py::test_renewal_for_the_same_key_is_refused",
    ),
    Mutant(
        "an interface's name may be filter rules",
        "proxy/netagent/plan.py",
        'if not _INTERFACE_NAME.fullmatch(settings.interface) or settings.interface in {".", ".."}:',
        "if False:",
        "tests/unit/proxy/netagent/test_plan.py::test_an_interface_name_cannot_write_filter_rules",
    ),
    Mutant(
        "nothing under the tunnel's routes",
        "proxy/netagent/plan.py",
        "interlock_routes=tuple(Route(member, None) for member in members),",
        "interlock_routes=(),",
        "tests/unit/proxy/netagent/test_plan.py::test_every_member_is_unreachable_when_the_tunnel_is_gone",
    ),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what the tests need."""
    to = tmp_path_factory.mktemp("tree")
    for folder in ("proxy", "ca", "policy", "tests"):
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "tencrypt.py"):
        shutil.copy(ROOT / file, to)
    return to


def run(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    # The tree stands before the installed package on the path.
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_check_cannot_be_lost_unnoticed(mutant: Mutant, copy: Path) -> None:
    wholes = {copy / file: (copy / file).read_text() for file, _, _ in mutant.edits()}
    for file, old, new in mutant.edits():
        text = (copy / file).read_text()
        assert text.count(old) == 1, f"{file} holds the check {text.count(old)} times"
        (copy / file).write_text(text.replace(old, new))
    try:
        result = run(copy, mutant.test)
    finally:
        for path, whole in wholes.items():
            path.write_text(whole)
    assert result.returncode == 1, result.stdout[-2000:] + result.stderr[-2000:]
    assert " failed" in result.stdout.splitlines()[-1]
