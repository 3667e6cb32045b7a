"""A file that is changed while we run, by the ways in which people, shells and Kubernetes change one."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path, PosixPath

from typing_extensions import override

from proxy.drivers import file_watch

Step = Callable[[], object]


class _OverError(Exception):
    """No steps are left."""


async def seen(path: Path, *steps: Step) -> list[str | int | None]:
    """Return what a watch of ``path`` gave, texts and errnos, where one step is made before each look but the first."""
    given: list[str | int | None] = []
    left = iter(steps)

    async def sleep(_seconds: float) -> None:
        step = next(left, None)
        if step is None:
            raise _OverError
        step()

    async def take(read: str | OSError) -> None:
        given.append(read.errno if isinstance(read, OSError) else read)

    with contextlib.suppress(_OverError):
        await file_watch.watch(path, take, sleep)
    return given


def nothing() -> None:
    """Let a look find all as it was."""


async def test_a_file_is_given_at_once_and_again_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text("one")
    assert await seen(path, nothing, nothing) == ["one"]
    changed = await seen(path, lambda: path.write_text("three"), nothing, nothing, nothing)
    assert changed == ["one", "three"]


async def test_a_file_that_is_being_written_is_not_given_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text("old")
    given = await seen(
        path,
        lambda: path.write_text(""),
        lambda: path.write_text("half"),
        lambda: path.write_text("all of it"),
        nothing,
        nothing,
    )
    assert given == ["old", "all of it"]


class Emptied(PosixPath):
    """A path whose file a writer empties right after the second look at seven bytes."""

    looks = 0

    @override
    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        found = super().stat(follow_symlinks=follow_symlinks)
        if found.st_size == len("another"):
            self.looks += 1
            if self.looks == 2:
                os.truncate(self, 0)
        return found


async def test_a_writer_who_begins_while_we_read_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text("old")
    steps = (lambda: path.write_text("another"), nothing, lambda: path.write_text("the last"))
    watched = Emptied(path)
    assert await seen(watched, *steps, nothing, nothing) == ["old", "the last"]
    assert watched.looks == 2


async def test_a_mounted_config_map_changes_by_its_symbolic_link(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "rules").write_text(version)
    (tmp_path / "..data").symlink_to("v1")
    path = tmp_path / "rules"
    path.symlink_to("..data/rules")

    def swap() -> None:
        (tmp_path / "..new").symlink_to("v2")
        (tmp_path / "..new").rename(tmp_path / "..data")

    assert await seen(path, nothing, swap, nothing, nothing) == ["v1", "v2"]


async def test_a_file_that_is_gone_is_said_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    assert await seen(path, nothing, nothing) == [errno.ENOENT]
    path.write_text("one")
    given = await seen(
        path, path.unlink, nothing, nothing, lambda: path.write_text("two"), nothing, nothing
    )
    assert given == ["one", errno.ENOENT, "two"]


async def test_a_file_that_is_replaced_by_another_name_is_never_missed(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text("one")
    # Gone at one look alone: an editor that takes the old one away before it writes.
    assert await seen(path, path.unlink, lambda: path.write_text("one more"), nothing) == [
        "one",
        "one more",
    ]
