"""Names and SPIFFE ids: what is accepted, and that nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.identity import (
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

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
SUBDOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
TRUST_DOMAIN = st.from_regex(r"[a-z0-9._-]{1,60}", fullmatch=True)
GOOD = "spiffe://shop.example/ns/shop/sa/web"


@given(TRUST_DOMAIN, LABEL, SUBDOMAIN)
def test_a_pod_uri_is_read_as_it_was_written(td: str, namespace: str, account: str) -> None:
    identity = PodIdentity(td, namespace, account)
    assert parse_pod_uri(identity.uri) == identity


@given(st.integers(0, len(GOOD)), st.text(max_size=12))
def test_a_good_prefix_with_noise_raises_nothing_else(cut: int, noise: str) -> None:
    try:
        assert parse_pod_uri(GOOD[:cut] + noise).uri == GOOD[:cut] + noise
    except IdentityError:
        pass


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://shop.example",
        "spiffe://shop.example/ns/shop",
        "spiffe://shop.example/ns/shop/sa/",
        "spiffe://shop.example/ns/shop/sa/web/",
        "spiffe://shop.example/ns/shop/sa/web/more",
        "spiffe://shop.example//ns/shop/sa/web",
        "spiffe://Shop.example/ns/shop/sa/web",
        "SPIFFE://shop.example/ns/shop/sa/web",
        "spiffe://shop.example:443/ns/shop/sa/web",
        "spiffe://me@shop.example/ns/shop/sa/web",
        "spiffe://shop.example/ns/shop/sa/web?x=1",
        "spiffe://shop.example/ns/shop/sa/web#x",
        "spiffe://shop.example/ns/shop/sa/we%62",
        "spiffe://shop.example/ns/../sa/web",
        "spiffe://shop.example/ns/shop/sa/.",
        "spiffe://shop.example/ns/shop/sa/web\n",
        "spiffe://shop.example/ns/shop/sa/wéb",
        "spiffe://shop.example/ns/shop/sa/٣",
        "https://shop.example/ns/shop/sa/web",
        ca_uri("shop.example"),
        policy_uri("shop.example"),
        f"spiffe://{'a' * 256}/ns/shop/sa/web",
        f"spiffe://shop.example/ns/{'a' * 64}/sa/web",
        f"spiffe://shop.example/ns/shop/sa/{'a' * 254}",
        f"spiffe://{'a' * 2048}/ns/shop/sa/web",
    ],
)
def test_no_other_text_is_a_pod(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_pod_uri(uri)


@given(TRUST_DOMAIN)
def test_the_services_ids_are_never_a_pods(td: str) -> None:
    for uri in (ca_uri(td), policy_uri(td)):
        with pytest.raises(IdentityError):
            parse_pod_uri(uri)


@pytest.mark.parametrize(
    ("check", "good", "bad", "accepted"),
    [
        (check_trust_domain, "a_b-c.9", "shop example", "a trust domain: 1 to 255 of"),
        (check_namespace, "shop-1", "shop.1", "a namespace: 1 to 63 of"),
        (check_service_account, "web.v1-2", "web..v1", "a service account's name: up to 253 of"),
        (check_pod_name, "web-0.a", "-web", "a pod's name: up to 253 of"),
    ],
)
def test_a_refused_name_is_told_what_is_accepted(
    check: "type[str]", good: str, bad: str, accepted: str
) -> None:
    assert check(good) == good
    for text in (bad, "", good + "\n", good.upper(), "ä"):
        with pytest.raises(IdentityError, match=accepted):
            check(text)


def test_the_longest_names_fit() -> None:
    identity = PodIdentity("a" * 255, "b" * 63, "c" * 253)
    assert parse_pod_uri(identity.uri) == identity


def test_a_pods_dns_name_is_in_its_namespace() -> None:
    assert pod_dns_name("web-0", "shop") == "web-0.shop.pod"
