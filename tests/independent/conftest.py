"""A real pod, `real`, and pods without Tencrypt in which independent clients live, one in each."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest
from independent.client import Client
from independent.identity import enrol
from support.capture import SESSION_PORT
from support.namespaces import BRIDGE_IPV4, Fabric, Pod, clean_stale
from support.project import Project
from support.servers import SOCKET_SECONDS, bound
from support.tencrypt import CA_PORT, NAMESPACE

CLIENTS = 80
RECEIVE_BUFFER = 8 << 20  # what a pod sends at once, while a busy machine does other things
SO_RCVBUFFORCE = 33  # asm-generic/socket.h


@pytest.fixture(scope="session")
def project() -> Iterator[Project]:
    """One project: the real pod runs, the others are members that nothing protects."""
    clean_stale()
    with Fabric("real", *(f"client{n}" for n in range(CLIENTS))) as fabric:
        made = Project(fabric)
        made.start("real")
        yield made
        made["real"].stop()


@pytest.fixture(scope="session")
def free_pods(project: Project) -> Iterator[Pod]:
    """Give pods that no test has used."""
    return _each_once(project)


def _each_once(project: Project) -> Iterator[Pod]:
    yield from (pod for name, pod in project.fabric.pods.items() if name != "real")
    pytest.fail(f"the tests need more than {CLIENTS} pods: raise CLIENTS")


@pytest.fixture
def real(project: Project) -> Pod:
    return project.fabric["real"]


@pytest.fixture
def make_client(project: Project, free_pods: Iterator[Pod]) -> Iterator[Callable[[], Client]]:
    """Give clients in pods of their own, with certificates of the project's CA."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(client_in(next(free_pods), project))


@pytest.fixture
def client(make_client: Callable[[], Client]) -> Client:
    return make_client()


@pytest.fixture
def ipv6_client(project: Project, free_pods: Iterator[Pod]) -> Iterator[Client]:
    with client_in(next(free_pods), project, version=6) as made:
        yield made


@pytest.fixture
def outsider(project: Project, free_pods: Iterator[Pod]) -> Iterator[Client]:
    """Give a client with a certificate of the same CA for another namespace."""
    with client_in(next(free_pods), project, namespace="other") as made:
        yield made


@contextlib.contextmanager
def client_in(
    pod: Pod, project: Project, version: int = 4, namespace: str = NAMESPACE
) -> Iterator[Client]:
    """Enrol and open a client at the pod's session port."""

    def reach() -> socket.socket:
        reached = pod.socket(socket.AF_INET, socket.SOCK_STREAM)
        reached.settimeout(SOCKET_SECONDS)
        reached.connect((BRIDGE_IPV4, CA_PORT))
        return reached

    token = project.ca.token(pod, namespace=namespace)
    credential = enrol(reach, project.ca.fingerprint, token)
    address = pod.ipv4 if version == 4 else pod.ipv6
    with bound(pod, address, socket.SOCK_DGRAM, SESSION_PORT) as own:
        own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        yield Client(own, credential)
