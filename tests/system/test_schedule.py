"""Schedules of a real daemon, on a wall clock that is stepped to where something is to happen.

What is awaited is a state that the daemon publishes; no test waits for a window to pass. The windows end and begin some
seconds after each step, by the daemon's own reckoning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from broker import Broker
from config_text import configuration, recorder, window
from console import Console
from daemon import DaemonFor, DaemonProcess
from waiting import until
from wallclock import WallClock

pytestmark = pytest.mark.timeout(300)
RECORDER = recorder("cam0", video={"width": 320, "height": 240, "frame_rate": 30}, timeslice="500ms")
NIGHT = window(start="22:00", stop="06:00", timezone="Europe/Berlin")
MORNING = window(start="05:30", duration="1h", timezone="Europe/Berlin")
SOON_S = 60.0  # a step is seen within a second; the rest is for machines that are busy, the daemon's start included


class Site:
    """A daemon with its wall clock, and what it says."""

    def __init__(self, daemon: DaemonProcess, console: Console, clock: WallClock, port: int) -> None:
        self.daemon, self.console, self.clock, self._port = daemon, console, clock, port
        self._since = 0

    def set(self, text: str) -> None:
        """Step the clock; what is awaited next comes after it."""
        self._since = len(self.console.messages)
        self.clock.set(text)

    def becomes(self, state: str) -> dict[str, Any]:
        """Wait for a state of the recorder; it comes after the last step, and after what was awaited before."""
        found: dict[str, Any] = self.console.wait_state(state, since=self._since)
        self._since += 1 + next(i for i, (_, said) in enumerate(self.console.messages[self._since :]) if said is found)
        return found

    def says(self, judge: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the last word of the daemon on itself is so."""
        until(
            lambda: (words := self.console.told("state/daemon")) and judge(words[-1]),
            lambda: self.console.told("state/daemon")[-1:],
        )

    def plan(self, **wanted: object) -> None:
        """Wait until this is the plan that is published."""
        self.says(lambda state: state["schedule"]["cam0"] == state["schedule"]["cam0"] | wanted)

    def get(self) -> dict[str, Any]:
        data: dict[str, Any] = self.console.command("recorder/cam0/get")["data"]
        return data

    def writes(self) -> None:
        """Wait until the present recording has something that can be played: without, it would leave no chunk."""
        until(lambda: self.get()["bytes"] >= 10_000, "nothing is written")

    def put(self, recorders: str) -> None:
        """Another configuration, loaded; what is awaited next comes after it."""
        self._since = len(self.console.messages)
        self.daemon.config.write_text(configuration(self.daemon.folder, port=self._port, recorders=recorders))
        assert self.console.command("daemon/reload")["changed"] is True


@pytest.fixture
def site(daemon_for: DaemonFor, broker: Broker, console: Console, wallclock: WallClock) -> Iterator[Site]:
    daemon = daemon_for(RECORDER + NIGHT, environment=wallclock.environment | {"TZ": "UTC"})
    yield Site(daemon, console, wallclock, broker.port)
    assert not daemon.is_running
    assert "Traceback" not in daemon.log.read_text()


def soon_after(text: str, expected: str) -> bool:
    late_s = (datetime.fromisoformat(text) - datetime.fromisoformat(expected)).total_seconds()
    return -0.1 <= late_s < SOON_S


@pytest.mark.slow
@pytest.mark.effect(
    "config: recorder.schedule.start",
    "config: recorder.schedule.stop",
    "config: recorder.schedule.duration",
    "config: recorder.schedule.timezone",
    "state-daemon: schedule",
    "state-daemon: next_start",
    "state-daemon: next_stop",
    "state-recorder: cause",
)
def test_a_night_of_the_change_to_summer_time_from_boot_to_the_next_night(site: Site) -> None:
    site.clock.set("2026-03-28T23:00:00")  # midnight there: the window is open since two hours
    with site.daemon:
        began = site.becomes("recording")
        assert began["cause"] == "schedule"
        assert soon_after(began["since"], "2026-03-28T23:00:00Z"), "it starts late, not never"
        site.console.wait("state/recorder/cam0", lambda s: s["until"] and s["until"].startswith("2026-03-29T04:00:00"))
        site.plan(next_start="2026-03-29T20:00:00Z", next_stop="2026-03-29T04:00:00Z", waiting_for_clock=False)
        first = site.get()["recording_id"]
        assert first.startswith("20260328T2300")
        # Not an hour early, at 03:00 UTC, as without the change.
        site.set("2026-03-29T03:30:00")
        # A second window that overlaps, by a reload while it records, prolongs that same recording.
        site.put(RECORDER + NIGHT + MORNING)
        site.plan(next_stop="2026-03-29T04:30:00Z")
        assert site.get()["recording_id"] == first
        site.set("2026-03-29T04:10:00")
        site.put(RECORDER + NIGHT + MORNING.replace('"1h"', '"55m"'))
        site.plan(next_stop="2026-03-29T04:25:00Z")
        assert site.get()["recording_id"] == first
        site.set("2026-03-29T04:24:58")
        ended = site.becomes("inactive")
        assert soon_after(ended["since"], "2026-03-29T04:25:00Z")
        site.plan(next_start="2026-03-29T20:00:00Z", next_stop="2026-03-30T04:25:00Z")
        site.set("2026-03-29T19:59:58")
        began = site.becomes("recording")
        assert soon_after(began["since"], "2026-03-29T20:00:00Z")
        assert began["recording_id"] != first
        site.writes()
    assert len(site.daemon.recording_ids()) == 2
    assert not site.daemon.parts()


