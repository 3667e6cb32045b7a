"""The net agent and the TUN driver know sizes of the session by number: they must be the session's own."""

from proxy.drivers.tun import VNET_HEADER_SIZE
from proxy.netagent.plan import HELLO, MOST_SEGMENTS, RECORD_OVERHEAD, SUPER_PACKET
from proxy.packet import virtio
from proxy.packet.virtio import VNET_HEADER
from proxy.session import wire
from proxy.session.pieces import LARGEST_SEND
from proxy.session.wire import PREFIX, RECORD_HEADER, TAG


def test_tunnel_leaves_room_for_what_a_record_adds() -> None:
    assert RECORD_OVERHEAD == RECORD_HEADER + PREFIX + TAG == wire.RECORD_OVERHEAD


def test_driver_and_data_path_agree_on_the_virtio_header() -> None:
    assert VNET_HEADER_SIZE == VNET_HEADER


def test_plan_leaves_room_for_a_hello() -> None:
    assert HELLO == wire.HELLO_SIZE


def test_tunnel_puts_together_what_one_record_may_carry() -> None:
    assert MOST_SEGMENTS == virtio.MOST_SEGMENTS
    for datagram in (1200, 1432, 1452, 1472):
        room = LARGEST_SEND // datagram * (datagram - RECORD_HEADER)
        assert room >= PREFIX + SUPER_PACKET + TAG
