"""A whole project on a fabric: its CA, and a proxy in each pod that shall have one."""

from collections.abc import Mapping, Sequence

from support.namespaces import Fabric, Pod
from support.tencrypt import READY_SECONDS, ProjectCA, Proxy, Setting


class Project:
    """The pods of a fabric, all of them members of one project; protected once `start`ed."""

    def __init__(
        self,
        fabric: Fabric,
        settings: Mapping[str, Setting] | None = None,
        *,
        ca_options: Sequence[str] = (),
    ) -> None:
        """Make and serve the project's CA; `settings` overrides keys of each pod's configuration."""
        self.settings = settings or {}
        self.fabric = fabric
        self.ca = ProjectCA(fabric, serve_options=ca_options)
        self.members = [address for pod in fabric.pods.values() for address in (pod.ipv4, pod.ipv6)]
        self.proxies: dict[str, Proxy] = {}

    def __getitem__(self, pod_name: str) -> Proxy:
        """Give the proxy of that pod."""
        return self.proxies[pod_name]

    def start(self, *pod_names: str) -> None:
        """Start proxies in these pods, in all if none is named; returns when all are ready."""
        pods: Sequence[Pod] = [self.fabric[n] for n in pod_names or self.fabric.pods]
        for pod in pods:
            self.proxies[pod.label] = Proxy(pod, self.ca, self.members, settings=self.settings)
            self.proxies[pod.label].start()
        for pod in pods:
            self.proxies[pod.label].wait_for_event("ready", READY_SECONDS)
