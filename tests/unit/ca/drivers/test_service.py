"""What asks a signer over a network is done one after another, and to its end."""

import asyncio
import threading
from datetime import timedelta

from support.memory_ca import SIGNER, WALL
from unit.ca.test_roster import Records

from ca.drivers.service import Service


def service() -> Service:
    return Service(
        Records(), SIGNER, timedelta(hours=1), lambda: WALL, lambda *_: None, lambda: None
    )


async def test_work_that_nobody_waits_for_any_more_is_done_before_the_next_begins() -> None:
    made, may_end, has_begun = service(), threading.Event(), asyncio.Event()
    order: list[str] = []
    loop = asyncio.get_running_loop()

    def slow() -> None:
        order.append("begun")
        loop.call_soon_threadsafe(has_begun.set)
        may_end.wait(10)
        order.append("ended")

    first = loop.create_task(made.in_turn(slow))
    await has_begun.wait()
    first.cancel()
    await asyncio.wait([first])
    second = loop.create_task(made.in_turn(lambda: order.append("next")))
    await asyncio.sleep(0.05)
    assert order == ["begun"]
    may_end.set()
    await second
    assert order == ["begun", "ended", "next"]


async def test_work_whose_caller_went_before_its_turn_is_not_done() -> None:
    made, may_end, has_begun = service(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    done: list[str] = []

    def slow() -> None:
        loop.call_soon_threadsafe(has_begun.set)
        may_end.wait(10)

    first = loop.create_task(made.in_turn(slow))
    await has_begun.wait()
    second = loop.create_task(made.in_turn(lambda: done.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    may_end.set()
    await first
    await made.in_turn(lambda: done.append("third"))
    assert done == ["third"]


async def test_the_loop_goes_on_meanwhile() -> None:
    made, may_end = service(), threading.Event()
    waiting = asyncio.get_running_loop().create_task(made.in_turn(lambda: may_end.wait(10)))
    await asyncio.sleep(0)
    may_end.set()
    assert await waiting
