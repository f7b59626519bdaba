#!/usr/bin/env python3
"""A Pi's memory: an arm64 kernel with 512 MB and `cma=256M` whose page cache is in CMA, and a camera's frames there.

Debian's kernel for amd64 has no CMA, so this is a machine of its own, with nothing in it but that kernel, vivid (the
kernel's test camera, with contiguous frames) and cma.c. It reports what /proc/meminfo said and whether the frames were
allocated, ten times; msrecd's own decision is taken by those figures: it must refuse nothing that the kernel gives.

    cma.py        exit status 0: so it is; 1: not so; 3: the machine cannot be made here
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from msrecd.devices.camera.modes import buffer_bytes, contiguous_memory, missing_memory

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "vm-cma"
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
NEEDED = {
    "qemu-system-aarch64": "qemu-system-arm",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu, libc6-dev-arm64-cross",
    "cpio": "cpio",
    "mkfs.ext4": "e2fsprogs",
    "apt-get": "apt",
}
MODULES = {
    "virtio_pci": "",
    "virtio_blk": "",
    "crc32c_generic": "",
    "ext4": "",
    "vivid": "n_devs=1 node_types=0x1 allocators=1",
}
SIZES = ((1920, 1080), (3840, 2160))
ROUNDS, BUFFERS = 10, 6
FILE_MIB = 1024
TIMEOUT_S = 900


class LeftOut(Exception):
    """It cannot be made here; the message says why."""


def say(text: str) -> None:
    print(f"vm-cma: {text}", flush=True)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.CalledProcessError as exc:
        raise LeftOut(f"{command[0]}: {exc.stderr.strip()[-300:]}") from exc
    return done.stdout


def fetch_kernel() -> Path:
    """Debian 13's kernel for arm64, unpacked; nothing of this machine's apt is touched."""
    tree = CACHE / "kernel"
    if (CACHE / "kernel.made").exists():
        return tree
    apt = CACHE / "apt"
    for folder in ("etc/apt", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "var/lib/dpkg/status").touch()
    (apt / "etc/apt/sources.list").write_text(f"deb [signed-by={KEYS}] {MIRROR} trixie main\n")
    options = [f"-oDir={apt}", f"-oDir::State::status={apt}/var/lib/dpkg/status", "-oAPT::Sandbox::User=root"]
    options += ["-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64"]
    run("apt-get", *options, "-q", "update")
    depends = run("apt-cache", *options, "depends", "linux-image-arm64")
    package = re.search(r"Depends: (linux-image-\S+)", depends)
    if package is None:
        raise LeftOut("the archive has no kernel for arm64")
    say(f"{package[1]} from {MIRROR} (some 80 MB, once)")
    run("apt-get", *options, "-q", "download", package[1], cwd=apt)
    (deb,) = apt.glob("linux-image-*.deb")
    shutil.rmtree(tree, ignore_errors=True)
    run("dpkg-deb", "-x", deb, tree)
    shutil.rmtree(apt)
    (CACHE / "kernel.made").touch()
    return tree


def modules_of(tree: Path) -> dict[str, bytes]:
    """The modules to load, in order: what MODULES names, each after what it depends on."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in found or name not in files:  # built in
            return
        data = files[name].read_bytes()
        if files[name].suffix == ".xz":
            data = lzma.decompress(data)
        (depends,) = re.findall(rb"\0depends=([^\0]*)\0", data)
        for other in filter(None, depends.decode().split(",")):
            add(other.replace("-", "_"))
        found[name] = data

    for name in MODULES:
        add(name)
    return found


