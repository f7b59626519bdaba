"""msrecd for a test of web-platform-tests that runs in Node (page.mjs): names and values of WebIDL in and out.

What only JavaScript has is left out: strings as numbers, prototypes.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

import msrecd

PAGE = Path(__file__).parent / "page.mjs"
BASES = (
    *(
        "BaseAudioContext",
        "AudioContext",
        "OfflineAudioContext",
        "AudioBuffer",
        "AudioParam",
        "AudioNode",
        "PeriodicWave",
    ),
    *("AudioDestinationNode", "AnalyserNode", "AudioScheduledSourceNode", "AudioBufferSourceNode", "BiquadFilterNode"),
    *("ChannelMergerNode", "ChannelSplitterNode", "ConstantSourceNode", "DelayNode", "DynamicsCompressorNode"),
    *("GainNode", "MediaElementAudioSourceNode", "MediaStreamAudioDestinationNode", "MediaStreamAudioSourceNode"),
    *("OscillatorNode", "StereoPannerNode", "OfflineAudioCompletionEvent"),
)
DTYPES = {
    "Float32Array": np.float32,
    "Float64Array": np.float64,
    "Uint8Array": np.uint8,
    "Uint8ClampedArray": np.uint8,
    "Int8Array": np.int8,
    "Uint16Array": np.uint16,
    "Int16Array": np.int16,
    "Uint32Array": np.uint32,
    "Int32Array": np.int32,
}
UNDEFINED = object()


def snake(name: str) -> str:
    return name if name == "Q" else re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1].lower(), name)


def camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def interface(name: str) -> type[Any] | None:
    found = getattr(msrecd, name, None)
    if found is None:  # not exported: a base class
        found = next((base for base in msrecd.OscillatorNode.__mro__ if base.__name__ == name), None)
    return found


def described() -> list[dict[str, Any]]:
    """The interfaces, bases first, with the members that each adds."""
    known: dict[str, type[Any]] = {}
    for name in BASES:
        found = interface(name)
        if found is not None:
            known[name] = found
    rows = []
    for name, found in sorted(known.items(), key=lambda one: len(one[1].__mro__)):
        base = next((one.__name__ for one in found.__mro__[1:] if one.__name__ in known), None)
        own = [one for one in found.__mro__ if base is None or one not in known[base].__mro__]
        members = {key: value for one in reversed(own) for key, value in vars(one).items() if not key.startswith("_")}
        attributes, methods = [], []
        for key, value in members.items():
            if key in ("add_event_listener", "remove_event_listener", "dispatch_event"):
                continue
            if inspect.isfunction(value):
                methods.append(
                    {"name": camel(key), "least": least_of(value) - 1, "isAsync": inspect.iscoroutinefunction(value)}
                )
            else:
                is_fixed = isinstance(value, property) and value.fset is None
                attributes.append({"name": camel(key), "isFixed": is_fixed})
        for key, value in public_of(name, found).items():
            if all(one["name"] != camel(key) for one in attributes):
                attributes.append({"name": camel(key), "isFixed": isinstance(value, msrecd.AudioParam)})
        if base is None and issubclass(found, msrecd.EventTarget):
            base = "EventTarget"
        rows.append(
            {
                "name": name,
                "base": base,
                "least": least_of(found.__init__) - 1,
                "attributes": attributes,
                "methods": methods,
            }
        )
    return rows


def public_of(name: str, found: type[Any]) -> dict[str, Any]:
    """The attributes of the instance: parameters of a node, and what a program sets."""
    if not name.endswith("Node") or name in ("AudioNode", "AudioDestinationNode", "AudioScheduledSourceNode"):
        return {}
    if name.startswith("Media"):
        return {}
    return {key: one for key, one in vars(found(msrecd.OfflineAudioContext(1, 1, 8000))).items() if key[0] != "_"}


def least_of(function: Any) -> int:
    """How many arguments must be given, `self` included."""
    return sum(
        one.default is inspect.Parameter.empty and one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        for one in inspect.signature(function).parameters.values()
    )


class Objects:
    """Answers the questions of one page; on the loop."""

    def __init__(self, write: Any) -> None:
        """write: sends an event, or what has become of a promise."""
        self._write = write
        self._all: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._answer(question)
        except Exception as exc:
            return {"error": failure(exc)}

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        what = question["do"]
        if what == "describe":
            return {"interfaces": described()}
        if what == "new":
            found = interface(question["name"])
            assert found is not None
            arguments = drop_undefined([self._in(one) for one in question["args"]])
            if question["name"] == "OfflineAudioContext":  # WebIDL's unsigned long
                arguments[:2] = [int(one) if isinstance(one, float) else one for one in arguments[:2]]
            return {"value": self._out(found(*arguments))}
        target = self._all[question["of"]]
        if what == "get":
            return {"value": self._out(getattr(target, snake(question["name"])))}
        if what == "set":
            setattr(target, snake(question["name"]), self._in(question["value"]))
        elif what == "write":
            target.get_channel_data(question["channel"])[:] = self._in(question["value"])
        elif what == "listen":
            target.add_event_listener(question["type"], lambda event: self._tell(question["of"], event))
        elif what == "call":
            return self._call(target, question)
        return {}

    def _call(self, target: Any, question: dict[str, Any]) -> dict[str, Any]:
        arguments = [self._in(one) for one in question["args"]]
        before = [one.tobytes() if isinstance(one, np.ndarray) else None for one in arguments]
        method = getattr(target, snake(question["name"]))
        most = len(inspect.signature(method).parameters)  # WebIDL ignores what is too much
        value = method(*drop_undefined(arguments[:most]))
        filled = {
            str(index): self._out(one)
            for index, one in enumerate(arguments)
            if isinstance(one, np.ndarray) and one.tobytes() != before[index]
        }
        if inspect.iscoroutine(value):
            number = len(self._tasks) + max([0, *self._all]) + 1
            self._numbers[-number] = number
            self._all[number] = None
            task = asyncio.ensure_future(self._await(number, value))
            self._tasks.add(task)
            return {"value": {"p": number}, "filled": filled}
        return {"value": self._out(value), "filled": filled}

    async def _await(self, number: int, coroutine: Any) -> None:
        try:
            self._write({"p": number, "value": self._out(await coroutine)})
        except Exception as exc:
            self._write({"p": number, "error": failure(exc)})

    def _tell(self, number: int, event: Any) -> None:
        members = {}
        if isinstance(event, msrecd.OfflineAudioCompletionEvent):
            members["renderedBuffer"] = self._out(event.rendered_buffer)
        self._write({"of": number, "type": event.type, "members": members})

    def _in(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "u" in value:
            return UNDEFINED
        if "n" in value:
            return float(value["n"].replace("Infinity", "inf"))
        if "o" in value:
            return self._all[value["o"]]
        if "a" in value:
            return np.frombuffer(base64.b64decode(value["d"]), dtype=DTYPES[value["a"]]).copy()
        if "l" in value:
            return [self._in(one) for one in value["l"]]
        if "f" in value:
            return lambda *_: None
        return {
            snake(key): self._in(one)
            for key, one in value["m"].items()
            if "u" not in (one if isinstance(one, dict) else ())
        }

    def _out(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float, np.integer, np.floating)):
            number = float(value)
            if math.isfinite(number):
                return int(number) if number.is_integer() and math.copysign(1, number) > 0 else number
            return {"n": "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"}
        if isinstance(value, np.ndarray):
            kind = next(name for name, dtype in DTYPES.items() if value.dtype == dtype)
            return {"a": kind, "d": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()}
        if isinstance(value, (list, tuple)):
            return {"l": [self._out(one) for one in value]}
        if isinstance(value, dict):
            return {"m": {camel(key): self._out(one) for key, one in value.items()}}
        if id(value) not in self._numbers:
            number = max([0, *self._all]) + 1
            self._all[number] = value
            self._numbers[id(value)] = number
        return {"o": self._numbers[id(value)], "c": type(value).__name__}


def drop_undefined(arguments: list[Any]) -> list[Any]:
    """Those at the end are not there; others are None."""
    while arguments and arguments[-1] is UNDEFINED:
        arguments.pop()
    return [None if one is UNDEFINED else one for one in arguments]


def failure(exc: Exception) -> list[str]:
    """[kind of error in JavaScript, message]."""
    if isinstance(exc, msrecd.DOMException):
        return [exc.name, str(exc)]
    if isinstance(exc, TypeError):
        return ["TypeError", str(exc)]
    if isinstance(exc, (ValueError, OverflowError)):
        return ["RangeError", str(exc)]
    return ["Error", f"{type(exc).__name__}: {exc}"]


async def run(root: Path, name: str, *, timeout_s: float = 90.0) -> dict[str, Any]:
    """One file of the tests; its results: {"results": [{"name", "status", "message"}], "problem"}."""
    questions_out, questions_in = os.pipe()
    answers_out, answers_in = os.pipe()
    news_out, news_in = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *("node", str(PAGE), str(root), name, *map(str, (questions_in, answers_out, news_out))),
        stdout=asyncio.subprocess.PIPE,
        pass_fds=(questions_in, answers_out, news_out),
    )
    for one in (questions_in, answers_out, news_out):
        os.close(one)
    loop = asyncio.get_running_loop()

    def write(descriptor: int, what: dict[str, Any]) -> None:
        data = json.dumps(what).encode() + b"\n"
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except BrokenPipeError:
            return

    objects = Objects(lambda what: None if serving.done() else write(news_in, what))
    reader = asyncio.StreamReader(limit=1 << 30)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(questions_out, "rb")
    )

    async def serve() -> None:
        while line := await reader.readline():
            answer = objects.answer(json.loads(line))
            await asyncio.to_thread(write, answers_in, answer)

    serving = asyncio.ensure_future(serve())
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()  # to the end of its output, which closes the pipe
        return {"results": [], "problem": "it did not end"}
    finally:
        serving.cancel()
        transport.close()
        os.close(answers_in)
        os.close(news_in)
    found: dict[str, Any] = json.loads(output or b'{"results": [], "problem": "nothing came"}')
    return found
