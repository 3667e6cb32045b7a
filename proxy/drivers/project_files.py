"""The files that the settings name, rules and endpoints: at the start, and read again when they change."""

from dataclasses import dataclass
from pathlib import Path

from policy.identity import PodIdentity
from policy.rules import Rules, RulesError, parse_rules
from proxy.drivers import file_watch
from proxy.flow.endpoints_file import ServicesError, parse_services
from proxy.flow.services import Services
from proxy.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Files:
    """What they say."""

    rules: Rules
    services: Services


def read_files(settings: Settings) -> Files:
    """Read them: a pod that shall have rules, or endpoints, does not start without. Raises SettingsError."""
    project, rules, services = settings.project, Rules(), Services()
    try:
        if (path := project.rules_file) is not None:
            rules = read_rules(file_watch.read(Path(path)), path, settings.identity)
        if (path := project.endpoints_file) is not None:
            services = read_services(file_watch.read(Path(path)), path, settings.identity)
    except (RulesError, ServicesError) as error:
        raise SettingsError(str(error)) from None
    return Files(rules, services)


def read_rules(read: str | OSError, path: str, own: PodIdentity) -> Rules:
    """Return the rules of a file that was read, or was not; raises `RulesError`."""
    if isinstance(read, OSError):
        raise RulesError(f"{path}: {read.strerror}")
    return parse_rules(read, path, own.trust_domain, own.namespace)


def read_services(read: str | OSError, path: str, own: PodIdentity) -> Services:
    """Return the Services of a file that was read, or was not; raises `ServicesError`."""
    if isinstance(read, OSError):
        raise ServicesError(f"{path}: {read.strerror}")
    return parse_services(read, path, own.namespace)
