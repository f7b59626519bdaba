#!/usr/bin/env python3
"""`make vm-test`: boot the machine, run hw-tests in it against this checkout, cut its power, bring back what it made.

Exit status 0: every test ran and passed, every power cut was survived; 1: not so; 3: the machine cannot be made here.
What came back is in .cache/vm/results: pytest's report, the journal, recordings, figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "hw-tests" / "vm"
CACHE = machine.CACHE
RESULTS = CACHE / "results"
MODE = "160x120@10"  # an emulated processor has no more breath
BOOT_S = 900  # … and takes its time on a busy host
# … and has no floating-point unit: AAC takes it longer than the sound lasts.
EMULATED_TYPE = "video/mp4;codecs=avc1.42c028,flac"
NO_MACHINE = 3
UNDER_TEST = ("hw-tests", "tests/support", "pyproject.toml")  # beside the package
TESTS = [
    "hw-tests",
    "-v",
    "-ra",
    "--tb=short",
    "--require-hw",
    "--camera",
    "--alsa=Loopback: Loopback PCM",
    f"--camera-mode={MODE}",
    "--minutes=0.5",
    "--numbered",
    "--service",
    "--plug=bash /srv/hw-tests/vm/hardware.sh",
    "--keep=/mnt/host/results",
    "--junitxml=/mnt/host/results/junit.xml",
]


def say(text: str) -> None:
    print(f"vm-test: {text}", flush=True)


def fill_share(share: Path, arguments: list[str], *, timeout_s: int, settings: str = "") -> None:
    """What the machine sees as /mnt/host: the package, the tests, what to run."""
    shutil.rmtree(share, ignore_errors=True)
    checkout = share / "msrecd"
    checkout.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *UNDER_TEST],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
    shutil.copy2(RESULTS / "msrecd.deb", share / "msrecd.deb")
    shutil.copy2(HERE / "guest.sh", share / "guest.sh")
    (share / "settings").write_text(
        f"GUEST_TIMEOUT={timeout_s}\nHOST_TIME={time.time():.3f}\n"
        f"PYTEST_ARGS=({' '.join(map(shlex.quote, arguments))})\n{settings}"
    )


def prepare() -> None:
    """Boot once, for the runs that go on from there."""
    share = RESULTS / "prepare"
    fill_share(share, [], timeout_s=BOOT_S)
    begun = time.monotonic()
    machine.prepare(share, BOOT_S)
    say(f"the machine has booted and its state is saved, {time.monotonic() - begun:.0f} s")


def run_tests(args: argparse.Namespace) -> bool:
    """One boot with all tests; whether all ran and passed."""
    share, data = RESULTS / "tests", CACHE / "data.img"
    arguments = [*TESTS, f"--times={args.times}", f"--recovery={args.recovery:g}"]
    if machine.is_emulated():
        arguments.append(f"--mime-type={EMULATED_TYPE}")
    arguments += shlex.split(args.pytest)
    timeout_s = 900 + 60 * args.times
    fill_share(share, arguments, timeout_s=timeout_s)
    data.unlink(missing_ok=True)
    begun = time.monotonic()
    with machine.start(share, [data], timeout_s + 300, prepared=not args.cold) as process:
        process.wait()
    results = share / "results"
    show(results / "pytest.txt")
    trouble = read(results / "kernel-trouble.txt")
    if trouble:
        say(f"the kernel complained:\n{trouble}")
    matrix(results)
    code = read(results / "exit").strip()
    say(f"tests: exit {code or '- none: see ' + str(share / 'console.txt')}, {time.monotonic() - begun:.0f} s")
    return code == "0" and not trouble


def run_cma() -> bool:
    """A small Pi's memory, in a machine of its own: whether it was so, or cannot be made here (it says why)."""
    return subprocess.run([sys.executable, HERE / "cma.py"], check=False).returncode in (0, NO_MACHINE)


def show(path: Path) -> None:
    for line in read(path).splitlines()[-40:]:
        print(f"    {line}")


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def matrix(results: Path) -> None:
    """What was exercised, and the figures."""
    with contextlib.suppress(OSError, ElementTree.ParseError):
        cases = ElementTree.parse(results / "junit.xml").getroot().iter("testcase")
        for case in cases:
            outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
            say(f"{outcome:8} {case.get('name')} ({float(case.get('time') or 0):.0f} s)")
    for path in sorted(results.glob("*/figures.json")):
        figures: dict[str, Any] = json.loads(path.read_text())
        say(f"{path.parent.name}: " + ", ".join(f"{name} {value}" for name, value in figures.items()))


