"""The demo: one curl between two Services, patched one after the other, and those who listen, lie and forge.

Run by `make demo`, as root. Exit codes: 0 the story held, 1 it did not, 130 interrupted.
"""

import secrets
import signal
import sys
import time
from types import FrameType

from demo.stage import HTTP, OUTSIDE, OUTSIDE_NAME, PODS, VIRTUAL, Stage
from demo.telling import (
    DIM,
    GREEN,
    RED,
    StoryBrokenError,
    heading,
    quote,
    say,
    show_clear,
    show_sealed,
    show_table,
)
from support.capture import Capture
from support.forge import claim, send_forged_udp
from support.kernel_state import refused_count
from support.namespaces import BRIDGE_IPV4, Fabric, Pod, clean_stale
from support.processes import HarnessError
from support.servers import iperf3
from support.tencrypt import Proxy

IPERF3_SECONDS = 2


def main() -> int:
    """Tell the story; everything it made is gone afterwards, however it ends."""
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        for left in clean_stale():
            say(f"Removed what an earlier run left: {left}", DIM)
        with Fabric(*PODS) as fabric:
            tell(fabric)
    except KeyboardInterrupt:
        print("\nInterrupted; everything is cleaned up.")
        return 130
    except (StoryBrokenError, HarnessError) as error:
        say(f"\nThe story did not hold: {error}", RED)
        for note in getattr(error, "__notes__", []):
            say(note, DIM)
        return 1
    return 0


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """End the story at the first signal; later ones must not disturb the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def tell(fabric: Fabric) -> None:
    """Tell it, chapter by chapter."""
    started = time.monotonic()  # noqa: TID251 - the demo says how long it took
    stage = Stage(fabric, f"letmein-{secrets.token_hex(4)}")
    introduce(stage)
    plain = in_clear(stage)
    one_patched(stage)
    proxies, sealed, protected = both_strict(stage)
    what_stays_clear(stage)
    the_spy(stage, proxies)
    heading("7. What protects it")
    show_table(proxies[0].status(), sealed.kinds(), plain, protected)
    for proxy in proxies:
        if proxy.stop() != 0:
            raise StoryBrokenError(f"{proxy.pod.label}: the orderly stop failed")
    seconds = time.monotonic() - started  # noqa: TID251 - as above
    say(f"\nThe story held. {seconds:.0f} s.", GREEN)


def introduce(stage: Stage) -> None:
    """Say who is there."""
    heading("1. Two Services on a bridge, as Kubernetes makes them")
    for pod in (stage.one, stage.two):
        print(f"   {pod.label}   pod {pod.ipv4}, Service {VIRTUAL[pod.label]}, nginx")
    print(f"   router   {stage.router.ipv4}, an ingress router of another project")
    print(f"   spy      {stage.spy.ipv4}, on the same bridge")
    print(f"   The node translates the Services ({BRIDGE_IPV4}, nftables) and serves their names.")


def in_clear(stage: Stage) -> float:
    """Show the request before anything protects it; bits per second of the plain bridge."""
    heading("2. Without Tencrypt")
    show_clear(request(stage, "nginx2"), stage.secret)
    return iperf3(stage.one, stage.two, stage.two.ipv4, IPERF3_SECONDS)


def one_patched(stage: Stage) -> None:
    """Show that a pod that has Tencrypt changes nothing for one that has not, while that is permitted."""
    heading('3. Tencrypt in nginx1 alone, encryption = "permissive"')
    ca = stage.project.ca
    print(f"   CA of {ca.trust_domain} at {ca.address}\n   root {ca.fingerprint}")
    start(stage, stage.one, "permissive")
    show_clear(request(stage, "nginx2"), stage.secret)
    answer = stage.curl(stage.two, "nginx1")
    if "200 OK" not in answer:
        raise StoryBrokenError("nginx2 does not reach nginx1, which is permissive")
    print("   nginx2$ curl -I http://nginx1/   HTTP/1.1 200 OK, in clear as before")


def both_strict(stage: Stage) -> tuple[list[Proxy], Capture, float]:
    """Show the same request sealed; the proxies, what was seen, and bits per second."""
    heading('4. Tencrypt in both, encryption = "strict"')
    clear_in = [f"{stage.router.ipv4} tcp/{HTTP}"]
    proxies = [
        start(stage, stage.one, "strict"),
        start(stage, stage.two, "strict", clear_in=clear_in),
    ]
    capture = request(stage, "nginx2")
    show_sealed(capture, stage.secret.encode(), b"HTTP/", b"Server:")
    print("   nginx1$ tencrypt explain nginx2.shop.svc.cluster.local")
    quote(stage.ask(proxies[0], "explain", "nginx2.shop.svc.cluster.local"))
    return proxies, capture, iperf3(stage.one, stage.two, stage.two.ipv4, IPERF3_SECONDS)


def what_stays_clear(stage: Stage) -> None:
    """Show what is clear because it must be: the outside world, and listed exceptions (T5)."""
    heading("5. What stays in clear")
    expect(stage, stage.one, OUTSIDE_NAME, f"{OUTSIDE}, outside the cluster's ranges")
    listed = f"clear_in of nginx2 lists {stage.router.ipv4} tcp/{HTTP}"
    expect(stage, stage.router, stage.two.ipv4, listed)
    refuse(stage, stage.router, stage.one.ipv4, "nginx1 lists nobody")


def the_spy(stage: Stage, proxies: list[Proxy]) -> None:
    """Show a stranger on the bridge who calls, forges and lies (T1, T2), and gets nowhere."""
    heading("6. The spy")
    refuse(stage, stage.spy, stage.two.ipv4, "no certificate, no session")
    before = refused_count(stage.two, "refused_arriving")
    send_forged_udp(stage.spy, "eth0", stage.one.ipv4, stage.two, b"forged")
    if refused_count(stage.two, "refused_arriving") != before + 1:
        raise StoryBrokenError("a datagram with nginx1's address was not refused in nginx2")
    print("   A datagram in clear with nginx1's address: refused by nginx2's kernel, and counted.")
    stage.lie()
    for _ in range(3):
        claim(stage.spy, BRIDGE_IPV4, stage.one, stage.one.ipv4)
        time.sleep(0.4)
    print(
        f"   It says by ARP that it is {BRIDGE_IPV4}, the resolver, and answers nginx1's queries:"
    )
    taps = stage.captured()
    refuse(stage, stage.one, "nginx2", f"the name now has the spy's address, {stage.spy.ipv4}")
    answer = stage.curl(stage.one, OUTSIDE_NAME, "-H", f"Authorization: Bearer {stage.secret}")
    (capture,) = taps.stop().values()
    if "200 OK" not in answer or capture.holding(stage.secret.encode()):
        raise StoryBrokenError("an outside name with nginx2's address was not sealed")
    print(f"   nginx1$ curl -I http://{OUTSIDE_NAME}/   with nginx2's address: sealed, to nginx2")
    print("   nginx1$ tencrypt status   has no session with the spy:")
    quote("\n".join(str(one["peer"]["name"]) for one in proxies[0].status()["sessions"]))


def start(stage: Stage, pod: Pod, encryption: str, **more: list[str]) -> Proxy:
    """Run Tencrypt in a pod and say so."""
    proxy = stage.protect(pod, encryption=encryption, **more)
    listed = "".join(f", {key} = {value}" for key, value in more.items())
    print(f'   {pod.label}$ tencrypt run   ready (encryption = "{encryption}"{listed})')
    return proxy


def request(stage: Stage, host: str) -> Capture:
    """Make the story's request; what passed the bridge meanwhile."""
    taps = stage.captured()
    answer = stage.curl(stage.one, host, "-H", f"Authorization: Bearer {stage.secret}")
    (capture,) = taps.stop().values()
    print(f"   nginx1$ curl -I -H 'Authorization: Bearer {stage.secret}' http://{host}/")
    quote("\n".join(answer.splitlines()[:1]))
    if not answer.startswith("HTTP/1.1 200") or stage.secret not in answer:
        raise StoryBrokenError(f"nginx did not answer: {answer!r}")
    return capture


def expect(stage: Stage, client: Pod, host: str, why: str) -> None:
    """Have a request answered."""
    if "200 OK" not in stage.curl(client, host):
        raise StoryBrokenError(f"{client.label} does not reach {host}")
    print(f"   {client.label}$ curl -I http://{host}/   HTTP/1.1 200 OK   ({why})")


def refuse(stage: Stage, client: Pod, host: str, why: str) -> None:
    """Have a request come to nothing."""
    if stage.curl(client, host, seconds=7):
        raise StoryBrokenError(f"{client.label} reaches {host}")
    print(f"   {client.label}$ curl -I http://{host}/   no answer   ({why})")


if __name__ == "__main__":
    sys.exit(main())
