"""Gives up privileges for good, and checks that they are gone.

Python has no calls for capabilities, and none for namespaces before 3.12. All of these act on
the calling thread alone, so they belong before any other thread is started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from pathlib import Path
from typing import Final

from proxy.netagent.errors import MachineLacksError, NetAgentError

CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
_NAMES: Final = {CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_NET_RAW: "CAP_NET_RAW"}

_CLONE_NEWNET: Final = 0x40000000
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def enter_netns(path: str) -> None:
    """Move this process into the network namespace at `path`.

    Raises NetAgentError where that is none, MachineLacksError without CAP_SYS_ADMIN.
    """
    require_one_thread()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetAgentError(f"network namespace {path}: {os.strerror(error.errno or 0)}") from error
    try:
        _call("setns", descriptor, _CLONE_NEWNET)
    except PermissionError as error:
        raise MachineLacksError(
            f"cannot enter the network namespace {path}: needs CAP_SYS_ADMIN"
        ) from error
    except OSError as error:
        raise NetAgentError(f"{path} is no network namespace") from error
    finally:
        os.close(descriptor)


def become_daemon(uid: int, gid: int) -> None:
    """Become `uid` and `gid` without a capability, a group, or a way to get them back.

    Raises MachineLacksError where the present privileges do not reach (SETUID, SETGID, SETPCAP),
    or where something is left.
    """
    become(uid, gid, frozenset())
    _verify_daemon(uid, gid)


def become(uid: int, gid: int, kept: frozenset[int]) -> None:
    """Become `uid` and `gid`, without a group, with these capabilities alone. Raises MachineLacksError."""
    require_one_thread()
    try:
        _drop_bounding_set(keep=kept)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setresuid(uid, uid, uid)
        _prctl(_PR_SET_KEEPCAPS, 0)
        _set_capabilities(kept)
        _lock()
    except PermissionError as error:
        raise MachineLacksError(
            f"cannot become UID {uid}: needs CAP_SETUID, CAP_SETGID and CAP_SETPCAP"
        ) from error
    # Neither cores nor ptrace by others of this UID may show the session keys, or a packet socket.
    _prctl(_PR_SET_DUMPABLE, 0)


def keep_only(kept: frozenset[int]) -> None:
    """Keep these capabilities alone, for this process and all that it starts; UID 0 stays.

    Raises MachineLacksError where one is missing.
    """
    require_one_thread()
    try:
        # Refused without CAP_SETPCAP, as in a container that was given NET_ADMIN alone: then the
        # bound is the container's, and no more than that is what nft, run as UID 0, can have.
        with contextlib.suppress(PermissionError):
            _drop_bounding_set(keep=kept)
        _set_capabilities(kept)
        _lock()
    except PermissionError as error:
        names = ", ".join(_NAMES.get(capability, str(capability)) for capability in sorted(kept))
        raise MachineLacksError(f"needs {names}") from error


def require(capability: int, reason: str) -> None:
    """Raise MachineLacksError where this thread lacks a capability; ``reason`` says what needs it."""
    if not capabilities()["CapEff"] >> capability & 1:
        raise MachineLacksError(f"{reason}: needs {_NAMES[capability]}")


def capabilities() -> dict[str, int]:
    """Return the five capability sets of this thread by their names in /proc (CapEff, ...)."""
    status = Path("/proc/thread-self/status").read_text(encoding="utf-8", errors="replace")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {name: int(text, 16) for name, text in fields.items() if name.startswith("Cap")}


def _verify_daemon(uid: int, gid: int) -> None:
    left = [name for name, bits in capabilities().items() if bits]
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        left.append("user or groups")
    try:
        os.setuid(0)
    except PermissionError:
        pass
    else:
        left.append("the way back to UID 0")
    if left:
        raise MachineLacksError(f"the daemon would keep privileges: {', '.join(left)}")


def require_one_thread() -> None:
    """Raise NetAgentError where other threads run: they would keep what this one gives up."""
    if threading.active_count() != 1:
        raise NetAgentError("privileges are changed in a process of one thread only")


def _drop_bounding_set(keep: frozenset[int]) -> None:
    for capability in range(64):
        try:
            present = _prctl(_PR_CAPBSET_READ, capability)
        except OSError:
            return  # EINVAL: past the kernel's last capability
        if present and capability not in keep:
            _prctl(_PR_CAPBSET_DROP, capability)


def _set_capabilities(kept: frozenset[int]) -> None:
    """Set effective, permitted and inheritable to `kept`; ambient is cleared."""
    bits = sum(1 << capability for capability in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    sets = (_Sets * 2)(_Sets(low, low, low), _Sets(high, high, high))
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _call("capset", ctypes.byref(header), sets)


def _lock() -> None:
    """No program that is executed from here on gains anything by its set-user-ID or file bits."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, argument: int) -> int:
    zero = ctypes.c_ulong(0)
    return _call("prctl", option, ctypes.c_ulong(argument), zero, zero, zero)


def _call(name: str, *arguments: object) -> int:
    result = int(_libc[name](*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
