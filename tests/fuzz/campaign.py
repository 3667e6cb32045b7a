"""`make fuzz`: each target under atheris for its share of the time; a finding ends it and names its file.

    python tests/fuzz/campaign.py [--seconds N] [--target NAME] [FILE...]

With FILEs a target runs on these alone, as to look at a finding.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]


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

    share = max(1, args.seconds // len(TARGETS))
    for number, name in enumerate(TARGETS, 1):
        print(f"[{number}/{len(TARGETS)}] {name}: {share} s", flush=True)
        command = [sys.executable, __file__, "--target", name, "--seconds", str(share)]
        # The fuzzer ends its process without a word to Python: what it makes is removed from here.
        with tempfile.TemporaryDirectory(prefix="tencrypt-fuzz-") as folder:
            env = os.environ | {"TMPDIR": folder}
            result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        last = [line for line in result.stderr.splitlines() if "cov:" in line][-1:]
        print("".join(last) if result.returncode == 0 else result.stderr[-4000:], flush=True)
        if result.returncode:
            print(f"fuzz: {name}: a finding (exit code {result.returncode})")
            return 1
    print(f"{len(TARGETS)} passed, 0 failed")
    return 0


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