@pytest.mark.slow
@pytest.mark.promise("stop-in-a-window")
@pytest.mark.promise("controlled-by-mqtt-or-schedule")
def test_what_people_say_within_a_window(site: Site) -> None:
    site.clock.set("2026-06-10T21:00:00")
    with site.daemon:
        first = site.becomes("recording")["recording_id"]
        assert site.console.command("recorder/cam0/stop")["changed"] is True
        site.becomes("inactive")
        site.set("2026-06-11T02:00:00")
        site.put(RECORDER + 'max_duration = "12h"\n' + NIGHT)
        site.plan(next_stop="2026-06-11T04:00:00Z")
        assert site.get()["state"] == "inactive", "a stop holds until the window ends, over a reload and a step"
        # A start takes that back, and ends with the window.
        reply = site.console.command("recorder/cam0/start")
        assert reply["changed"] is True
        second = reply["data"]["recording_id"]
        assert second != first
        site.set("2026-06-11T03:59:58")
        assert soon_after(site.becomes("inactive")["since"], "2026-06-11T04:00:00Z")
        # Held again, this time to its end; the next window begins as planned.
        site.set("2026-06-11T19:59:58")
        site.becomes("recording")
        site.console.command("recorder/cam0/stop")
        site.becomes("inactive")
        site.set("2026-06-12T19:59:58")
        began = site.becomes("recording")
        assert (began["cause"], soon_after(began["since"], "2026-06-12T20:00:00Z")) == ("schedule", True)
        # Started by hand outside of windows, for longer than the gap: it goes on across the next beginning.
        site.set("2026-06-13T04:00:01")
        site.becomes("inactive")
        third = site.console.command("recorder/cam0/start")["data"]["recording_id"]
        site.set("2026-06-13T19:59:58")
        site.plan(next_start="2026-06-14T20:00:00Z")
        assert (site.get()["state"], site.get()["recording_id"]) == ("recording", third)


@pytest.mark.slow
@pytest.mark.promise("summer-time")
def test_fixed_times_of_the_nights_in_which_the_clocks_change_come_once(site: Site) -> None:
    site.clock.set("2026-03-29T00:00:00")
    with site.daemon:
        site.becomes("recording")
        site.put(RECORDER + window(start="02:30", duration="10m", timezone="Europe/Berlin"))
        site.plan(next_start="2026-03-29T01:00:00Z", next_stop="2026-03-29T01:10:00Z")  # the hour does not exist
        site.becomes("inactive")
        site.set("2026-03-29T00:59:58")
        assert soon_after(site.becomes("recording")["since"], "2026-03-29T01:00:00Z")
        site.set("2026-10-25T00:29:58")  # and half a year later
        site.becomes("inactive")
        assert soon_after(site.becomes("recording")["since"], "2026-10-25T00:30:00Z")
        site.plan(next_start="2026-10-26T01:30:00Z")  # not at 01:30 UTC, when clocks show 02:30 again
        site.set("2026-10-25T01:29:58")
        site.becomes("inactive")
        site.set("2026-10-25T01:30:03")
        site.plan(next_start="2026-10-26T01:30:00Z", next_stop="2026-10-26T01:40:00Z")
        assert site.get()["state"] == "inactive"


@pytest.mark.slow
@pytest.mark.effect("state-daemon: waiting_for_clock")
@pytest.mark.promise("clock-of-schedules")
def test_a_clock_that_nobody_has_set_is_waited_for_and_a_clock_set_by_hand_is_not(site: Site) -> None:
    site.clock.trust(False)
    site.clock.set("2026-06-10T22:00:00")
    with site.daemon:
        site.plan(waiting_for_clock=True)
        assert site.get()["state"] == "inactive"
        site.clock.trust(True)
        first = site.becomes("recording")["recording_id"]
        site.plan(waiting_for_clock=False)
        # Whoever sets it by hand takes the kernel's word away; what was believed once is not waited for again.
        site.clock.trust(False)
        site.set("2026-06-10T22:30:00")
        site.says(lambda state: state["clock"] == "unsynchronized")
        assert (site.get()["state"], site.get()["recording_id"]) == ("recording", first)
        site.set("2026-06-11T03:59:58")
        site.becomes("inactive")
