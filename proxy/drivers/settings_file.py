"""Reads the files that settings are made of: the pod's own and the token's."""

from collections.abc import Mapping
from typing import Final

from policy.drivers.files import read_text
from proxy.settings import Settings, SettingsError, parse_settings

_LARGEST_SETTINGS: Final = 65536
_LARGEST_TOKEN: Final = 8192


def load(
    path: str | None, environment: Mapping[str, str], wall: float, *, with_token: bool = True
) -> Settings:
    """Return the settings of a file, if there is one, and the environment; raises `SettingsError`."""
    try:
        text_untrusted = "" if path is None else read_text(path, _LARGEST_SETTINGS)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    return parse_settings(
        text_untrusted,
        environment,
        wall=wall,
        read_token=read_token if with_token else None,
        file_name=path,
    )


def read_token(path: str) -> str:
    """Return a token file's text; raises ValueError where it cannot be read or all users may."""
    return read_text(path, _LARGEST_TOKEN, private=True)
