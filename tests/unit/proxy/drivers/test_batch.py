"""What leaves together, and that nothing changes its order or content."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.drivers.batch import MOST, Batch
from proxy.outbound import Sending
from proxy.session.pieces import LARGEST_SEND, datagrams

HERE, THERE = ("10.0.0.1", 15443), ("10.0.0.2", 15443)
SIZES = st.one_of(st.sampled_from([52, 100, 1452]), st.integers(45, 2000))


def run(sendings: list[Sending]) -> list[Sending]:
    sent: list[Sending] = []

    def send(sending: Sending) -> None:
        data, size, endpoint, ecn = sending
        sent.append((bytes(data), size, endpoint, ecn))

    batch = Batch(send)
    for sending in sendings:
        batch.add(sending)
    batch.flush()
    batch.flush()
    return sent


def single(size: int, number: int = 0, endpoint: tuple[str, int] = HERE, ecn: int = 0) -> Sending:
    return bytes([number % 256]) * size, size, endpoint, ecn


@given(st.lists(st.tuples(SIZES, st.sampled_from([HERE, THERE]), st.integers(0, 3), st.booleans())))
def test_each_datagram_leaves_once_in_order_and_as_the_kernel_will_cut_it(
    drawn: list[tuple[int, tuple[str, int], int, bool]],
) -> None:
    given_sendings: list[Sending] = []
    for number, (size, endpoint, ecn, several) in enumerate(drawn):
        data, *_ = single(size, number)
        given_sendings.append((bytes(data) * (3 if several else 1), size, endpoint, ecn))

    sent = run(given_sendings)

    def flat(sendings: list[Sending]) -> list[tuple[bytes, tuple[str, int], int]]:
        return [
            (bytes(one), endpoint, ecn)
            for data, size, endpoint, ecn in sendings
            for one in datagrams(data, size)
        ]

    assert flat(sent) == flat(given_sendings)
    for data, size, _, _ in sent:
        assert len(data) <= LARGEST_SEND
        assert -(-len(data) // size) <= MOST


def test_datagrams_of_one_size_are_one_send_which_a_shorter_one_ends() -> None:
    sizes = [len(data) for data, *_ in run([single(n) for n in (100, 100, 100, 60, 100, 100, 120)])]

    assert sizes == [360, 200, 120]


def test_a_send_holds_no_more_than_kernels_take() -> None:
    assert [len(data) for data, *_ in run([single(60)] * 130)] == [64 * 60, 64 * 60, 120]
    assert [len(data) for data, *_ in run([single(1452)] * 50)] == [45 * 1452, 5 * 1452]
