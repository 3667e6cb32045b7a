"""`make fuzz`: each target under atheris for its share of the time; a finding ends it and names its file.

    python tests/fuzz/campaign.py [--seconds N] [--target NAME] [FILE...]

Two targets run at a time where there are two cores, each in a process of its own. With FILEs a target runs
on these alone, as to look at a finding.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

AT_A_TIME = 2


class Finding(Exception):  # noqa: N818 - it ends the campaign, which did its work
    """A target let another exception out, crashed, or used too much."""


def main() -> int:
    """Fuzz one target in this process, or each in one of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--target", help="one target alone")
    parser.add_argument("files", nargs="*", type=Path)
    args = parser.parse_args()
    if args.target is not None:
        return fuzz(args.target, args.seconds, args.files)
    from fuzz.targets import TARGETS  # noqa: PLC0415 - the path is set above

    code = 0
    try:
        asyncio.run(campaign(list(TARGETS), args.seconds))
    except* Finding as findings:
        for finding in findings.exceptions:
            print(f"fuzz: {finding}")
        code = 1
    except* (KeyboardInterrupt, asyncio.CancelledError):
        print("fuzz: interrupted")
        code = 130
    return code


async def campaign(names: list[str], seconds: int) -> None:
    """Fuzz all of them within the time; raises a group of `Finding` at the first."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    if this is not None:
        loop.add_signal_handler(signal.SIGTERM, this.cancel)  # as Ctrl-C: the children go too
    ends = loop.time() + seconds
    at_a_time = min(AT_A_TIME, len(os.sched_getaffinity(0)))
    waiting = list(enumerate(names, 1))

    async def work() -> None:
        while waiting:
            rounds = -(-len(waiting) // at_a_time)
            number, name = waiting.pop(0)
            share = max(1, round((ends - loop.time()) / rounds))
            await fuzz_apart(name, share, f"[{number}/{len(names)}] {name}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_a_time):
            tasks.create_task(work())
    print(f"{len(names)} passed, 0 failed")


async def fuzz_apart(name: str, seconds: int, title: str) -> None:
    """Fuzz one target in a process of its own, which does not outlive this call; raises `Finding`."""
    print(f"{title}: {seconds} s", flush=True)
    # The fuzzer ends its process without a word to Python: what it makes is removed from here.
    with tempfile.TemporaryDirectory(prefix="tencrypt-fuzz-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--target", name, "--seconds", str(seconds)),
            env=os.environ | {"TMPDIR": folder},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,  # Ctrl-C comes to us alone: it is no finding
        )
        try:
            output = (await process.communicate())[0].decode(errors="replace")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        print(output[-4000:], flush=True)
        raise Finding(f"{name}: a finding (exit code {process.returncode})")
    last = [line for line in output.splitlines() if "cov:" in line][-1:]
    print(f"{title}: {''.join(last)}", flush=True)


def fuzz(name: str, seconds: int, files: list[Path]) -> int:
    """Run one target under atheris; never returns but for files."""
    import atheris  # type: ignore[import-untyped]  # noqa: PLC0415 - instruments later imports

    with atheris.instrument_imports(include=["proxy", "ca", "policy"]):
        from fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented
    target = TARGETS[name]
    if files:
        for file in files:
            target(file.read_bytes())
        return 0
    with tempfile.TemporaryDirectory(prefix="tencrypt-fuzz-") as folder:
        for number, seed in enumerate(target.seeds()):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        known = CORPUS / name
        folders = [folder, *([str(known)] if known.is_dir() else [])]
        flags = [f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=1024"]
        findings = HERE / "findings"
        findings.mkdir(exist_ok=True)
        atheris.Setup([name, *flags, f"-artifact_prefix={findings}/{name}-", *folders], target)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
