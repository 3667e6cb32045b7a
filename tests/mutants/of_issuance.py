"""Checks of the CA, and of the pod towards it, each taken out."""

from mutants.mutant import UNIT, Mutant

MUTANTS = [
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
        "another pod's certificate is taken",
        "proxy/drivers/enrolment.py",
        "        self._check_ours(credential.own)\n",
        "",
        f"{UNIT}/drivers/test_enrolment.py::test_certificate_of_another_pod_is_not_taken_and_the_good_one_kept",
    ),
    Mutant(
        "any purpose renews",
        "policy/certificate.py",
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
]
