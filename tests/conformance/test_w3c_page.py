"""docs/w3c.md is complete and true: every entry exists, every name of the specifications and of the code has one."""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import msrecd
from msrecd.dom.events import event_handler
from msrecd.media import options
from msrecd.vocabulary import constraints

PAGE = Path(__file__).resolve().parents[2] / "docs" / "w3c.md"


class Row(NamedTuple):
    """One line of the page's tables about names; `here` is "" for a dash."""

    section: str
    name: str
    here: str
    notes: str


@cache
def rows() -> list[Row]:
    found, section, is_names = [], "", False
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section, is_names = line[3:], False
        elif line.startswith(("| specification |", "| extension |")):
            is_names = True
        elif is_names and line.startswith("| "):
            name, here, notes = (cell.strip() for cell in line.strip("|").split("|"))
            found.append(Row(section, name.replace("`", ""), here.strip("`").replace("-", ""), notes))
        elif not line.startswith("|"):
            is_names = False
    return found


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def set_by_constructor(owner: type) -> set[str]:
    """Plain public attributes."""
    return set(re.findall(r"^ +self\.([a-zA-Z]\w*)(?:: [^=]+)? = ", inspect.getsource(owner), re.MULTILINE))


def resolve(here: str) -> None:
    """Look an entry up in the code; AssertionError says what is not there."""
    if match := re.fullmatch(r"event (\w+) of (\w+)", here):
        handler = inspect.getattr_static(getattr(msrecd, match[2]), f"on{match[1]}", None)
        assert isinstance(handler, event_handler), f"{match[2]} has no on{match[1]}"
        assert handler._type == match[1]
    elif match := re.fullmatch(r"option (\w+)", here):
        assert match[1] in {field.name for field in dataclasses.fields(options.RecorderOptions)}
    elif match := re.fullmatch(r"constraint (\w+)", here):
        assert match[1] in constraints.PROPERTIES["video"] | constraints.PROPERTIES["audio"]
    else:
        match = re.fullmatch(r"(\w+)(?:\.(\w+)(\(\))?)?", here)
        assert match, f"cannot read {here!r}"
        assert match[1] in msrecd.__all__, f"{match[1]} is not exported"
        owner = getattr(msrecd, match[1])
        if match[2] is None:
            assert inspect.isclass(owner)
            return
        if match[2] in set_by_constructor(owner):
            assert not match[3]
            return
        member = inspect.getattr_static(owner, match[2], None)
        assert member is not None, f"{match[1]} has no {match[2]}"
        is_method = inspect.isfunction(member) or isinstance(member, staticmethod | classmethod)
        assert is_method == bool(match[3]), f"{here}: a method is written with (), an attribute without"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name.replace(" ", "_"))
@pytest.mark.promise("w3c-entries")
def test_entry_exists(row: Row) -> None:
    if row.here:
        resolve(row.here)
    else:
        assert len(row.notes) > 10, "what is not here needs a reason"


def test_lookup_finds_mistakes() -> None:
    wrong = ["MediaRecorder.mimeType", "MediaRecorder.start", "MediaRecorder.state()", "event stopp of MediaRecorder"]
    for here in [
        *wrong,
        "option timeslice",
        "constraint volume",
        "MediaRecorderErrorEvent",
        "event state of MediaRecorder",
    ]:
        with pytest.raises(AssertionError):
            resolve(here)


def test_names_follow_the_rule() -> None:
    """W3C words in snake_case, wherever the class has the W3C's name."""
    strange = []
    for row in rows():
        if row.section in ("Extensions", "Retired and left out") or not row.here:
            continue
        specified, here = row.name.split(" ")[0], row.here.split(" ")[1] if " " in row.here else row.here
        if "." in specified and specified.partition(".")[2].strip("()") in ("putImageData", "fillRect"):
            continue
        if snake(specified.rpartition(".")[2]) != snake(here.rpartition(".")[2]) and "." in specified:
            strange.append(row)
    assert not strange


