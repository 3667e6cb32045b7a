"""Vault, or OpenBao, asked by hvac: logged in, each address in turn, and again for a while where none answers.

Everything here may block for as long as `PATIENCE`: the loop leaves it to threads. A token is renewed when half its
life is over, by whoever asks next or by `Vault.keep`; one that is refused is replaced by logging in, once a request.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import hvac
import hvac.exceptions as failures
import requests

from ca.signer import SignerAwayError, SignerError
from ca.vault_settings import Auth, VaultSettings
from policy.drivers.files import read_text

PATIENCE: Final = 8.0
"""Seconds for one thing that is asked, all addresses and attempts included: below a pod's own for its request."""

REQUEST_SECONDS: Final = 3
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
_LARGEST_SECRET: Final = 16_384

_AWAY: Final = (
    OSError,  # requests' own are, and a file of roots or a certificate that is not there
    failures.InternalServerError,
    failures.VaultNotInitialized,
    failures.BadGateway,
    failures.VaultDown,
    failures.RateLimitExceeded,
    failures.UnexpectedError,
)
"""No answer, or one that says nothing about what was asked."""

Json = dict[str, Any]
T = TypeVar("T")


class VaultRefusedError(SignerError):
    """Vault answered, and refuses what was asked; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        """Keep both."""
        super().__init__(message)
        self.status = status


class Vault:
    """What is asked of Vault; any thread may."""

    def __init__(
        self,
        settings: VaultSettings,
        clock: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
        *,
        token: str = "",
    ) -> None:
        """Ask nothing yet. ``clock`` gives seconds that never go back; with ``token`` nothing logs in."""
        self._settings, self._clock, self._sleep = settings, clock, sleep
        self._lock = threading.Lock()
        self._clients = [self._client(address) for address in settings.addresses]
        self._first = 0
        self._token, self._is_given = token, bool(token)
        self._renew_at = float("inf")

    def _client(self, address: str) -> hvac.Client:
        settings = self._settings
        session = requests.Session()
        session.trust_env = False
        session.hooks["response"] = [_refuse_redirect]
        session.verify = settings.ca_file or True
        if settings.auth is Auth.CERT:
            session.cert = (str(settings.cert_file), str(settings.key_file))
        return hvac.Client(
            url=address,
            token="",
            timeout=REQUEST_SECONDS,
            namespace=settings.namespace or None,
            session=session,
            allow_redirects=False,
        )

    def read(self, path: str) -> Json | None:
        """Return what is there; None where nothing is. Raises `SignerError`."""
        try:
            return self.ask("GET", path)
        except VaultRefusedError as error:
            if error.status == 404:
                return None
            raise

    def names(self, path: str) -> list[str]:
        """Return the names below a path. Raises `SignerError`."""
        try:
            data = self.ask("LIST", path).get("data") or {}
            return [str(name) for name in data.get("keys") or ()]
        except VaultRefusedError as error:
            if error.status == 404:
                return []
            raise

    def write(self, path: str, fields: Mapping[str, object]) -> Json:
        """Do what a path does; return what it answers. Raises `SignerError`."""
        return self.ask("POST", path, fields)

    def ask(self, method: str, path: str, fields: Mapping[str, object] | None = None) -> Json:
        """Ask one thing of the first address that answers. Raises `SignerError`."""

        def one(client: hvac.Client) -> Json:
            answer = client.adapter.request(method, f"/v1/{path}", json=fields)
            return answer if isinstance(answer, dict) else {}

        return self._patiently(path, lambda: self._logged_in(path, one))

    def keep(self) -> None:
        """See that Vault answers, with a token that is good and stays so; raises `SignerError`. For a timer."""
        self.read("auth/token/lookup-self")

    def _patiently(self, what: str, attempt: Callable[[], T]) -> T:
        """Attempt again with growing pauses where nobody answers."""
        give_up, pause = self._clock() + PATIENCE, _FIRST_PAUSE
        while True:
            try:
                return attempt()
            except _AWAY as error:
                if self._clock() + pause + REQUEST_SECONDS > give_up:
                    addresses = ", ".join(self._settings.addresses)
                    raise SignerAwayError(f"{addresses}: {what}: {_reason(error)}") from None
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _logged_in(self, path: str, one: Callable[[hvac.Client], T]) -> T:
        """Ask with a token that is good, or was a moment ago."""

        def ask(client: hvac.Client) -> T:
            self._login_if_due(client)
            token = client.token = self._token
            try:
                return one(client)
            except (failures.Forbidden, failures.Unauthorized):
                # Ended or revoked meanwhile, or the policy refuses: a fresh token tells.
                self._login_again(client, token)
                client.token = self._token
                return one(client)

        try:
            return self._anywhere(ask)
        except (failures.Forbidden, failures.Unauthorized):
            message = f"{path}: permission denied: the policy of {self._whom()} does not allow it"
            raise VaultRefusedError(message, 403) from None
        except failures.InvalidPath:
            raise VaultRefusedError(f"{path}: nothing is there", 404) from None
        except failures.VaultError as error:
            if isinstance(error, _AWAY):
                raise
            raise VaultRefusedError(f"{path}: {_reason(error)}", 400) from None

    def _anywhere(self, ask: Callable[[hvac.Client], T]) -> T:
        """Ask the address that answered last; where it does not, the next, and that from now on."""
        told: Exception | None = None
        for _ in self._clients:
            first = self._first
            try:
                return ask(self._clients[first])
            except _AWAY as error:
                self._first = (first + 1) % len(self._clients)
                # What a Vault says tells more than that another one is silent.
                told = told if isinstance(told, failures.VaultError) else error
        if told is None:
            raise RuntimeError("there is an address at least")
        raise told

    def _login_if_due(self, client: hvac.Client) -> None:
        with self._lock:
            if self._token and self._clock() < self._renew_at:
                return
            if self._token:
                client.token = self._token
                try:
                    self._take(client.auth.token.renew_self()["auth"])
                except (failures.Forbidden, failures.Unauthorized, failures.InvalidRequest):
                    pass
                except (KeyError, TypeError):  # not an answer of Vault's: logging in tells
                    pass
                else:
                    return
            self._login(client)

    def _login_again(self, client: hvac.Client, refused: str) -> None:
        with self._lock:
            if self._token == refused and not self._is_given:
                self._login(client)

    def _login(self, client: hvac.Client) -> None:
        settings, mount, role = self._settings, self._settings.auth_mount, self._settings.role
        client.token = ""
        secret = "" if settings.secret_file is None else _secret(settings.secret_file)
        answer: Json
        try:
            match settings.auth:
                case Auth.TOKEN:
                    client.token = secret
                    found = client.auth.token.lookup_self()["data"]
                    answer = {"client_token": secret, "lease_duration": found["ttl"]}
                case Auth.APPROLE:
                    answer = client.auth.approle.login(role, secret, mount_point=mount)["auth"]
                case Auth.KUBERNETES:
                    answer = client.auth.kubernetes.login(role, secret, mount_point=mount)["auth"]
                case Auth.JWT:
                    answer = client.auth.jwt.jwt_login(role, secret, path=mount)["auth"]
                case _:
                    answer = self._login_by_certificate(client)
        except (failures.InvalidRequest, failures.Forbidden, failures.Unauthorized) as error:
            message = f"auth/{mount}: {self._whom()} is refused: {_reason(error)}"
            raise VaultRefusedError(message, 403) from None
        except failures.InvalidPath:
            raise VaultRefusedError(f"auth/{mount}: no such auth method", 404) from None
        except (KeyError, TypeError):
            raise VaultRefusedError(f"auth/{mount}: not an answer of Vault's", 400) from None
        self._take(answer)

    def _login_by_certificate(self, client: hvac.Client) -> Json:
        settings = self._settings
        fields = {"name": settings.role} if settings.role else {}
        path = f"/v1/auth/{settings.auth_mount}/login"
        answer: Json = client.adapter.request("POST", path, json=fields)
        auth: Json = answer["auth"]
        return auth

    def _take(self, auth: Json) -> None:
        self._token = auth["client_token"]
        seconds = auth.get("lease_duration") or float("inf")
        self._renew_at = self._clock() + seconds / 2

    def _whom(self) -> str:
        if self._is_given:
            return "this token"
        settings = self._settings
        return f"{settings.auth} {settings.role}".strip()


def _refuse_redirect(answer: requests.Response, *_args: object, **_kwargs: object) -> None:
    """Raise where another server is named: followed, it would have the token, whoever that is."""
    if answer.is_redirect:
        answer.close()
        raise failures.VaultDown(errors=["redirects to another: name that in vault_addresses"])


def _secret(path: str) -> str:
    """Read anew at each login: Kubernetes replaces its tokens, and people theirs."""
    try:
        return read_text(path, _LARGEST_SECRET, private=True).strip()
    except ValueError as error:
        raise SignerAwayError(f"{path}: {error}") from None


def _reason(error: Exception) -> str:
    """Return one line without the request's own words."""
    if isinstance(error, failures.VaultError):
        texts = error.errors if isinstance(error.errors, list) else []
        said = "; ".join(map(str, texts)) or type(error).__name__
    elif isinstance(error, requests.Timeout):
        said = "no answer in time"
    elif isinstance(error, requests.exceptions.SSLError):
        said = "its certificate is not trusted"
    elif isinstance(error, requests.ConnectionError):
        said = "no connection"
    else:
        said = str(error)
    return "".join(c if c.isprintable() else " " for c in said)[:300]
