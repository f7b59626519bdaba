"""Which Raspberry Pi this is, out of its device tree: known before any driver is loaded.

Compatible strings: arch/arm64/boot/dts/broadcom/ and arch/arm/boot/dts/broadcom/ of raspberrypi/linux.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_WITH_ENCODER = frozenset({"bcm2835", "bcm2836", "bcm2837", "bcm2711"})
_SOCS = (*sorted(_WITH_ENCODER), "bcm2712")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board: its name for people ("" when unknown) and its system on a chip ("bcm2712", "" when it is no Pi)."""

    name: str = ""
    soc: str = ""

    @property
    def is_pi(self) -> bool:
        return bool(self.soc)

    @property
    def has_encoder(self) -> bool:
        """Whether the board has the V4L2 encoder, once its driver (bcm2835-codec) is loaded."""
        return self.soc in _WITH_ENCODER

    @property
    def platform(self) -> str:
        """libcamera's pipeline of the board: "vc4", "pisp", "" for none."""
        if self.soc == "bcm2712":
            return "pisp"
        return "vc4" if self.soc else ""


def read_board(root: Path = Path("/")) -> Board:
    """The board that the device tree below `root` describes; an empty one where there is no device tree."""
    folder = root / "proc/device-tree"
    try:
        compatible = (folder / "compatible").read_bytes().split(b"\0")
        model = (folder / "model").read_bytes().rstrip(b"\0")
    except OSError:
        return Board()
    names = {entry.decode(errors="replace") for entry in compatible}
    soc = next((soc for soc in _SOCS if f"brcm,{soc}" in names), "")
    return Board(name=model.decode(errors="replace"), soc=soc)


def has_pisp(root: Path = Path("/")) -> bool:
    """Whether the driver of a Pi 5's image processor has made its video nodes ("pispbe-input", …)."""
    return any(_first_line(name).startswith("pispbe") for name in (root / "sys/class/video4linux").glob("video*/name"))


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
