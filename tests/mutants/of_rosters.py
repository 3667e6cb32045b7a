"""Checks of signed rosters, at the CA and in pods, each taken out."""

from mutants.mutant import UNIT, Mutant

ROSTER = f"{UNIT}/credentials/test_roster.py"
EXCHANGE = f"{UNIT}/lists/test_exchange.py"
SERVER = "tests/unit/ca/drivers/test_server_roster.py"

MUTANTS = [
    Mutant(
        "any certificate of ours signs rosters",
        "proxy/credentials/roster.py",
        "        check_list_signer(verified[0], trust_domain)\n",
        "",
        f"{ROSTER}::test_pods_certificate_signs_no_roster",
    ),
    Mutant(
        "a list signer that is a server",
        "policy/certificate.py",
        "    if any(isinstance(each.value, x509.ExtendedKeyUsage) for each in extensions):",
        "    if False:",
        "tests/unit/ca/test_roster.py::test_certificate_that_is_nearly_a_list_signers_is_none",
    ),
    Mutant(
        "a list signer with other names",
        "policy/certificate.py",
        "    if uris != [lists_uri(trust_domain)] or len(names) != 1:",
        "    if uris != [lists_uri(trust_domain)]:",
        "tests/unit/ca/test_roster.py::test_certificate_that_is_nearly_a_list_signers_is_none",
    ),
    Mutant(
        "a list signer for ever",
        "proxy/credentials/roster.py",
        "        check_times(verified, wall)\n",
        "",
        f"{ROSTER}::test_signer_counts_while_its_certificate_lasts",
    ),
    Mutant(
        "a signature made for something else",
        "proxy/credentials/roster.py",
        "envelope.signature, CONTEXT + envelope.payload,",
        "envelope.signature, envelope.payload,",
        f"{ROSTER}::test_signature_made_for_something_else_is_refused",
    ),
    Mutant(
        "a roster of another project",
        "proxy/credentials/roster.py",
        "    if (roster.trust_domain, roster.namespace) != (trust_domain, namespace):",
        "    if False:",
        f"{ROSTER}::test_roster_of_another_project_is_refused",
    ),
    Mutant(
        "a roster whose time is over",
        "proxy/credentials/roster.py",
        "    if roster.next <= wall:",
        "    if False:",
        f"{ROSTER}::test_roster_counts_from_a_minute_before_its_issue_until_its_time_is_over",
    ),
    Mutant(
        "a former roster in the place of ours",
        "proxy/credentials/roster.py",
        "    if former is not None and roster.age_key < former.age_key:",
        "    if False:",
        f"{ROSTER}::test_older_roster_is_refused_and_a_newer_one_taken",
    ),
    Mutant(
        "a version forgotten by a restart",
        "ca/namespace.py",
        "max(now, 1 + max(known, default=0))",
        "now",
        f"{SERVER}::test_version_outlives_the_server",
    ),
    Mutant(
        "a roster for an ended certificate",
        "ca/drivers/rosters.py",
        "        require_live(caller, wall)\n",
        "",
        f"{SERVER}::test_certificate_that_has_ended_gets_no_roster_although_it_can_be_renewed",
    ),
    Mutant(
        "a roster for who is on no record",
        "ca/drivers/rosters.py",
        "        except (KeyError, Refused):  # nobody is refused by what we remember\n"
        "            require_lease(caller, (await self._read(namespace)).leases)\n",
        "        except (KeyError, Refused):\n            pass\n",
        f"{SERVER}::test_genuine_certificate_that_is_on_no_record_gets_no_roster",
    ),
    Mutant(
        "addresses given back by a former key",
        "ca/release.py",
        "if (one.key, one.pod, one.namespace) == whose)",
        "if whose[0] in {one.key, one.previous})",
        "tests/unit/ca/test_roster.py::test_only_the_latest_key_gives_addresses_back",
    ),
    Mutant(
        "a liar is asked again and again",
        "proxy/lists/exchange.py",
        "        self._put_off[key] = now + PUT_OFF\n",
        "",
        f"{EXCHANGE}::test_liar_is_asked_once_and_the_list_in_use_stays",
    ),
    Mutant(
        "a list of any size",
        "proxy/lists/fetch.py",
        "if part.total != total or total > LARGEST_ENVELOPE or",
        "if part.total != total or",
        f"{EXCHANGE}::test_list_that_is_larger_than_any_is_not_fetched",
    ),
    Mutant(
        "answers without a pace",
        "proxy/lists/exchange.py",
        "        if not pace.has(now) or not self._pace.has(now):",
        "        if False:",
        f"{EXCHANGE}::test_questions_of_one_pod_are_answered_at_a_pace_whatever_sessions_it_opens",
    ),
]
