"""SPIFFE ids and the names in them: what is accepted, and nothing beside it."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.identity import (
    LONGEST_URI,
    IdentityError,
    PodIdentity,
    ca_uri,
    check_namespace,
    check_pod_name,
    check_service_account,
    check_trust_domain,
    parse_pod_uri,
    pod_dns_name,
    policy_uri,
)

GOOD = "spiffe://shop.example/ns/shop/sa/web"

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
trust_domains = st.from_regex(r"[a-z0-9._-]{1,40}", fullmatch=True)
subdomains = st.lists(labels, min_size=1, max_size=4).map(".".join)


@given(st.builds(PodIdentity, trust_domains, labels, subdomains))
def test_identity_survives_its_uri(identity: PodIdentity) -> None:
    assert parse_pod_uri(identity.uri) == identity


@given(st.text() | st.builds(lambda cut, noise: GOOD[:cut] + noise, st.integers(0, 40), st.text()))
def test_whatever_the_text_only_identity_error_escapes(text: str) -> None:
    try:
        identity = parse_pod_uri(text)
    except IdentityError:
        return
    assert identity.uri == text


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://shop.example/ns/shop/sa/web",
        "SPIFFE://shop.example/ns/shop/sa/web",
        "spiffe:///ns/shop/sa/web",
        "spiffe://Shop.example/ns/shop/sa/web",
        "spiffe://shop.example:8443/ns/shop/sa/web",
        "spiffe://user@shop.example/ns/shop/sa/web",
        "spiffe://shop.example/ns/shop/sa/web?x=1",
        "spiffe://shop.example/ns/shop/sa/web#x",
        "spiffe://shop.example/ns/shop/sa/w%65b",
        "spiffe://shop.example/ns/shop/sa/web/",
        "spiffe://shop.example//ns/shop/sa/web",
        "spiffe://shop.example/ns/shop/sa/web\n",
        "spiffe://shop.example/ns/sh.op/sa/web",
        "spiffe://shop.example/ns/../sa/web",
        "spiffe://shop.example/ns/shop/sa/Web",
        "spiffe://shop.example/ns/shop/sa/-web",
        "spiffe://shop.example/ns/shop/sa/wéb",
        "spiffe://shop.example/ns/shop/sa/web/pod/web-1",
        "spiffe://shop.example/sa/web/ns/shop",
        f"spiffe://{'a' * LONGEST_URI}/ns/shop/sa/web",
    ],
)
def test_uri_of_any_other_form_is_refused(uri: str) -> None:
    with pytest.raises(IdentityError, match=r"a pod's id: |: 1 to |: up to "):
        parse_pod_uri(uri)


@pytest.mark.parametrize("uri", [ca_uri("shop.example"), policy_uri("shop.example")])
def test_services_ids_are_no_pods(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_pod_uri(uri)


@pytest.mark.parametrize(
    ("check", "longest", "wrong", "says"),
    [
        (check_trust_domain, 255, ["", "Shop", "a/b", "a:1", "é"], "a trust domain"),
        (check_namespace, 63, ["", "-a", "a-", "a.b", "A", "a\n"], "a namespace"),
        (check_service_account, 253, ["", ".a", "a.", "a..b", "a_b", "A"], "a service account"),
        (check_pod_name, 253, ["", ".a", "a.", "a-.b", "a/b", "a b"], "a pod's name"),
    ],
)
def test_names_are_checked_and_errors_say_what_is_accepted(
    check: Callable[[str], str], longest: int, wrong: list[str], says: str
) -> None:
    assert check("a" * longest) == "a" * longest
    for text in (*wrong, "a" * (longest + 1)):
        with pytest.raises(IdentityError, match=says):
            check(text)


def test_dns_name_names_the_single_pod() -> None:
    assert pod_dns_name("web-1", "shop") == "web-1.shop.pod"
