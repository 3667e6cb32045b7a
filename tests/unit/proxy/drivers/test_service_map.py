"""Which virtual addresses are members, whom a call to one may find, and what the next daemon takes up."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.endpoints import endpoint, read, served, text_of
from support.settings_text import PROJECT

from policy.identity import PodIdentity
from proxy.drivers import connections
from proxy.drivers.service_map import ServiceMap
from proxy.flow.membership import Membership
from proxy.flow.services import Services
from proxy.packet.name import made_name
from proxy.packet.rewrite import End
from proxy.packet.upper import TCP

OWN, ONE, TWO, VIP, OUTSIDE = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.80", "192.0.2.1"
RANGES = (ip_network("10.0.0.0/24"),)
IDENTITY = PodIdentity("shop.example", "shop", "web")


def packed(text: str) -> bytes:
    return ip_address(text).packed


class Made:
    """A map, its members, and whether the list of pods has come."""

    def __init__(
        self, path: Path, services: Services | None = None, *, strict: bool = True
    ) -> None:
        self.members = Membership(
            own=(ip_address(OWN),), members=(), ranges=RANGES, permissive=not strict
        )
        self.listed = True
        self.map = ServiceMap(
            replace(PROJECT, members=(), ranges=RANGES, strict=strict),
            IDENTITY,
            addresses=(ip_address(OWN),),
            members=self.members,
            services=Services() if services is None else services,
            journals=path / "pod",
            knows_pods=lambda: self.listed,
        )

    def source(self, text: str) -> str:
        return self.members.judge(packed(text)).source

    def roster(self, *texts: str) -> None:
        self.members.roster({packed(text): "pod" for text in texts})
        self.map.refresh()


def test_in_strict_mode_virtual_addresses_and_endpoints_inside_are_members(tmp_path: Path) -> None:
    made = Made(tmp_path, read(*served(VIP, 80, [ONE, OUTSIDE])))
    assert [made.source(one) for one in (VIP, ONE, TWO)] == ["service", "service", "range"]
    assert made.source(OUTSIDE) == "outside"


def test_in_permissive_mode_a_virtual_address_is_one_once_all_who_serve_it_have_certificates(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path, read(*served(VIP, 80, [ONE, TWO])), strict=False)
    assert made.source(VIP) == "range"
    made.roster(ONE)
    assert made.source(VIP) == "range"
    assert made.map.unpatched(packed(VIP)) == [TWO]
    made.roster(ONE, TWO)
    assert made.source(VIP) == "service"
    # For good: who comes without one is called by nobody.
    made.roster(ONE)
    assert made.source(VIP) == "service"
    for port in range(1000, 1020):
        name = made_name(End(packed(OWN), port), End(packed(VIP), 80), TCP)
        chosen = made.map.translation._choose(name, 0.0)
        assert chosen is not None
        assert chosen.address == packed(ONE)


def test_a_service_that_nobody_serves_is_no_member_where_clear_is_permitted(tmp_path: Path) -> None:
    gone = endpoint(ONE, ready=False)
    made = Made(tmp_path, read(*served(VIP, 80, [gone])), strict=False)
    made.roster(ONE)
    assert made.source(VIP) == "range"


@pytest.mark.parametrize("listed", [True, False])
def test_any_pod_may_answer_for_an_address_that_only_a_name_of_the_project_has(
    tmp_path: Path, *, listed: bool
) -> None:
    made = Made(tmp_path)
    made.listed = listed
    for address in (ONE, VIP):
        made.members.zone(packed(address), "web.shop.svc.cluster.local", 60, 0.0)
    made.roster(ONE)
    assert made.map.translation.may_meet(packed(VIP)) is listed
    assert not made.map.translation.may_meet(packed(ONE)), "the list says that it is a pod's"
    assert not made.map.translation.may_meet(packed(TWO)), "nothing says whose it is"


def test_open_connections_keep_their_endpoints_over_a_restart_and_others_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [End(packed(OWN), port) for port in (1000, 1001)]
    names = [made_name(one, End(packed(VIP), 80), TCP) for one in here]
    before = Made(tmp_path, read(*served(VIP, 80, [TWO], 8080)))
    for name in names:
        before.map.translation.restore(name, 0.0)
    monkeypatch.setattr(connections, "connected", lambda: iter(names[:1]))
    after = Made(tmp_path, read(*served(VIP, 80, [ONE], 8080)))
    after.map.restore(0.0)
    flows = after.map.translation._flows
    found = flows.find(names[0], 0.0)
    assert found is not None
    assert found[0].target == End(packed(TWO), 8080)
    assert flows.find(names[1], 0.0) is None


async def test_a_wrong_file_leaves_the_last_valid_one_in_force(tmp_path: Path) -> None:
    made = Made(tmp_path)
    await made.map._take(text_of(*served(VIP, 80, [ONE])))
    assert made.source(VIP) == "service"
    for wrong in ("{", '{"items": 7}', OSError(2, "No such file or directory")):
        await made.map._take(wrong)
        assert made.source(VIP) == "service"
        assert made.map.status()["error"] is not None
    await made.map._take(text_of())
    assert made.source(VIP) == "range"
    assert made.map.status()["error"] is None