# The members of the specifications' interfaces.
SPECIFIED = {
    "MediaRecorder": "stream mimeType state videoBitsPerSecond audioBitsPerSecond audioBitrateMode start() stop() "
    "pause() resume() requestData() isTypeSupported()",
    "MediaRecorderOptions": "mimeType audioBitsPerSecond videoBitsPerSecond bitsPerSecond audioBitrateMode "
    "videoKeyFrameIntervalDuration videoKeyFrameIntervalCount",
    "BlobEvent": "data timecode",
    "MediaStream": "id active getAudioTracks() getVideoTracks() getTracks() getTrackById() addTrack() "
    "removeTrack() clone()",
    "MediaStreamTrack": "kind id label enabled muted readyState clone() stop() getCapabilities() getConstraints() "
    "getSettings() applyConstraints()",
    "MediaStreamTrackEvent": "track",
    "MediaDevices": "enumerateDevices() getSupportedConstraints() getUserMedia() getDisplayMedia() selectAudioOutput()",
    "DeviceChangeEvent": "devices userInsertedDevices",
    "MediaDeviceInfo": "deviceId groupId kind label toJSON()",
    "InputDeviceInfo": "getCapabilities()",
    "OverconstrainedError": "constraint",
    "CanvasCaptureMediaStreamTrack": "canvas requestFrame()",
    "HTMLCanvasElement": "captureStream()",
    "HTMLMediaElement": "captureStream()",
    "ErrorEvent": "error",
}
# What the two overviews of MDN list, today or in earlier years.
LISTED = """
BlobEvent MediaRecorder MediaRecorderErrorEvent Blob DOMException CanvasCaptureMediaStreamTrack InputDeviceInfo
MediaDeviceInfo MediaDevices MediaStream MediaStreamEvent MediaStreamTrack MediaStreamTrackEvent MediaTrackConstraints
MediaTrackSettings MediaTrackSupportedConstraints MediaTrackCapabilities MediaStreamConstraints OverconstrainedError
NavigatorUserMedia NavigatorUserMediaError ConstrainBoolean ConstrainDOMString ConstrainDouble ConstrainULong
DoubleRange LongRange ULongRange URL.createObjectURL() HTMLMediaElement HTMLMediaElement.captureStream()
HTMLCanvasElement.captureStream() MediaStreamAudioSourceNode MediaStreamAudioDestinationNode RTCPeerConnection
ImageCapture Navigator.mediaDevices
"""
EVENTS = """
start stop dataavailable pause resume error addtrack removetrack ended mute unmute overconstrained devicechange
"""
CONSTRAINTS = """
width height aspectRatio frameRate facingMode resizeMode sampleRate sampleSize echoCancellation autoGainControl
noiseSuppression latency channelCount deviceId groupId backgroundBlur
whiteBalanceMode exposureMode focusMode pointsOfInterest exposureCompensation exposureTime colorTemperature iso
brightness contrast saturation sharpness focusDistance pan tilt zoom torch
"""


@pytest.mark.promise("w3c-entries")
def test_every_name_of_the_specifications_has_a_row() -> None:
    wanted = {*LISTED.split(), *SPECIFIED} - {"MediaRecorderOptions"}
    wanted |= {f"{interface}.{member}" for interface, members in SPECIFIED.items() for member in members.split()}
    wanted |= {f"{event} event" for event in EVENTS.split()}
    wanted |= {f"{name} constraint" for name in CONSTRAINTS.split()}
    missing = wanted - {row.name for row in rows()}
    assert not missing


def test_no_name_twice() -> None:
    names = [row.name for row in rows()]
    assert sorted(names) == sorted(set(names))


def public_names() -> set[str]:
    """All exported classes with what they declare, in the page's spelling."""
    names = set()
    for exported in msrecd.__all__:
        owner = getattr(msrecd, exported)
        if not inspect.isclass(owner):
            continue
        names.add(exported)
        names |= {f"{exported}.{name}" for name in set_by_constructor(owner)}
        for name in dir(owner):
            member = inspect.getattr_static(owner, name)
            declared = next(base for base in owner.__mro__ if name in vars(base))
            is_ours = declared is owner or declared.__name__.startswith("_")
            if name.startswith("_") or not is_ours or not declared.__module__.startswith("msrecd"):
                continue
            overrides = any(name in vars(base) for base in owner.__mro__[owner.__mro__.index(declared) + 1 :])
            if isinstance(member, event_handler):
                names.add(f"event {name[2:]} of {exported}")
            elif not overrides:
                is_method = inspect.isfunction(member) or isinstance(member, staticmethod | classmethod)
                names.add(f"{exported}.{name}{'()' if is_method else ''}")
    names |= {f"option {field.name}" for field in dataclasses.fields(options.RecorderOptions)}
    names |= {f"constraint {name}" for kind in constraints.PROPERTIES.values() for name in kind}
    return names


def test_everything_public_is_on_the_page() -> None:
    """Nothing is offered to programs that the page does not explain."""
    missing = public_names() - {row.here for row in rows()}
    assert not missing, sorted(missing)


def test_every_decision_is_told() -> None:
    told = re.findall(r"^\| (C\d+) \|", PAGE.read_text(), re.MULTILINE)
    assert told == [f"C{number}" for number in range(1, 18)]