def make_initrd(tree: Path) -> tuple[Path, Path]:
    """(kernel, the file system that it starts with)"""
    with tempfile.TemporaryDirectory() as made:
        root, lines = Path(made), []
        for name, data in modules_of(tree).items():
            (root / f"{name}.ko").write_bytes(data)
            lines.append(f"/{name}.ko {MODULES.get(name, '')}".rstrip() + "\n")
        (root / "modules").write_text("".join(lines))
        run("aarch64-linux-gnu-gcc", "-static", "-O1", "-Wall", "-Werror", "-o", root / "init", HERE / "cma.c")
        names = "\n".join(path.name for path in root.iterdir())
        initrd = CACHE / "initrd"
        with initrd.open("wb") as out:
            pack = ["cpio", "--quiet", "-o", "-H", "newc"]
            subprocess.run(pack, cwd=root, input=names.encode(), stdout=out, check=True)
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    return kernel, initrd


def boot(kernel: Path, initrd: Path, size: tuple[int, int]) -> list[str]:
    """What cma.c said."""
    disk = CACHE / "disk.img"
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        with (Path(folder) / "file").open("wb") as file:
            file.truncate(FILE_MIB << 20)
        disk.unlink(missing_ok=True)
        run("mkfs.ext4", "-q", "-d", folder, disk, f"{FILE_MIB + 128}M")
    width, height = size
    command = [
        "qemu-system-aarch64",
        "-M",
        "virt",
        "-cpu",
        "cortex-a53",
        "-m",
        "512",
        "-display",
        "none",
        "-nic",
        "none",
    ]
    command += ["-serial", "stdio", "-monitor", "none", "-no-reboot", "-kernel", kernel, "-initrd", initrd]
    command += ["-append", f"console=ttyAMA0 quiet panic=-1 rdinit=/init cma=256M -- {width} {height}"]
    command += ["-drive", f"file={disk},format=raw,if=virtio"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as exc:
        raise LeftOut(f"the machine was not done in {TIMEOUT_S} s") from exc
    finally:
        disk.unlink()
    (CACHE / f"console-{width}x{height}.txt").write_text(done.stdout + done.stderr)
    return re.findall(r"^cma: (.*?)\r?$", done.stdout, re.MULTILINE)


def judge(lines: list[str], size: tuple[int, int]) -> bool:
    """Whether all was allocated, from CMA, while less was free; and whether msrecd would have tried each time."""
    needed = buffer_bytes(size, "YUV420", BUFFERS)
    found = [dict(re.findall(r"(\w+) (\d+)", line)) for line in lines if line.startswith("round")]
    if len(found) != ROUNDS or "end" not in lines:
        say(f"it did not get to the end: {lines[-3:]}")
        return False
    is_well, free = True, []
    with tempfile.TemporaryDirectory() as folder:
        meminfo = Path(folder) / "meminfo"
        for facts in found:
            free.append(int(facts["CmaFree"]) >> 10)
            meminfo.write_text(f"CmaTotal: {facts['CmaTotal']} kB\nCmaFree: {facts['CmaFree']} kB\n")
            refused = missing_memory(needed, contiguous_memory(meminfo))
            got = int(facts["bytes"]) >= size[0] * size[1] * 3 // 2 * BUFFERS
            if refused or not got or int(facts["from_cma"]) < BUFFERS:
                say(f"{facts}: {refused or 'not allocated'}")
                is_well = False
    if min(free) << 20 >= needed:
        say("the page cache did not take the memory: nothing was shown")
        is_well = False
    total = int(found[0]["CmaTotal"]) >> 10
    say(
        f"{size[0]}x{size[1]}: {needed >> 20} MiB allocated {ROUNDS} times of {total} MiB of CMA, with {min(free)} to"
        f" {max(free)} MiB free: {'well' if is_well else 'FAILED'}"
    )
    return is_well


def main() -> int:
    missing = [debian for program, debian in NEEDED.items() if shutil.which(program) is None]
    if missing:
        say(f"LEFT OUT, for lack of {', '.join(missing)}")
        return 3
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        kernel, initrd = make_initrd(fetch_kernel())
        results = [judge(boot(kernel, initrd, size), size) for size in SIZES]
    except (LeftOut, OSError, subprocess.SubprocessError) as exc:
        say(f"LEFT OUT: {exc}")
        return 3
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
