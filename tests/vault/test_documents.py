"""The CA's state in a real KV engine: compare-and-swap holds, and nothing that is lost reads as empty."""

import threading
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.authority import make_claims
from support.openbao import BaoError, OpenBao

from ca.documents import Document, StaleError, StateAwayError, StateError
from ca.drivers.vault import Vault
from ca.drivers.vault_documents import VaultDocuments
from ca.lease import Certified, Lease, lease_to
from ca.namespace import Namespace, parse, to_json
from ca.vault_plan import OPERATOR, POLICY
from ca.vault_settings import VaultSettings

SHOP = "namespaces/shop"


@pytest.fixture
def documents(vault: Vault) -> VaultDocuments:
    return VaultDocuments(vault, "tencrypt-kv")


def many(count: int) -> Namespace:
    leases: list[Lease] = []
    for number in range(count):
        claims = make_claims(
            f"{number:016x}",
            pod=f"web-{number:08x}-abcde",
            addresses=(ip_address("10.1.0.1") + number,),
        )
        issued = Certified(f"{number:040x}", f"{number * 7919:064x}", 1 << 31)
        leases += lease_to((), claims, issued, 0, f"{number * 104729:064x}")
    return Namespace().changed(1.0, leases)


def test_what_was_written_is_read_and_only_the_latest_is_replaced(
    documents: VaultDocuments,
) -> None:
    found = documents.read(SHOP)
    assert found == Document({}, 1)
    before = documents.state(SHOP)
    documents.write(SHOP, to_json(many(3)), 1)
    assert documents.state(SHOP) != before
    with pytest.raises(StaleError):
        documents.write(SHOP, {}, 1)
    assert parse(documents.read(SHOP).content) == many(3)


def test_thousands_of_pods_fit_a_mebibyte(bao: OpenBao, documents: VaultDocuments) -> None:
    record = many(5000)
    documents.write(SHOP, to_json(record), 1)
    assert parse(documents.read(SHOP).content) == record
    kept = bao.read(f"tencrypt-kv/data/{SHOP}")["data"]["data"]["zlib"]
    assert len(kept) < 1 << 20


def test_one_of_many_writers_at_once_succeeds(
    prepared: VaultSettings, documents: VaultDocuments
) -> None:
    barrier, won = threading.Barrier(6), []

    def write(number: int) -> None:
        own = VaultDocuments(Vault(prepared, lambda: 0.0), "tencrypt-kv")
        barrier.wait(10)
        try:
            own.write(SHOP, {"by": number}, 1)
        except StaleError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert documents.read(SHOP).content == {"by": won[0]}
    assert len(won) == 1


def test_a_lost_record_is_an_error_and_an_unknown_token_is_none(
    bao: OpenBao, documents: VaultDocuments
) -> None:
    assert documents.read("tokens/0123456789abcdef") == Document({}, 0)
    bao.delete(f"tencrypt-kv/metadata/{SHOP}")
    with pytest.raises(StateError, match="tencrypt-kv/data/namespaces/shop is not there"):
        documents.read(SHOP)


@pytest.mark.parametrize(
    "data", [{"zlib": "no base64!"}, {"zlib": "AAAA"}, {"zlib": "eJxLTAIAAkkBJg=="}]
)
def test_a_damaged_record_is_an_error(
    bao: OpenBao, documents: VaultDocuments, data: dict[str, str]
) -> None:
    bao.write(f"tencrypt-kv/data/{SHOP}", {"data": data, "options": {"cas": 1}})
    with pytest.raises(StateError, match="damaged"):
        documents.read(SHOP)


def test_a_vault_that_is_away_is_away_and_does_not_read_as_empty(
    bao: OpenBao, documents: VaultDocuments
) -> None:
    bao.seal()
    with pytest.raises(StateAwayError):
        documents.read(SHOP)


def test_the_server_makes_no_token_and_the_owner_grants_nothing(
    bao: OpenBao, prepared: VaultSettings
) -> None:
    token = {"data": {"hash": "x"}, "options": {"cas": 0}}
    server, owner = bao.token(POLICY), bao.token(OPERATOR)
    with pytest.raises(BaoError, match="403"):
        bao.write("tencrypt-kv/data/tokens/0123456789abcdef", token, token=server)
    bao.write("tencrypt-kv/data/tokens/0123456789abcdef", token, token=owner)
    record = {"data": {}, "options": {"cas": 1}}
    with pytest.raises(BaoError, match="403"):
        bao.write(f"tencrypt-kv/data/{SHOP}", record, token=owner)
    bao.write(f"tencrypt-kv/data/{SHOP}", record, token=server)
    assert Path(str(prepared.secret_file)).exists()
