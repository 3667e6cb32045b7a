"""A stored chain is judged as the handshake would judge it now."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from support.pki import HOUR, START, Authority, Leaf

from ca.trust_bundle import fingerprint
from proxy.credentials.trust import NONE_REVOKED, Revocations, verify_again
from proxy.drops import Drop
from proxy.errors import Dropped

OURS, OTHERS = Authority(), Authority("other root")
POD = OURS.issue(Leaf())
CHAIN = tuple(certificate.public_bytes(Encoding.DER) for certificate in POD.chain)


def refusal(*authorities: Authority, chain: tuple[bytes, ...] = CHAIN) -> Drop:
    with pytest.raises(Dropped) as refused:
        verify_again(chain, [authority.root for authority in authorities])
    return refused.value.reason


def test_chain_of_a_root_that_is_believed_ends_there() -> None:
    assert verify_again(CHAIN, [OTHERS.root, OURS.root]) == [*POD.chain, OURS.root]


def test_chain_of_no_root_that_is_believed_is_refused() -> None:
    assert refusal(OTHERS) is refusal() is Drop.UNTRUSTED


def test_root_of_the_same_name_with_another_key_is_refused() -> None:
    assert refusal(Authority()) is Drop.UNTRUSTED


def test_altered_certificate_is_refused() -> None:
    leaf = CHAIN[0][:-1] + bytes((CHAIN[0][-1] ^ 1,))
    assert refusal(OURS, chain=(leaf,)) is Drop.UNTRUSTED
    assert refusal(OURS, chain=(b"noise",)) is Drop.UNTRUSTED


def test_time_is_left_to_the_corrected_clock() -> None:
    ended = OURS.issue(Leaf(begins=START - 2 * HOUR, ends=START - HOUR)).chain
    verified = verify_again([c.public_bytes(Encoding.DER) for c in ended], [OURS.root])
    assert verified[0] == ended[0]


@pytest.mark.parametrize(
    "revoked",
    [
        Revocations(serials=frozenset({POD.chain[0].serial_number})),
        Revocations(serials=frozenset({OURS.root.serial_number})),
        Revocations(pods=frozenset({POD.own.pod})),
        Revocations(service_accounts=frozenset({POD.own.identity.service_account})),
        Revocations(issuers=frozenset({fingerprint(OURS.root)})),
    ],
)
def test_list_names_certificates_issuers_and_pods(revoked: Revocations) -> None:
    with pytest.raises(Dropped) as refused:
        revoked.check([*POD.chain, OURS.root], POD.own)
    assert refused.value.reason is Drop.REVOKED


def test_others_on_the_list_are_no_concern() -> None:
    Revocations(frozenset({1}), *[frozenset({"another"})] * 3).check(POD.chain, POD.own)
    NONE_REVOKED.check(POD.chain, POD.own)
