"""Join tokens and JSON bodies: what is written is read, and nothing but `MessageError` comes of the rest."""

import contextlib
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.messages import (
    LARGEST_BODY,
    Address,
    Bundle,
    ErrorResponse,
    JoinClaims,
    MessageError,
    SignRequest,
    SignResponse,
    check_addresses,
    encode,
    encode_claims,
    encode_token,
    parse_bundle,
    parse_claims,
    parse_error,
    parse_fingerprint,
    parse_sign_request,
    parse_sign_response,
    parse_token,
    token_hash,
)

CLAIMS = JoinClaims(
    id="0123456789abcdef",
    trust_domain="shop.example",
    pod="web-1",
    namespace="shop",
    service_account="web",
    addresses=(IPv4Address("10.0.0.1"), IPv6Address("fd00::1")),
    expires=1_800_000_000,
)
SECRET = bytes(range(32))
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
POD_ADDRESS: st.SearchStrategy[Address] = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).filter(
    lambda address: _acceptable(str(address))
)


def _acceptable(text: str) -> bool:
    try:
        check_addresses((text,))
    except MessageError:
        return False
    return True


@given(
    st.builds(
        JoinClaims,
        id=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
        trust_domain=st.from_regex(r"[a-z0-9._-]{1,255}", fullmatch=True),
        pod=LABEL,
        namespace=LABEL,
        service_account=LABEL,
        addresses=st.lists(POD_ADDRESS, min_size=1, max_size=16, unique=True).map(tuple),
        expires=st.integers(1, (1 << 40) - 1),
    ),
    st.binary(min_size=32, max_size=32),
)
def test_a_token_says_what_it_was_made_for(claims: JoinClaims, secret: bytes) -> None:
    assert parse_token(encode_token(claims, secret)) == claims


def test_the_largest_token_fits_a_header() -> None:
    claims = JoinClaims(
        id="f" * 16,
        trust_domain="a" * 255,
        pod="b" * 253,
        namespace="c" * 63,
        service_account="d" * 253,
        addresses=tuple(IPv6Address((1 << 128) - (1 << 121) - 1 - n) for n in range(16)),
        expires=(1 << 40) - 1,
    )
    token = encode_token(claims, SECRET)
    assert parse_token(token) == claims
    assert len(f"Bearer {token}") < 8190  # what an HTTP server commonly takes


@given(st.integers(0, 400), st.text(max_size=40))
def test_a_tokens_prefix_with_noise_raises_nothing_else(cut: int, noise: str) -> None:
    with contextlib.suppress(MessageError):
        parse_token(encode_token(CLAIMS, SECRET)[:cut] + noise)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_claims_prefix_with_noise_raises_nothing_else(noise: bytes, cut: int) -> None:
    with contextlib.suppress(MessageError):
        parse_claims(encode_claims(CLAIMS)[:cut] + noise)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
PARSERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (parse_claims, encode_claims(CLAIMS)),
    (parse_sign_request, encode(SignRequest("csr"))),
    (parse_sign_response, encode(SignResponse(("leaf",), ("root",), 1.5))),
    (parse_bundle, encode(Bundle(("root",)))),
    (parse_error, encode(ErrorResponse("csr_key", "why"))),
]


@pytest.mark.parametrize(("parse", "good"), PARSERS)
@given(data=st.data())
def test_a_field_of_any_other_kind_raises_nothing_else(
    parse: Callable[[bytes], object], good: bytes, data: st.DataObject
) -> None:
    fields = json.loads(good)
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(JSON)
    with contextlib.suppress(MessageError):
        parse(json.dumps(fields).encode())


@pytest.mark.parametrize(("parse", "good"), PARSERS)
@given(cut=st.integers(0, 300), noise=st.binary(max_size=60))
def test_a_bodys_prefix_with_noise_raises_nothing_else(
    parse: Callable[[bytes], object], good: bytes, cut: int, noise: bytes
) -> None:
    with contextlib.suppress(MessageError):
        parse(good[:cut] + noise)


@pytest.mark.parametrize(("parse", "good"), PARSERS)
def test_each_body_is_strict(parse: Callable[[bytes], object], good: bytes) -> None:
    parse(good)
    fields = json.loads(good)
    key = next(iter(fields))
    missing = {name: value for name, value in fields.items() if name != key}
    doubled = b'{"%s": 1, ' % key.encode() + good[1:]
    for bad in (
        json.dumps(missing).encode(),
        json.dumps({**fields, "more": 1}).encode(),
        json.dumps({**fields, key: None}).encode(),
        doubled,
        good + b" " * LARGEST_BODY,
        json.dumps([fields]).encode(),
        b"[" * 10_000,
        b"",
        b"\xff",
    ):
        with pytest.raises(MessageError):
            parse(bad)


def test_messages_are_read_as_they_were_written() -> None:
    assert parse_sign_request(encode(SignRequest("csr"))) == SignRequest("csr")
    response = SignResponse(("leaf", "middle"), ("root",), 1_800_000_000.25)
    assert parse_sign_response(encode(response)) == response
    assert parse_bundle(encode(Bundle(("a", "b")))) == Bundle(("a", "b"))
    assert parse_error(encode(ErrorResponse("csr_key", "why"))) == ErrorResponse("csr_key", "why")


@pytest.mark.parametrize("time", ["NaN", "Infinity", "-1", "0", "true", '"1"', "1e300"])
def test_a_time_is_a_moment(time: str) -> None:
    with pytest.raises(MessageError):
        parse_sign_response(b'{"chain": ["a"], "roots": ["b"], "time": %s}' % time.encode())


def test_an_errors_message_cannot_control_a_terminal() -> None:
    message = parse_error(encode(ErrorResponse("failed", "a\x1b[2J\nb\ud800"))).message
    assert message == "a [2J b "


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "0.0.0.0",  # noqa: S104 - refused
        "::",
        "224.0.0.1",
        "ff02::1",
        "169.254.1.1",
        "fe80::1",
        "fd00::1%eth0",
        "::ffff:10.0.0.1",
        "255.255.255.255",
        "10.0.0.0/24",
        "10.0.0.01",
        "web-1",
        "",
    ],
)
def test_an_address_is_one_that_a_pod_can_have(address: str) -> None:
    with pytest.raises(MessageError):
        check_addresses((address,))


def test_addresses_are_few_and_each_once() -> None:
    many = tuple(str(ip_address(0x0A000000 + n)) for n in range(17))
    assert len(check_addresses(many[:16])) == 16
    for bad in ((), many, ("10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00:0::1")):
        with pytest.raises(MessageError):
            check_addresses(bad)


def test_an_addresss_error_cannot_control_a_terminal() -> None:
    with pytest.raises(MessageError) as told:
        check_addresses(("fd00::1%\x1b[2J",))
    assert str(told.value).isprintable()


@pytest.mark.parametrize("write", [str.upper, str.lower, lambda text: text.removeprefix("sha256:")])
def test_a_fingerprint_is_understood_in_every_usual_form(write: Callable[[str], str]) -> None:
    digits = token_hash("any")
    colons = ":".join(digits[i : i + 2] for i in range(0, 64, 2))
    for text in (f"sha256:{digits}", f"sha256:{colons}"):
        assert parse_fingerprint(write(text)) == f"sha256:{digits}"


@given(st.text(max_size=80))
def test_other_text_is_no_fingerprint(text: str) -> None:
    with pytest.raises(MessageError):
        parse_fingerprint(text + "z")
