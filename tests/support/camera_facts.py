"""What picamera2 tells of some cameras: `sensor_modes`, `camera_controls` (name -> min, max, default), listing entries.

Sizes, rates and crops of the sensor modes are what `rpicam-hello --list-cameras` prints: IMX219 and IMX477 in
Raspberry Pi's documentation (raspberrypi/documentation#2587, rpicam-apps#336; kernels from 2025 on have faster IMX477
modes, raspberrypi/linux#6208), IMX296 in AllskyTeam/allsky#3632. OV5647 and IMX708 follow from their drivers.
Ranges of controls as libcamera's Raspberry Pi pipeline announces them for the largest mode: IpaBase::setMode and
setCameraInfo in src/ipa/rpi/common/ipa_base.cpp, with the gains and limits of src/ipa/rpi/cam_helper/cam_helper_*.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Controls = dict[str, tuple[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What tells the boards apart for a program: picamera2's alias, device nodes, memory.

    platform: the card that a /dev/videoN names, "pispbe" or "bcm2835-isp" (picamera2's platform.py); H264Encoder is
    LibavH264Encoder where it is PISP (encoders/__init__.py).
    has_video11: encode_video_nr = 11 of raspberrypi/linux's bcm2835-v4l2-codec.c, line 48, which wants the VideoCore's
    MMAL, and that a BCM2712 has no more.
    heap: where the link `vidbuf_cached` leads that Raspberry Pi OS makes: to "linux,cma", but to "system" with a higher
    priority where the processor field of the revision is 4, a BCM2712 (usr/lib/udev/rules.d/60-dma-heap.rules, lines 2
    and 3, of RPi-Distro/raspberrypi-sys-mods at 4671112).
    cma_kib: of the overlay that config.txt of an image names, dtoverlay=vc4-kms-v3d, of which the firmware takes the
    board's own: 256 MiB of cma-overlay.dts (line 18; also for bcm2837), 512 - 4 MiB of vc4-kms-v3d-pi4-overlay.dts
    (line 10), 64 MiB of vc4-kms-v3d-pi5-overlay.dts (line 6); all in arch/arm/boot/dts/overlays of raspberrypi/linux.
    """

    name: str
    platform: str
    has_video11: bool
    heap: str
    cma_kib: int


BOARDS = (
    Board(name="Zero 2 W", platform="vc4", has_video11=True, heap="linux,cma", cma_kib=256 << 10),
    Board(name="3", platform="vc4", has_video11=True, heap="linux,cma", cma_kib=256 << 10),
    Board(name="4", platform="vc4", has_video11=True, heap="linux,cma", cma_kib=508 << 10),
    Board(name="5", platform="pisp", has_video11=False, heap="system", cma_kib=64 << 10),
)

IMX219_ID = "/base/soc/i2c0mux/i2c@1/imx219@10"
IMX708_ID = "/base/axi/pcie@120000/rp1/i2c@88000/imx708@1a"
OV5647_ID = "/base/soc/i2c0mux/i2c@1/ov5647@36"
IMX296_ID = "/base/soc/i2c0mux/i2c@1/imx296@1a"
IMX477_ID = "/base/soc/i2c0mux/i2c@1/imx477@1a"
USB_ID = "/base/soc/usb@7e980000-1.2:1.0-046d:082d"


def _modes(*rows: tuple[int, int, float, int], order: str = "SRGGB") -> list[dict[str, Any]]:
    return [
        {
            "format": f"{order}{bits}_CSI2P" if bits > 8 else f"{order}{bits}",
            "bit_depth": bits,
            "size": (width, height),
            "fps": fps,
        }
        for width, height, fps, bits in rows
    ]


def _cropped(modes: list[dict[str, Any]], *, whole: tuple[int, int], **fields: tuple[int, int, int, int]) -> None:
    """With what part of the sensor each mode reads: as `fields` say by size ("w640x480"), else all of it."""
    for mode in modes:
        mode["crop_limits"] = fields.get("w{}x{}".format(*mode["size"]), (0, 0, *whole))


