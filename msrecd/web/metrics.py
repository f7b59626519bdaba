"""`/metrics`: what the states say, in the text format of Prometheus. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format. What concerns the machine is as old as
`state/health`, a minute at most; a scrape measures nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from msrecd.vocabulary.verbs import RECORDER_STATES

TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
_DEVICE_STATES = ("free", "busy", "missing")


class Happened:
    """Counts what happened to the recorders since the page began."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        self.gap_s: dict[str, float] = defaultdict(float)
        self.chunk_bytes: Counter[str] = Counter()
        self.dropped_frames: Counter[str] = Counter()

    def count(self, event: Mapping[str, Any]) -> None:
        """An event of a recorder."""
        recorder, kind = event.get("recorder"), event.get("event_type")
        if not isinstance(recorder, str) or not isinstance(kind, str):
            return
        self.events[recorder, kind] += 1
        if kind == "gap":
            self.gap_s[recorder] += float(event.get("duration_s") or 0.0)
        elif kind == "chunk":
            self.chunk_bytes[recorder] += int(event.get("bytes") or 0)
            self.dropped_frames[recorder] += int(_at(event, "tracks", "video", "dropped") or 0)


class _Page:
    """Lines of metrics, all of one name together, as the format wants them."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def add(self, name: str, kind: str, doc: str, samples: Iterable[tuple[Labels, object]]) -> None:
        """Samples without a value are left out; true is 1."""
        lines = []
        for labels, value in samples:
            if isinstance(value, (bool, int, float)):
                text = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
                number = float(value)
                shown = int(number) if number.is_integer() else number
                lines.append(f"msrecd_{name}{{{text}}} {shown}" if text else f"msrecd_{name} {shown}")
        if lines:
            self._lines[name] = [f"# HELP msrecd_{name} {doc}", f"# TYPE msrecd_{name} {kind}", *lines]

    def one(self, name: str, kind: str, doc: str, value: object) -> None:
        self.add(name, kind, doc, [({}, value)])

    def text(self) -> str:
        return "\n".join(line for lines in self._lines.values() for line in lines) + "\n"


def metrics(states: Mapping[str, Any], happened: Happened, page: Mapping[str, object], device_id: str) -> str:
    """All metrics.

    Args:
        states: by path, as on the bus.
        page: what the page says of itself for state/health.
    """
    out = _Page()
    daemon: Mapping[str, Any] = states.get("daemon") or {}
    out.add("info", "gauge", "Which daemon this is.", [({"device": device_id, "version": _text(daemon, "version")}, 1)])
    out.one("clock_synchronized", "gauge", "Whether the clock is trusted.", daemon.get("clock") == "synchronized")
    recorders = {
        path.removeprefix("recorder/"): payload for path, payload in states.items() if path.startswith("recorder/")
    }
    _recorders(out, recorders, happened)
    _health(out, states.get("health") or {})
    out.add(
        "device_state",
        "gauge",
        "Which state a camera or microphone is in.",
        [
            (
                {"device_id": _text(device, "device_id"), "label": _text(device, "label"), "state": state},
                device.get("state") == state,
            )
            for device in states.get("devices") or ()
            for state in _DEVICE_STATES
        ],
    )
    for name, value in page.items():
        out.one(f"web_{name}", "gauge", "Of the page, see web in state/health.", value)
    return out.text()


def _recorders(out: _Page, recorders: Mapping[str, Mapping[str, Any]], happened: Happened) -> None:
    def each(*path: str) -> list[tuple[Labels, object]]:
        return [({"recorder": name}, _at(state, *path)) for name, state in recorders.items()]

    out.add(
        "recorder_state",
        "gauge",
        "Which state a recorder is in.",
        [
            ({"recorder": name, "state": one}, state.get("state") == one)
            for name, state in recorders.items()
            for one in RECORDER_STATES
        ],
    )
    out.add(
        "recorder_error",
        "gauge",
        "Why a recorder is in error.",
        [
            ({"recorder": name, "code": str(_at(state, "error", "code"))}, 1)
            for name, state in recorders.items()
            if state.get("error")
        ],
    )
    out.add("recording_bytes", "gauge", "Of the present recording.", each("bytes"))
    out.add("recording_chunks", "gauge", "Of the present recording.", each("chunks"))
    out.add("recording_dropped_frames", "gauge", "Of the present recording.", each("dropped_frames"))
    out.add(
        "events_total",
        "counter",
        "Events of a recorder since the page began.",
        [({"recorder": name, "event": kind}, count) for (name, kind), count in sorted(happened.events.items())],
    )
    counters: tuple[tuple[str, str, Mapping[str, float]], ...] = (
        ("gap_seconds_total", "Media that is missing.", happened.gap_s),
        ("chunk_bytes_total", "Of finished chunks.", happened.chunk_bytes),
        ("dropped_frames_total", "Of finished chunks.", happened.dropped_frames),
    )
    for metric, doc, counted in counters:
        samples = [({"recorder": name}, counted.get(name, 0)) for name in recorders]
        out.add(metric, "counter", f"{doc} Since the page began.", samples)


def _health(out: _Page, health: Mapping[str, Any]) -> None:
    for metric, path, doc in (
        ("uptime_seconds", ("uptime_s",), "Since the machine was started."),
        ("temperature_celsius", ("cpu_temp_c",), "Of the processor."),
        ("load1", ("load1",), "Load average of a minute."),
        ("memory_available_bytes", ("mem_available_bytes",), "Of the machine."),
        ("cma_free_bytes", ("cma_free_bytes",), "Memory for cameras."),
        ("resident_bytes", ("rss_bytes",), "Of the daemon."),
        ("disk_free_bytes", ("disk", "free_bytes"), "Of the recordings' file system."),
        ("disk_size_bytes", ("disk", "total_bytes"), "Of the recordings' file system."),
        ("recordings_bytes", ("disk", "recordings_bytes"), "Of all recordings."),
        ("protected_bytes", ("disk", "protected_bytes"), "Of recordings that no limit deletes."),
        ("disk_seconds_left", ("disk", "seconds_left_estimate"), "Until the limits are reached."),
        ("disk_written_bytes", ("disk", "written_bytes"), "Since the daemon was started."),
        ("disk_sync_seconds_max", ("disk", "sync_s_max"), "Of the longest sync."),
        ("mqtt_connected", ("mqtt", "connected"), "Whether the broker is there."),
        ("mqtt_spool_events", ("mqtt", "spooled"), "Events that wait for the broker."),
        ("mqtt_events_dropped", ("mqtt", "dropped"), "Events that were lost."),
    ):
        out.one(metric, "gauge", doc, _at(health, *path))
    now = _at(health, "throttled", "now")
    if isinstance(now, (list, tuple)):
        out.one("under_voltage", "gauge", "Whether the supply is too weak now.", "under_voltage" in now)
        out.one("throttled", "gauge", "Whether the processor is slowed down now.", "throttled" in now)
    rates: Mapping[str, Any] = health.get("recorders") or {}
    for metric, key, doc in (
        ("recorder_frames_per_second", "fps", "Of the newest chunk."),
        ("recorder_bits_per_second", "bitrate_bps", "Of the newest chunk."),
        ("recorder_queue_milliseconds", "queue_ms", "How long data waits for the disk."),
        ("recorder_discarded_bytes", "discarded_bytes", "What the disk did not take."),
        ("recorder_pre_roll_bytes", "pre_roll_bytes", "Held in memory for the pre-roll."),
    ):
        out.add(metric, "gauge", doc, [({"recorder": name}, _at(rate, key)) for name, rate in rates.items()])


def _at(value: Any, *path: str) -> Any:
    """What stands at a path of mappings; None when it is not there."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _text(value: Mapping[str, Any], key: str) -> str:
    return str(value.get(key) or "")


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
