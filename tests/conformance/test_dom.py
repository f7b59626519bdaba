"""Events, blobs and exceptions as the DOM, the File API and WebIDL have them; contract section 2."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import msrecd

NAMED = (
    "AbortError",
    "InvalidModificationError",
    "InvalidStateError",
    "NotAllowedError",
    "NotFoundError",
    "NotReadableError",
    "NotSupportedError",
    "UnknownError",
)


# --- names -----------------------------------------------------------------------------------------------------------


def test_every_public_name_can_be_had() -> None:
    for name in msrecd.__all__:
        assert getattr(msrecd, name) is not None
    with pytest.raises(AttributeError, match="Recorder"):
        _ = msrecd.Recorder  # type: ignore[attr-defined]


def test_virtual_devices_need_no_import_of_their_own() -> None:
    program = "import msrecd; print(msrecd.devices.virtual.VirtualCamera('X').device_id)"
    ids = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True).stdout
        for _ in range(2)
    ]
    assert ids[0] == ids[1] != ""


@pytest.mark.parametrize("name", NAMED)
def test_named_exceptions(name: str) -> None:
    made = getattr(msrecd, name)("what happened")
    assert (made.name, made.message, isinstance(made, msrecd.DOMException)) == (name, "what happened", True)
    for twin in (copy.copy(made), pickle.loads(pickle.dumps(made))):
        assert (type(twin), twin.name, twin.message) == (type(made), name, "what happened")


def test_dom_exception() -> None:
    assert (msrecd.DOMException().name, msrecd.DOMException().message) == ("Error", "")
    assert msrecd.DOMException("m", "FooError").name == "FooError"
    narrow = msrecd.OverconstrainedError("width", "too wide")
    assert (narrow.name, narrow.constraint, narrow.message) == ("OverconstrainedError", "width", "too wide")
    assert msrecd.OverconstrainedError("width").message == ""
    assert pickle.loads(pickle.dumps(narrow)).constraint == "width"
    with pytest.raises(TypeError):
        msrecd.OverconstrainedError()  # type: ignore[call-arg]


# --- Blob ------------------------------------------------------------------------------------------------------------


def test_blob_of_parts() -> None:
    source = bytearray(b"x")
    parts = [b"ab", "c\u00e9", source, memoryview(b"yz"), np.arange(2, dtype=np.uint8), msrecd.Blob([b"q"])]
    blob = msrecd.Blob(parts, {"type": "text/plain"})
    source[0] = 0
    assert bytes(blob) == "ab\u0063\u00e9xyz\0\1q".encode()
    assert (blob.size, blob.type) == (len(bytes(blob)), "text/plain")
    assert asyncio.run(blob.bytes()) == asyncio.run(blob.array_buffer()) == bytes(blob)
    assert bytes(msrecd.Blob(part for part in (b"a", b"b"))) == b"ab"
    assert (bytes(msrecd.Blob()), msrecd.Blob().size, msrecd.Blob().type) == (b"", 0, "")
    with pytest.raises(AttributeError):
        blob.size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "kept"), [("Text/PLAIN", "text/plain"), ("te\txt", ""), ("t\u00e9xt", ""), ("", ""), (None, "")]
)
def test_blob_type(given: str | None, kept: str) -> None:
    assert msrecd.Blob([], {"type": given}).type == kept


@pytest.mark.parametrize("arguments", [(b"ab",), ("ab",), (5,), ([5],), ([None],), ([], "x"), ([], {"type": 5})])
def test_blob_of_something_else(arguments: Any) -> None:
    with pytest.raises(TypeError):
        msrecd.Blob(*arguments)


def test_blob_slice_and_text() -> None:
    blob = msrecd.Blob([b"hello ", b"world"], {"type": "a/b"})
    found = [bytes(blob.slice(*range_)) for range_ in ((6,), (0, 5), (-5, -1), (5, 2), (3, 300))]
    assert found == [b"world", b"hello", b"worl", b"", b"lo world"]
    assert (blob.slice(1).type, blob.slice(0, 1, "C/d").type, blob.slice(0, 1, None).type) == ("", "c/d", "")
    with pytest.raises(TypeError):
        blob.slice("1")  # type: ignore[arg-type]
    assert asyncio.run(blob.text()) == "hello world"
    assert asyncio.run(msrecd.Blob([b"\xff"]).text()) == "\ufffd"


# --- events ----------------------------------------------------------------------------------------------------------


def test_event() -> None:
    event = msrecd.Event("x")
    assert (event.type, event.target, event.current_target, event.is_trusted) == ("x", None, None, False)
    assert (event.bubbles, event.cancelable, event.composed, event.default_prevented) == (False,) * 4
    given = msrecd.Event("x", {"bubbles": True, "cancelable": 1, "unknown": 5})
    assert (given.bubbles, given.cancelable, given.composed) == (True, True, False)
    assert given.time_stamp >= event.time_stamp > 0
    for wrong in ((), (5,), ("x", 5)):
        with pytest.raises(TypeError):
            msrecd.Event(*wrong)  # type: ignore[arg-type]


def test_error_event() -> None:
    error = ValueError("v")
    for event in (
        msrecd.ErrorEvent("error", {"error": error, "message": "m"}),
        msrecd.ErrorEvent("error", error=error, message="m"),
    ):
        assert (event.type, event.error, event.message) == ("error", error, "m")
    assert (msrecd.ErrorEvent("error").error, msrecd.ErrorEvent("error").message) == (None, "")
    with pytest.raises(TypeError):
        msrecd.ErrorEvent("error", {"error": "no exception"})


def test_blob_event() -> None:
    blob = msrecd.Blob([b"x"])
    event = msrecd.BlobEvent("dataavailable", {"data": blob, "timecode": 5})
    assert (event.data, event.timecode, event.chunk, event.chunk_end) == (blob, 5.0, None, False)
    assert msrecd.BlobEvent("x", data=blob).timecode == 0.0
    wrong: list[dict[str, object]] = [{}, {"data": b"x"}, {"data": blob, "timecode": "1"}, {"data": blob, "chunk": "1"}]
    wrong += [{"data": blob, "timecode": number} for number in (float("nan"), float("inf"), True)]
    for init in wrong:
        with pytest.raises(TypeError):
            msrecd.BlobEvent("dataavailable", init)


def test_device_change_event() -> None:
    event = msrecd.DeviceChangeEvent("devicechange")
    assert (list(event.devices), list(event.user_inserted_devices)) == ([], [])
    with pytest.raises(TypeError):
        msrecd.DeviceChangeEvent("devicechange", {"devices": [5]})


def listened(*types: str) -> tuple[msrecd.EventTarget, list[str], Callable[[str], Callable[[Any], None]]]:
    seen: list[str] = []
    return msrecd.EventTarget(), seen, lambda name: lambda _: seen.append(name)


def test_listeners_are_called_in_order_and_once_each() -> None:
    target, seen, note = listened()
    first, second = note("first"), note("second")
    for listener in (first, first, second, first):
        target.add_event_listener("x", listener)
    target.add_event_listener("x", None)
    event = msrecd.Event("x")
    assert target.dispatch_event(event) is True
    assert seen == ["first", "second"]
    assert (event.target, event.current_target, event.is_trusted) == (target, None, False)
    target.remove_event_listener("x", first)
    target.remove_event_listener("x", first)
    target.remove_event_listener("y", first)
    target.dispatch_event(event)
    assert seen == ["first", "second", "second"]


def test_once_and_methods() -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard = 0

        def hear(self, _: msrecd.Event) -> None:
            self.heard += 1

    target, seen, note = listened()
    target.add_event_listener("x", note("once"), once=True)
    target.add_event_listener("x", note("once too"), True)
    target.add_event_listener("x", note("as an option"), {"once": True})
    target.add_event_listener("x", note("always"), {"once": False})
    listener = Listener()
    target.add_event_listener("x", listener.hear)
    target.add_event_listener("x", listener.hear)
    for _ in range(2):
        target.dispatch_event(msrecd.Event("x"))
    assert seen == ["once", "once too", "as an option", "always", "always"]
    assert listener.heard == 2
    target.remove_event_listener("x", listener.hear)
    target.dispatch_event(msrecd.Event("x"))
    assert listener.heard == 2


def test_what_a_listener_adds_or_removes_counts_at_once_or_next_time() -> None:
    target, seen, note = listened()
    removed, added = note("removed"), note("added")

    def changes(_: msrecd.Event) -> None:
        target.remove_event_listener("x", removed)
        target.add_event_listener("x", added)

    target.add_event_listener("x", changes)
    target.add_event_listener("x", removed)
    target.dispatch_event(msrecd.Event("x"))
    assert seen == []
    target.dispatch_event(msrecd.Event("x"))
    assert seen == ["added"]


def test_cancelling_and_stopping() -> None:
    target, seen, note = listened()
    target.add_event_listener("x", lambda event: event.prevent_default())
    target.add_event_listener("x", lambda event: event.stop_propagation())
    target.add_event_listener("x", lambda event: event.stop_immediate_propagation())
    target.add_event_listener("x", note("never"))
    assert target.dispatch_event(msrecd.Event("x")) is True
    cancelable = msrecd.Event("x", {"cancelable": True})
    assert target.dispatch_event(cancelable) is False
    assert cancelable.default_prevented
    assert seen == []


def test_an_event_that_is_being_dispatched_cannot_be_again() -> None:
    target, seen, _ = listened()

    def again(event: msrecd.Event) -> None:
        assert event.current_target is target
        with pytest.raises(msrecd.InvalidStateError):
            target.dispatch_event(event)
        seen.append("refused")

    target.add_event_listener("x", again)
    event = msrecd.Event("x")
    target.dispatch_event(event)
    target.dispatch_event(event)
    assert seen == ["refused"] * 2


@pytest.mark.parametrize("wrong", ["x", None, 5])
def test_what_is_no_event_and_no_listener(wrong: Any) -> None:
    target = msrecd.EventTarget()
    with pytest.raises(TypeError):
        target.dispatch_event(wrong)
    if wrong is not None:
        with pytest.raises(TypeError):
            target.add_event_listener("x", wrong)
    if not isinstance(wrong, str):
        with pytest.raises(TypeError):
            target.add_event_listener(wrong, print)
    else:
        with pytest.raises(TypeError):
            msrecd.MediaStream().onaddtrack = wrong


def test_errors_of_listeners_reach_the_loop_and_nobody_else() -> None:
    async def main() -> None:
        reported: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        target, seen, note = listened()
        done = asyncio.Event()

        def breaks(_: msrecd.Event) -> None:
            raise ValueError

        async def breaks_later(_: msrecd.Event) -> None:
            await asyncio.sleep(0)
            raise KeyError

        async def hears(_: msrecd.Event) -> None:
            await asyncio.sleep(0)
            seen.append("async")
            done.set()

        for listener in (breaks, breaks_later, hears, note("sync")):
            target.add_event_listener("x", listener)
        target.dispatch_event(msrecd.Event("x"))
        assert seen == ["sync"]
        await asyncio.wait_for(done.wait(), 10)
        assert seen == ["sync", "async"]
        assert [type(error) for error in reported] == [ValueError, KeyError]

    asyncio.run(main())


def test_event_handler_attributes() -> None:
    stream, seen = msrecd.MediaStream(), list[str]()

    def heard(handler: Callable[[Any], object] | None) -> list[str]:
        stream.onaddtrack = handler
        assert stream.onaddtrack is handler
        seen.clear()
        stream.dispatch_event(msrecd.Event("addtrack"))
        return seen

    assert stream.onaddtrack is None
    assert heard(lambda _: seen.append("one")) == ["one"]
    stream.add_event_listener("addtrack", lambda _: seen.append("listener"))
    assert heard(lambda _: seen.append("two")) == ["two", "listener"]
    assert heard(None) == ["listener"]
    assert heard(lambda _: seen.append("three")) == ["listener", "three"]


@pytest.mark.parametrize(
    ("interface", "types"),
    [
        (msrecd.MediaRecorder, "start stop dataavailable pause resume error"),
        (msrecd.MediaStream, "addtrack removetrack"),
        (msrecd.MediaStreamTrack, "mute unmute ended"),
        (msrecd.MediaDevices, "devicechange"),
    ],
)
def test_every_event_has_its_attribute(interface: type, types: str) -> None:
    assert issubclass(interface, msrecd.EventTarget)
    assert all(hasattr(interface, f"on{type_}") for type_ in types.split())


@pytest.mark.parametrize("stop", ["stop_propagation", "stop_immediate_propagation"])
def test_an_event_that_was_stopped_before_its_dispatch_reaches_no_listener(stop: str) -> None:
    """dom/events/Event-propagation.html"""
    target, seen, note = listened()
    target.add_event_listener("x", note("heard"))
    target.add_event_listener("x", note("captured"), {"capture": True})
    event = msrecd.Event("x")
    getattr(event, stop)()
    assert target.dispatch_event(event) is True
    assert seen == []
    target.dispatch_event(event)  # the flags are cleared by the dispatch
    assert seen == ["captured", "heard"]


def test_capturing_listeners_come_first_and_can_stop_the_others() -> None:
    target, seen, note = listened()
    target.add_event_listener("x", note("bubbling"))
    target.add_event_listener("x", note("capturing"), {"capture": True})
    target.dispatch_event(msrecd.Event("x"))
    assert seen == ["capturing", "bubbling"]
    target.add_event_listener("x", lambda event: event.stop_propagation(), {"capture": True})
    target.dispatch_event(msrecd.Event("x"))
    assert seen == ["capturing", "bubbling", "capturing"]


def test_a_listener_is_known_by_its_function_and_by_capture() -> None:
    target, seen, note = listened()
    both = note("both")
    target.add_event_listener("x", both)
    target.add_event_listener("x", both, {"capture": True})
    target.dispatch_event(msrecd.Event("x"))
    assert len(seen) == 2
    target.remove_event_listener("x", both, {"capture": True})
    target.dispatch_event(msrecd.Event("x"))
    assert len(seen) == 3
    target.remove_event_listener("x", both)
    target.dispatch_event(msrecd.Event("x"))
    assert len(seen) == 3


def test_a_passive_listener_cannot_cancel() -> None:
    target, _, _ = listened()
    target.add_event_listener("x", lambda event: event.prevent_default(), {"passive": True})
    event = msrecd.Event("x", {"cancelable": True})
    assert target.dispatch_event(event) is True
    assert not event.default_prevented


def test_an_aborted_signal_removes_its_listeners() -> None:
    target, seen, note = listened()
    controller = msrecd.AbortController()
    target.add_event_listener("x", note("before"), {"signal": controller.signal})
    target.dispatch_event(msrecd.Event("x"))
    controller.abort()
    controller.abort("only the first call counts")
    target.add_event_listener("x", note("after"), {"signal": controller.signal})
    target.dispatch_event(msrecd.Event("x"))
    assert seen == ["before"]
    assert controller.signal.aborted
    with pytest.raises(msrecd.AbortError):
        controller.signal.throw_if_aborted()
    with pytest.raises(TypeError):
        target.add_event_listener("x", note("never"), {"signal": None})


def test_phase_and_path() -> None:
    target, _, _ = listened()
    during: list[Any] = []
    target.add_event_listener("x", lambda event: during.extend([event.event_phase, event.composed_path()]))
    event = msrecd.Event("x")
    assert (event.event_phase, event.composed_path()) == (msrecd.Event.NONE, [])
    target.dispatch_event(event)
    assert during == [msrecd.Event.AT_TARGET, [target]]
    assert (event.event_phase, event.composed_path()) == (msrecd.Event.NONE, [])


def test_a_blob_streams_and_ends_its_lines() -> None:
    async def pieces(blob: msrecd.Blob) -> list[bytes]:
        return [piece async for piece in blob.stream()]

    large = msrecd.Blob([b"a" * 100_000, b"b"])
    got = asyncio.run(pieces(large))
    assert b"".join(got) == bytes(large)
    assert max(map(len, got)) <= 65536
    assert asyncio.run(pieces(msrecd.Blob())) == []
    assert bytes(msrecd.Blob(["a\r\nb\rc\n"], {"endings": "native"})) == b"a\nb\nc\n"
    assert bytes(msrecd.Blob(["a\r\n"])) == b"a\r\n"
    with pytest.raises(TypeError):
        msrecd.Blob([], {"endings": "dos"})


def test_codes_and_types_of_exceptions() -> None:
    assert msrecd.NotFoundError("x").code == 8
    assert msrecd.OverconstrainedError("width").code == 0
    assert msrecd.DOMException("x", "SyntaxError").code == 12
    with pytest.raises(TypeError):
        msrecd.DOMException(5)  # type: ignore[arg-type]
