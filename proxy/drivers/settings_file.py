"""Reads the files that settings are made of: the pod's own and the token's."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from proxy.settings import Settings, SettingsError, parse_settings

_LARGEST_SETTINGS: Final = 65536
_LARGEST_TOKEN: Final = 8192


def load(
    path: str | None, environment: Mapping[str, str], wall: float, *, with_token: bool = True
) -> Settings:
    """Return the settings of a file, if there is one, and the environment; raises `SettingsError`."""
    try:
        text_untrusted = "" if path is None else _read(path, _LARGEST_SETTINGS)
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
    return _read(path, _LARGEST_TOKEN, private=True)


def _read(path: str, largest: int, *, private: bool = False) -> str:
    try:
        # O_NONBLOCK: a pipe in the file's place must not hold up the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError("not a regular file")
            if private and mode & stat.S_IROTH:
                raise ValueError(f"every user can read it: chmod o= {Path(path).name}")
            content = os.read(descriptor, largest + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from None
    if len(content) > largest:
        raise ValueError(f"larger than {largest} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
