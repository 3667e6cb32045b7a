"""Real servers and their own load programs, configured for nothing but their addresses."""

import os
import pwd
import re
import shutil
from pathlib import Path
from typing import Final

from support.namespaces import Pod
from support.processes import HarnessError, Process, wait_for

POSTGRES_PORT: Final = 5432
REDIS_PORT: Final = 6379
PGBENCH_SCALE: Final = 1


def start_postgres(pod: Pod) -> Process:
    """Start PostgreSQL on the pod's addresses, with pgbench's tables in it."""
    programs = _postgres_programs()
    data = pod.directory / f"{pod.label}.postgres"
    data.mkdir(mode=0o700)
    user = pwd.getpwnam("postgres")
    os.chown(data, user.pw_uid, user.pw_gid)
    become: list[str | Path] = [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
    ]
    initialise: list[str | Path] = [
        "--pgdata",
        data,
        "--username=shop",
        "--auth=trust",
        "--no-sync",
    ]
    pod.run([*become, programs / "initdb", *initialise])
    with (data / "pg_hba.conf").open("a", encoding="ascii") as rules:
        rules.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
    listen = ["-c", f"listen_addresses={pod.ipv4},{pod.ipv6}", "-c", f"port={POSTGRES_PORT}"]
    quick = ["-c", "fsync=off", "-c", f"unix_socket_directories={data}"]
    serve: list[str | Path] = [programs / "postgres", "-D", data, *listen, *quick]
    process = pod.start([*become, *serve])
    pod.wait_for_listener(process, POSTGRES_PORT)
    where = ["-h", pod.ipv4, "-U", "shop"]

    def answers() -> bool:
        return pod.run([programs / "pg_isready", *where], accept=(0, 1, 2)).returncode == 0

    wait_for("PostgreSQL", answers)
    pod.run(["pgbench", *where, "--initialize", "--quiet", f"--scale={PGBENCH_SCALE}", "postgres"])
    return process


def pgbench(pod: Pod, address: str, transactions: int) -> int:
    """Run so many transactions by each of four clients, a connection for each; how many were done."""
    words = ["-h", address, "-U", "shop", "--no-vacuum", "--client=4", "--connect"]
    text = pod.run(["pgbench", *words, f"--transactions={transactions}", "postgres"]).stdout
    found = re.search(r"number of transactions actually processed: (\d+)/\d+", text)
    failed = re.search(r"number of failed transactions: (\d+)", text)
    if found is None or failed is None or int(failed[1]):
        raise HarnessError(f"pgbench: {text}")
    return int(found[1])


def start_redis(pod: Pod) -> Process:
    """Start Redis on the pod's addresses; nothing of it on disk."""
    words = ["--bind", pod.ipv4, pod.ipv6, "--port", str(REDIS_PORT), "--protected-mode", "no"]
    process = pod.start(["redis-server", *words, "--save", "", "--dir", str(pod.directory)])
    pod.wait_for_listener(process, REDIS_PORT)
    return process


def redis_benchmark(pod: Pod, address: str, requests: int) -> set[str]:
    """Run each of some commands so often, with 32 bytes of value; the commands that were measured."""
    tests = ("set", "get", "incr", "lpush", "mset")
    words = ["-h", address, "-n", str(requests), "-c", "20", "-d", "32", "--csv"]
    text = pod.run(["redis-benchmark", *words, "-t", ",".join(tests)]).stdout
    return {
        found.lower().split(" ")[0]
        for found in re.findall(r'^"([A-Z]+[^"]*)","[\d.]+"', text, re.MULTILINE)
    }


def wrk(pod: Pod, url: str, seconds: int) -> int:
    """Load a URL over 16 connections; how many requests were answered, none of them wrongly."""
    text = pod.run(["wrk", "-t", "2", "-c", "16", "-d", f"{seconds}s", url]).stdout
    found = re.search(r"(\d+) requests in", text)
    if found is None or "Non-2xx" in text or "Socket errors" in text:
        raise HarnessError(f"wrk: {text}")
    return int(found[1])


def _postgres_programs() -> Path:
    """Give the folder of the newest version's programs: Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found or shutil.which("pgbench") is None:
        raise HarnessError("PostgreSQL is not installed")
    return found[-1].parent