def cut_power(cuts: int, args: argparse.Namespace, file_system: str) -> bool:
    """Record to a disk, kill the emulator, boot again and look: `cuts` times. Whether nothing was lost.

    A boot is what `machine.prepare` saved, and every tenth a real one; with --cold all are.
    """
    disks = [CACHE / "power.img"] + ([CACHE / "card.img"] if file_system == "FAT32" else [])
    for disk in disks:
        disk.unlink(missing_ok=True)
    rng = random.Random(args.seed)
    losses: list[float] = []
    is_well = True
    mime_type = EMULATED_TYPE if machine.is_emulated() else "video/mp4"
    for number in range(cuts + 1):
        share = RESULTS / f"power-{file_system}-{number:02}"
        is_last = number == cuts
        settings = (
            f"export POWER_CUT_BOOT={number} POWER_CUT_LAST={'yes' if is_last else ''}"
            f" POWER_CUT_TYPE={shlex.quote(mime_type)}\n"
        )
        fill_share(share, ["hw-tests/vm/power_cut.py", "-v", "--tb=short"], timeout_s=BOOT_S, settings=settings)
        if number:
            before = RESULTS / f"power-{file_system}-{number - 1:02}"
            shutil.copy2(before / "results" / "beat.json", share / "before")
        report = share / "results" / "power.json"
        is_cold = args.cold or number % 10 == 9
        begun = time.monotonic()
        with machine.start(share, disks, BOOT_S + 300, prepared=not is_cold) as process:
            if not is_last and not pull_the_plug(process, share, rng):
                process.terminate()
                process.wait()
                show(share / "results" / "pytest.txt")
                return False
            process.wait()
        found = json.loads(read(report) or "{}")
        code = read(share / "results" / "exit").strip()
        if found.get("checked"):
            losses.append(found["loss_s"])
        if number and not found.get("checked"):
            show(share / "results" / "pytest.txt")
            is_well = False
        if is_last:
            is_well &= code == "0"
        how = f"{'booted' if is_cold else 'resumed'}, {time.monotonic() - begun:.0f} s"
        say(f"power cut {number} of {cuts} ({file_system}; {how}): {json.dumps(found)}")
    check = subprocess.run(["e2fsck", "-fn", disks[0]], capture_output=True, text=True)
    is_clean = check.returncode == 0
    say(f"ext4: {'clean' if is_clean else check.stdout}")
    for card in disks[1:]:  # it has no journal: what a cut leaves behind is told, and harms no file that was finished
        said = subprocess.run(["fsck.vfat", "-n", card], capture_output=True, text=True)
        say(f"FAT32: {'clean' if said.returncode == 0 else said.stdout.strip()}")
    if losses:
        say(f"{len(losses)} power cuts, {file_system}: largest loss {max(losses):.2f} s")
    return is_well and is_clean and len(losses) == cuts


def pull_the_plug(process: subprocess.Popen[bytes], share: Path, rng: random.Random) -> bool:
    """Wait until the machine records, then kill the emulator at a random moment of its time."""
    beat = share / "results" / "beat.json"
    deadline = time.monotonic() + 4 * BOOT_S
    begun, wanted_s = 0.0, rng.uniform(4.0, 16.0)
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            say(f"the machine did not get to record: see {share}")
            return False
        at = float(json.loads(read(beat) or "{}").get("at", 0.0))
        begun = begun or at
        if begun and at - begun >= wanted_s:
            break
        time.sleep(0.2)
    time.sleep(rng.uniform(0.0, 0.5))
    pid = int((share / "qemu.pid").read_text())
    if b"qemu" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return False
    os.kill(pid, signal.SIGKILL)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="how often each device is unplugged (default 5)")
    parser.add_argument("--cuts", type=int, default=3, help="how many power cuts (default 3; 0 for none)")
    parser.add_argument("--fat-cuts", type=int, default=0, help="how many of them while recording to FAT32 (default 0)")
    parser.add_argument("--recovery", type=float, default=5.0, help="seconds a recording may take to go on")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments of the power cuts")
    parser.add_argument(
        "--pytest", default="", metavar="ARGS", help="more arguments for pytest, for example '-k chunks'"
    )
    parser.add_argument("--cold", action="store_true", help="boot for each part, instead of once for all")
    parser.add_argument("--no-tests", action="store_true", help="only the power cuts")
    parser.add_argument("--no-cma", action="store_true", help="without the machine that has a small Pi's memory")
    args = parser.parse_args()
    if os.geteuid() != 0:
        os.execvp("sudo", ["sudo", sys.executable, *sys.argv])
    needed = [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-img", "qemu-utils"),
        ("mkfs.ext4", "e2fsprogs"),
        ("git", "git"),
    ]
    if args.fat_cuts:
        needed.append(("mkfs.vfat", "dosfstools"))
    for program, debian in needed:
        if shutil.which(program) is None:
            say(f"error: {program} is missing: apt-get install {debian}")
            return NO_MACHINE
    begun = time.monotonic()
    try:
        subprocess.run([HERE / "build.sh"], check=True)
    except subprocess.CalledProcessError:
        return NO_MACHINE  # it has said why
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    subprocess.run([ROOT / "scripts" / "build-deb.sh"], check=True)
    package = max((ROOT / "dist").glob("msrecd_*.deb"), key=lambda path: path.stat().st_mtime)
    shutil.copy2(package, RESULTS / "msrecd.deb")
    say(f"seed {args.seed}; results in {RESULTS}")
    if not args.cold:
        try:
            prepare()
        except machine.MachineError as exc:
            say(f"error: {exc}")
            return NO_MACHINE
    is_well = args.no_tests or run_tests(args)
    if args.cuts:
        is_well &= cut_power(args.cuts, args, "ext4")
    if args.fat_cuts:
        is_well &= cut_power(args.fat_cuts, args, "FAT32")
    if not args.no_cma:
        is_well &= run_cma()
    say(f"{'all well' if is_well else 'FAILED'} after {time.monotonic() - begun:.0f} s; everything in {RESULTS}")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