IMX219_MODES = _modes(
    (640, 480, 206.65, 8),
    (1640, 1232, 83.70, 8),
    (1920, 1080, 47.57, 8),
    (3280, 2464, 21.19, 8),
    (640, 480, 103.33, 10),
    (1640, 1232, 41.85, 10),
    (1920, 1080, 47.57, 10),
    (3280, 2464, 21.19, 10),
)
# drivers/media/i2c/imx708.c of raspberrypi/linux: 595.2, 585.6 and 566.4 MHz, vblank of 58, 40 and 40 lines.
IMX708_MODES = _modes((1536, 864, 120.13, 10), (2304, 1296, 56.03, 10), (4608, 2592, 14.35, 10))
IMX477_MODES = _modes((1332, 990, 120.05, 10), (2028, 1080, 50.03, 12), (2028, 1520, 40.01, 12), (4056, 3040, 10.0, 12))


# drivers/media/i2c/ov5647.c of raspberrypi/linux: pixel rate / (hts * (height + vblank of 24 lines)). Newer kernels
# (from which on was not looked up) read all modes at 87.5 MHz but VGA; older ones had 43.25 and 30.62 frames a second
# here (81.7 MHz).
OV5647_MODES = _modes(
    (640, 480, 58.92, 10), (1296, 972, 46.34, 10), (1920, 1080, 32.81, 10), (2592, 1944, 15.63, 10), order="SGBRG"
)
IMX296_MODES = _modes((1456, 1088, 60.38, 10))

_cropped(IMX219_MODES, whole=(3280, 2464), w640x480=(1000, 752, 1280, 960), w1920x1080=(680, 692, 1920, 1080))
_cropped(IMX708_MODES, whole=(4608, 2592), w1536x864=(768, 432, 3072, 1728))
_cropped(IMX477_MODES, whole=(4056, 3040), w1332x990=(696, 528, 2664, 1980), w2028x1080=(0, 440, 4056, 2160))
_cropped(OV5647_MODES, whole=(2592, 1944), w640x480=(16, 0, 2560, 1920), w1920x1080=(348, 434, 1928, 1080))
_cropped(IMX296_MODES, whole=(1456, 1088))

# What libcamera announces before configure(), whatever the sensor: src/ipa/rpi/common/ipa_base.cpp, ipaControls,
# ipaColourControls, ipaAfControls, platformControls. pipeline_base.cpp puts the mode's own in their place.
STATIC_CONTROLS: Controls = {
    "AeEnable": (False, True, True),
    "ExposureTime": (1, 66666, 20000),
    "AnalogueGain": (1.0, 16.0, 1.0),
    "ExposureValue": (-8.0, 8.0, 0.0),
    "Brightness": (-1.0, 1.0, 0.0),
    "Contrast": (0.0, 32.0, 1.0),
    "Sharpness": (0.0, 16.0, 1.0),
    "ScalerCrop": ((0, 0, 0, 0), (65535, 65535, 65535, 65535), (0, 0, 0, 0)),
    "FrameDurationLimits": (33333, 250_000_000, (33333, 33333)),
    "NoiseReductionMode": (0, 4, 0),
    "AwbEnable": (False, True, None),
    "ColourGains": (0.0, 32.0, None),
    "ColourTemperature": (100, 100_000, None),
    "Saturation": (0.0, 32.0, 1.0),
}
STATIC_LENS_CONTROLS: Controls = {"AfMode": (0, 2, 0), "AfTrigger": (0, 1, 0), "LensPosition": (0.0, 32.0, 1.0)}
STATIC_PISP_CONTROLS: Controls = {"ScalerCrops": ((0, 0, 0, 0), (65535, 65535, 65535, 65535), (0, 0, 0, 0))}


