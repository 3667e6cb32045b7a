"""What may block does not hold up the loop, and requests that come together share a write."""

import asyncio
import threading
from datetime import timedelta
from ipaddress import ip_address

import pytest
from support.authority import make_claims, make_csr_pem
from support.memory_ca import SIGNER, WALL, Memory

from ca.documents import StateError
from ca.drivers.counter import LARGEST_BATCH, Counter
from ca.drivers.service import Service
from ca.grant import Asked
from ca.issue import judge
from ca.messages import JoinClaims, SignRequest, encode
from ca.refusal import Refusal, Refused

PODS = 2 * LARGEST_BATCH + 5


def claims_of(number: int) -> JoinClaims:
    address = ip_address("10.1.0.1") + number
    return make_claims(f"{number:016x}", pod=f"web-{number}", addresses=(address,))


def service(documents: Memory, *, is_far: bool = True) -> Service:
    keep = (lambda: None) if is_far else None
    return Service(documents, SIGNER, timedelta(hours=1), lambda: WALL, lambda *_: None, keep)


def asked(documents: Memory, token_id: str) -> Asked:
    body = encode(SignRequest(make_csr_pem()))
    return Asked(judge(body), documents.records[token_id])


async def test_work_that_blocks_does_not_hold_up_the_loop() -> None:
    may_end = threading.Event()
    made = service(Memory())
    work = asyncio.get_running_loop().create_task(made.work(lambda: may_end.wait(10)))
    await asyncio.sleep(0)
    may_end.set()
    assert await work
    made.close()


@pytest.mark.parametrize("is_far", [True, False])
async def test_requests_that_come_together_share_a_write(*, is_far: bool) -> None:
    documents = Memory(*map(claims_of, range(PODS)))
    made = service(documents, is_far=is_far)
    counter = Counter(made)
    issued = await asyncio.gather(
        *(counter.ask(asked(documents, claims_of(number).id), "shop") for number in range(PODS))
    )
    assert {one.lease.pod for one in issued} == {f"web-{number}" for number in range(PODS)}
    assert set(documents.held) == {one.lease for one in issued}
    assert documents.read("namespaces/shop").version == 3
    made.close()


async def test_a_failed_write_is_told_to_all_who_shared_it_and_the_next_is_tried() -> None:
    documents = Memory(claims_of(1), claims_of(2))
    counter = Counter(service(documents, is_far=False))
    documents.is_full = True
    both = [counter.ask(asked(documents, claims_of(number).id), "shop") for number in (1, 2)]
    assert [type(one) for one in await asyncio.gather(*both, return_exceptions=True)] == [
        StateError,
        StateError,
    ]
    documents.is_full = False
    assert (await counter.ask(asked(documents, claims_of(1).id), "shop")).lease.pod == "web-1"


async def test_of_two_who_ask_for_one_address_together_one_has_it() -> None:
    mine, theirs = claims_of(1), make_claims("f" * 16, addresses=claims_of(1).addresses)
    documents = Memory(mine, theirs)
    counter = Counter(service(documents, is_far=False))
    both = [counter.ask(asked(documents, one.id), "shop") for one in (mine, theirs)]
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert documents.held == (first.lease,)  # type: ignore[union-attr]  # an exception has none
    assert isinstance(second, Refused)
    assert second.reason is Refusal.ADDRESS_HELD


async def test_who_does_not_wait_any_more_is_not_served() -> None:
    documents = Memory(claims_of(1), claims_of(2))
    counter = Counter(service(documents, is_far=False))
    loop = asyncio.get_running_loop()
    gone, waits = (
        loop.create_task(counter.ask(asked(documents, claims_of(number).id), "shop"))
        for number in (1, 2)
    )
    await asyncio.sleep(0)  # both have asked
    gone.cancel()
    await waits
    assert [lease.pod for lease in documents.held] == ["web-2"]
