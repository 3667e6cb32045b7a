"""Checks of roots, of who vouches for them, of rotation and of revocation, each taken out."""

from mutants.mutant import UNIT, Mutant

ROTATION = "tests/unit/ca/test_rotation.py"
LIVING = f"{UNIT}/drivers/test_rotation.py"

MUTANTS = [
    Mutant(
        "roots for which nobody vouches",
        "proxy/credentials/bundle.py",
        "        if not any(self._is_statement(one, uri) for one in vouched_untrusted.statements):",
        "        if False:",
        f"{ROTATION}::test_a_step_is_vouched_for_by_each_root_that_counts_and_pods_take_it",
    ),
    Mutant(
        "a statement on another bundle",
        "proxy/credentials/bundle.py",
        "        return uris == [uri] and len(names) == 1 and not is_ca",
        "        return len(uris) == 1",
        f"{ROTATION}::test_a_statement_on_another_bundle_is_worth_nothing",
    ),
    Mutant(
        "a tainted root's word",
        "proxy/credentials/bundle.py",
        "        others = (root for root in self.bundle.vouching if root != active)",
        "        others = (root for root in self.bundle.trusted if root != active)",
        f"{ROTATION}::test_a_tainted_roots_thief_changes_nothing_for_who_knows",
    ),
    Mutant(
        "a revoked issuer's word",
        "proxy/credentials/trust.py",
        "        self.check(verified)\n",
        "",
        f"{ROTATION}::test_a_revoked_issuers_word_counts_no_more",
    ),
    Mutant(
        "the CA below a revoked issuer",
        "proxy/drivers/ca_client.py",
        "                believed.check(_verified_chain(self))",
        "                pass",
        "tests/unit/proxy/drivers/test_ca_client.py::test_ca_below_a_revoked_issuer_hears_nothing",
    ),
    Mutant(
        "a forged list that keeps others out",
        "proxy/credentials/roster.py",
        '            self.roster, self.envelope = None, b""',
        "            pass",
        f"{UNIT}/credentials/test_roster.py::test_list_that_nobody_would_believe_any_more_keeps_no_other_out",
    ),
    Mutant(
        "an older bundle",
        "proxy/credentials/bundle.py",
        "        if bundle.version <= self.bundle.version:",
        "        if False:",
        f"{ROTATION}::test_an_older_bundle_is_not_taken_although_it_was_vouched_for",
    ),
    Mutant(
        "a gate without pods",
        "ca/rotation.py",
        '    if missing:\n        raise GateError("do not go by',
        '    if False:\n        raise GateError("do not go by',
        f"{ROTATION}::test_pods_that_do_not_go_by_the_bundle_stand_in_the_way_by_name",
    ),
    Mutant(
        "a root taken out under live certificates",
        "ca/rotation.py",
        "    if under:",
        "    if False:",
        f"{ROTATION}::test_pods_under_a_root_stand_in_its_way",
    ),
    Mutant(
        "a withdrawn pod's poll",
        "ca/drivers/rosters.py",
        "            check_not_revoked(latest.roster.revoked, caller.pod, account, (caller.serial,))",
        "            pass",
        f"{LIVING}::test_who_is_withdrawn_is_refused_at_every_door_and_peers_hear_of_it",
    ),
    Mutant(
        "a withdrawn certificate's renewal",
        "ca/grant.py",
        "        check_not_revoked(self._revoked, claims.pod, claims.service_account, serials)\n",
        "",
        f"{LIVING}::test_a_withdrawn_certificate_is_refused_and_its_pod_joins_anew",
    ),
    Mutant(
        "a spent token",
        "ca/grant.py",
        "    if used >= token.uses:",
        "    if False:",
        "tests/unit/ca/test_grant.py::test_token_for_two_uses_is_spent_by_two_and_an_answer_lost_costs_none",
    ),
    Mutant(
        "whoever writes last",
        "ca/drivers/file_documents.py",
        "                if self.read(name).version != version:",
        "                if False:",
        "tests/unit/ca/drivers/test_file_backend.py::test_only_the_latest_version_is_replaced",
    ),
    Mutant(
        "handshakes before anybody has told who is withdrawn",
        "proxy/session/registry.py",
        "        if now >= self.informed_until:",
        "        if False:",
        "tests/sim/test_trust.py::test_who_has_no_list_makes_no_session_either_way_and_one_that_grows_old_ends_none",
    ),
]