def _controls(
    width: int,
    height: int,
    *,
    gain: tuple[float, float],
    exposure_us: tuple[int, int],
    frame_us: tuple[int, int],
) -> Controls:
    """What is the sensor's own: gain, exposure and length of a frame, from the least to the most."""
    return {
        "Brightness": (-1.0, 1.0, 0.0),
        "Contrast": (0.0, 32.0, 1.0),
        "Saturation": (0.0, 32.0, 1.0),
        "Sharpness": (0.0, 16.0, 1.0),
        "ExposureValue": (-8.0, 8.0, 0.0),
        "AeEnable": (False, True, True),
        "ExposureTime": (*exposure_us, 20_000),
        "AnalogueGain": (*gain, 1.0),
        "AwbEnable": (False, True, None),
        "ColourTemperature": (100, 100_000, None),
        "ColourGains": (0.0, 32.0, None),
        "ScalerCrop": ((0, 0, 64, 64), (0, 0, width, height), (0, 0, width, height)),
        "FrameDurationLimits": (*frame_us, (33333, 33333)),
        "NoiseReductionMode": (0, 4, 0),
    }


# gain 256 / (256 - code), code 0 to 232; as picamera2 prints them (`camera_controls`).
IMX219_CONTROLS = _controls(
    3280, 2464, gain=(1.0, 10.666666984558105), exposure_us=(75, 11_766_829), frame_us=(47_183, 11_767_556)
)
# gain 1024 / (1024 - code), code 0 to 978; frames of up to 65500 lines, 128 times as long (longExposureShiftMax = 7).
IMX477_CONTROLS = _controls(
    4056, 3040, gain=(1.0, 22.2608699798584), exposure_us=(114, 694_422_939), frame_us=(100_000, 694_434_742)
)
# gain code / 16, code 16 to 1023 (ov5647_init_controls); 4 lines of 32.5 us at least; the longest as a board printed.
OV5647_CONTROLS = _controls(2592, 1944, gain=(1.0, 63.9375), exposure_us=(130, 3_066_985), frame_us=(63_965, 3_067_365))
# raspberrypi/linux at 36c1898, drivers/media/i2c/imx296.c, imx296_ctrls_init: exposures of 1 to 1048575 lines, gain
# codes 0 to 480, vblank of 30 to 1048575 - 1088 lines; imx296_setup_hblank: a line is 1100 * 1188e6 / 10 / 74.25e6 =
# 1760 pixels of 118.8 MHz, 14.8148 us. So a frame has 1118 to 1048575 lines, 16 562 to 15 534 444 us. libcamera's
# cam_helper_imx296.cpp: gain 10 ** (code / 200); an exposure is its lines and 14.26 us, so 29 us at least; the longest
# is four lines shorter than the frame (frameIntegrationDiff; getBlanking in cam_helper.cpp, without the 14.26 us).
IMX296_CONTROLS = _controls(
    1456, 1088, gain=(1.0, 251.188644), exposure_us=(29, 15_534_385), frame_us=(16_562, 15_534_444)
)
# gain 1024 / (1024 - code), code 112 to 960, so that 1.0 is not to be had; one line of 26.3 us at least; frames of up
# to 65535 lines, 128 times as long (IMX708_LONG_EXP_SHIFT_MAX). The lens: "map" of rpi.af in libcamera's imx708.json.
IMX708_CONTROLS: Controls = {
    **_controls(
        4608,
        2592,
        gain=(1.1228070259094238, 16.0),
        exposure_us=(26, 220_416_802),
        frame_us=(69_669, 220_535_845),
    ),
    "AfMode": (0, 2, 0),
    "AfTrigger": (0, 1, 0),
    "LensPosition": (0.0, 15.0, 1.0),
}
USB_CONTROLS: Controls = {"Brightness": (-1.0, 1.0, 0.0), "Contrast": (0.0, 2.0, 1.0)}
