"""Join tokens and bodies: what goes in comes out, and of all else only MessageError escapes."""

import contextlib
import json
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.authority import make_claims

from ca.messages import (
    LARGEST_BODY,
    Bundle,
    ErrorResponse,
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
    root_fingerprint,
    token_hash,
)
from policy.identity import MOST_ADDRESSES

SECRET = bytes(range(32))
TOKEN = encode_token(make_claims(), SECRET)
CLAIMS = json.loads(encode_claims(make_claims()))

Message = SignRequest | SignResponse | Bundle | ErrorResponse
Parser = Callable[[bytes], Message]
BODIES: list[tuple[Parser, Message]] = [
    (parse_sign_request, SignRequest("csr")),
    (parse_sign_response, SignResponse(("leaf", "issuer"), {"any": "object"}, 1.5)),
    (parse_bundle, Bundle(("root", "next root"))),
    (parse_error, ErrorResponse("address_held", "10.0.0.1 is held")),
]


def test_token_gives_its_claims_back() -> None:
    assert parse_token(TOKEN) == make_claims()


def test_largest_claims_fit_a_token() -> None:
    name = "a" * 253
    addresses = tuple(ip_address(f"fd00:1111:2222:3333:4444:5555:6666:{n:04x}") for n in range(16))
    claims = make_claims(
        trust_domain="a" * 255,
        pod=name,
        namespace="a" * 63,
        service_account=name,
        addresses=addresses,
    )
    assert parse_token(encode_token(claims, SECRET)) == claims


@given(st.text() | st.builds(lambda cut, noise: TOKEN[:cut] + noise, st.integers(0), st.text()))
def test_whatever_a_token_is_only_message_error_escapes(text: str) -> None:
    with contextlib.suppress(MessageError):
        parse_token(text)


@pytest.mark.parametrize(
    "text",
    ["", "tct1", TOKEN + "\n", " " + TOKEN, TOKEN[:-1], TOKEN.replace("tct1", "tct2"), TOKEN + "A"],
)
def test_text_that_is_nearly_a_token_is_refused(text: str) -> None:
    with pytest.raises(MessageError, match="a join token"):
        parse_token(text)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "0123"},
        {"id": "0123456789ABCDEF"},
        {"id": "../../../../etc/x"},
        {"trust_domain": "Shop"},
        {"pod": ""},
        {"namespace": 7},
        {"service_account": "a/b"},
        {"addresses": []},
        {"addresses": "10.0.0.1"},
        {"addresses": [167772161]},
        {"expires": "1"},
        {"expires": True},
        {"expires": 0},
        {"expires": 1e9},
        {"expires": 1 << 41},
        {"more": 1},
    ],
)
def test_claims_with_a_wrong_part_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        parse_claims(json.dumps(CLAIMS | change).encode())


@pytest.mark.parametrize("key", CLAIMS)
def test_claims_without_a_part_are_refused(key: str) -> None:
    fields = {name: value for name, value in CLAIMS.items() if name != key}
    with pytest.raises(MessageError):
        parse_claims(json.dumps(fields).encode())


def test_key_that_comes_twice_is_refused() -> None:
    with pytest.raises(MessageError):
        parse_sign_request(b'{"csr": "a", "csr": "b"}')


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - an address that is refused
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "fd00::1%eth0",
        "::ffff:10.0.0.1",
        "10.0.0.0/24",
        "10.0.0.01",
        "pod",
        "",
    ],
)
def test_address_that_no_pod_has_is_refused(address: str) -> None:
    with pytest.raises(MessageError):
        check_addresses((address,))


def test_addresses_are_few_and_each_once() -> None:
    many = tuple(f"10.0.0.{n}" for n in range(1, MOST_ADDRESSES + 2))
    assert len(check_addresses(many[:-1])) == MOST_ADDRESSES
    for wrong in (many, ("10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00:0::1"), ()):
        with pytest.raises(MessageError):
            check_addresses(wrong)


@pytest.mark.parametrize(("parse", "message"), BODIES)
def test_body_gives_its_message_back(parse: Parser, message: Message) -> None:
    assert parse(encode(message)) == message


@pytest.mark.parametrize(("parse", "message"), BODIES)
@given(data=st.data())
def test_whatever_a_body_is_only_message_error_escapes(
    data: st.DataObject, parse: Parser, message: Message
) -> None:
    good = encode(message)
    cut = data.draw(st.integers(0, len(good)))
    noise = data.draw(st.binary(max_size=60))
    fields = json.loads(good)
    wrong = {key: data.draw(_values) for key in fields}
    for body in (noise, good[:cut] + noise, json.dumps(wrong).encode()):
        with contextlib.suppress(MessageError):
            encode(parse(body))


_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@pytest.mark.parametrize("parse", [parse for parse, _ in BODIES])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", b"[" * LARGEST_BODY, b'{"csr": "%b"}' % bytes(20_000)]
)
def test_body_of_another_form_or_size_is_refused(parse: Parser, body: bytes) -> None:
    with pytest.raises(MessageError):
        parse(body)


@pytest.mark.parametrize("time", ["true", '"1"', "-1", "NaN", "Infinity", "1e300"])
def test_time_that_is_no_clocks_is_refused(time: str) -> None:
    with pytest.raises(MessageError, match="time"):
        parse_sign_response(b'{"chain": ["a"], "roots": ["b"], "time": %b}' % time.encode())


def test_errors_text_cannot_write_on_a_terminal() -> None:
    error = parse_error(encode(ErrorResponse("failed", "one\x1b[2Jtwo\nthree" + "x" * 1000)))
    assert error.message.isprintable()
    assert len(error.message) == 300


@pytest.mark.parametrize("prefix", ["", "sha256:", "SHA256:"])
def test_fingerprint_is_understood_as_tools_write_it(prefix: str) -> None:
    plain = root_fingerprint(b"certificate")
    digits = plain.removeprefix("sha256:")
    colons = ":".join(digits[i : i + 2] for i in range(0, 64, 2)).upper()
    for text in (digits, digits.upper(), colons, f"{colons}\n"):
        assert parse_fingerprint(prefix + text) == plain


@given(st.text())
def test_other_text_is_no_fingerprint(text: str) -> None:
    with pytest.raises(MessageError):
        parse_fingerprint(text)


def test_hash_covers_the_whole_token() -> None:
    other = encode_token(make_claims(pod="web-2"), SECRET)
    assert len({token_hash(text) for text in (TOKEN, other, TOKEN[:-1] + "_")}) == 3
