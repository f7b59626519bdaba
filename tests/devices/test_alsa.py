"""AlsaBackend and AlsaSource against the real alsa-lib, with simulated microphones."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from alsasim import AlsaSim, alsa_plugin, alsa_sim  # noqa: F401 - fixtures


def record(sim: AlsaSim, device: str, **options: Any) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-m", "alsa_recording", device, json.dumps(options)]
    done = subprocess.run(command, env=sim.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def largest_jump_ms(blocks: list[dict[str, int]], rate: int) -> float:
    """How far any block's time is from the end of the block before and what was lost in between."""
    ends = [b["pts_ns"] + b["samples"] * 1_000_000_000 // rate for b in blocks]
    gaps = [(b["pts_ns"] - end) / 1e9 - b["lost"] / rate for end, b in zip(ends, blocks[1:], strict=False)]
    return max(map(abs, gaps)) * 1000


def second_error_ms(at_s: float) -> float:
    return abs(at_s - round(at_s)) * 1000


@pytest.mark.parametrize("device", ["mic_beep", "mic_usb"])
def test_blocks_carry_the_time_of_capture(alsa_sim: AlsaSim, device: str) -> None:  # noqa: F811
    result = record(alsa_sim, device, seconds=2.4)
    blocks = result["blocks"]
    assert result["format"] == {"sample_rate": 48000, "channels": 2, "sample_format": "s16"}
    assert len(blocks) > 60
    assert all(960 <= b["samples"] <= 1920 for b in blocks)
    assert largest_jump_ms(blocks, 48000) < 2
    assert len(result["onsets"]) >= 2
    assert all(second_error_ms(onset["stamped_s"]) < 2 for onset in result["onsets"]), result["onsets"]
    assert result["fallbacks"] == 0
    assert result["stats"]["xruns"] == 0
    assert result["stats"]["delivered"] >= len(blocks)  # it was open before anybody listened


@pytest.mark.promise("overrun-is-exact")
def test_an_overrun_is_counted_and_its_length_is_exact(alsa_sim: AlsaSim) -> None:  # noqa: F811
    result = record(alsa_sim, "mic_beep", seconds=4.5, stall_at=40, stall_s=1.6)
    lost = [b["lost"] for b in result["blocks"] if b["lost"]]
    assert len(lost) == 1
    assert 1.3 * 48000 < lost[0] < 1.8 * 48000 + 24000
    assert result["stats"]["xruns"] == 1
    assert result["stats"]["lost_samples"] == lost[0]
    after = result["onsets"][-1]  # counted from the first block on, over the hole
    assert second_error_ms(after["counted_s"]) < 1, result["onsets"]
    assert abs(after["counted_s"] - after["stamped_s"]) * 48000 < 24


def test_a_fast_sample_clock_loses_nothing(alsa_sim: AlsaSim) -> None:  # noqa: F811
    result = record(alsa_sim, "mic_drift", seconds=3)
    assert result["stats"] | {"delivered": 0} == {"delivered": 0, "dropped": 0, "xruns": 0, "lost_samples": 0}
    assert largest_jump_ms(result["blocks"], 48000) < 2
    assert all(second_error_ms(onset["stamped_s"]) < 2 for onset in result["onsets"])


def test_unplugged_ends_without_an_error(alsa_sim: AlsaSim) -> None:  # noqa: F811
    result = record(alsa_sim, "mic_gone", seconds=20)
    assert result["ended"] == [None]
    assert result["feed_ended"] == [None]
    assert result["blocks"]


def test_close_is_quick_and_says_nothing(alsa_sim: AlsaSim) -> None:  # noqa: F811
    result = record(alsa_sim, "mic_sim", seconds=0.3)
    assert result["ended"] == []
    assert result["feed_ended"] == [None]
    assert result["close_s"] < 1
    assert result["threads"] == ["MainThread"]


def test_close_before_the_first_sample(alsa_sim: AlsaSim) -> None:  # noqa: F811
    alsa_sim.stall(on=True)
    result = record(alsa_sim, "mic_plug", seconds=0.2)
    assert result["blocks"] == []
    assert result["close_s"] < 1


@pytest.mark.promise("microphone-ladder")
def test_a_microphone_that_hangs_is_muted_until_it_goes_on(alsa_sim: AlsaSim) -> None:  # noqa: F811
    result = record(alsa_sim, "mic_plug", hang=str(alsa_sim.run / "stall"))
    assert result["muted"] == [True, False]
    assert result["ended"] == []
    assert result["stats"]["xruns"] == 0
    lost_s = result["stats"]["lost_samples"] / 48000  # noticed by the timestamps alone
    assert abs(lost_s - result["hung_s"]) < 0.5, result["hung_s"]
    assert second_error_ms(result["onsets"][-1]["stamped_s"]) < 2


@pytest.mark.parametrize("device", ["mic_s24", "mic_s24_3"])
@pytest.mark.promise("all-bits")
def test_24_bits_arrive_exactly_in_32(alsa_sim: AlsaSim, device: str) -> None:  # noqa: F811
    """Also where pyalsaaudio 0.10 cannot read S24_LE safely: then alsa-lib packs them into three bytes."""
    result = record(alsa_sim, device, seconds=0.3, settings={"channel_count": 1, "sample_size": 24})
    assert result["format"] == {"sample_rate": 48000, "channels": 1, "sample_format": "s32", "bits": 24}
    head = bytes.fromhex(result["head"])
    values = [int.from_bytes(head[at : at + 4], "little", signed=True) for at in range(0, len(head), 4)]
    assert [round(value / 65536) for value in values] == list(range(len(values)))
    assert all(value & 0xFF == 0 for value in values)


@pytest.mark.promise("mono-is-the-mean")
def test_mono_of_a_card_that_has_two_channels_only(alsa_sim: AlsaSim) -> None:  # noqa: F811
    result = record(alsa_sim, "mic_s32", seconds=0.5, settings={"channel_count": 1})
    assert result["format"] == {"sample_rate": 48000, "channels": 1, "sample_format": "s32"}
    assert sum(block["samples"] for block in result["blocks"]) > 0.3 * 48000
    assert result["head"].strip("0")


@pytest.mark.promise("mono-is-the-mean")
def test_the_mean_of_two_channels_never_clips() -> None:
    from msrecd.devices.alsa.backend import mean_of_two

    def s16(*values: int) -> bytes:
        return b"".join(value.to_bytes(2, "little", signed=True) for value in values)

    mixed = mean_of_two(s16(32767, 32767, -32768, -32768, 1000, 0, -3, -4), "s16")
    assert mixed == s16(32767, -32768, 500, -4)
    assert mean_of_two(b"\0\0\0\x40\0\0\0\x20", "s32") == b"\0\0\0\x30"


@pytest.mark.parametrize(("device", "bits"), [("mic_s32", {}), ("mic_s24", {"bits": 24})])
def test_other_formats_become_s32(alsa_sim: AlsaSim, device: str, bits: dict[str, int]) -> None:  # noqa: F811
    result = record(alsa_sim, device, seconds=0.5)
    assert result["format"] == {"sample_rate": 48000, "channels": 2, "sample_format": "s32"} | bits
    assert len(result["blocks"]) > 10


def test_the_nearest_native_rate_and_channels_are_opened(alsa_sim: AlsaSim) -> None:  # noqa: F811
    result = record(alsa_sim, "mic_mono44", seconds=0.3, settings={"sample_rate": 48000, "channel_count": 2})
    assert result["format"] == {"sample_rate": 44100, "channels": 1, "sample_format": "s16"}
    high = record(alsa_sim, "mic_sim", seconds=0.3, settings={"sample_rate": 90000, "channel_count": 3})
    assert high["format"] == {"sample_rate": 96000, "channels": 3, "sample_format": "s16"}
    assert all(1920 <= b["samples"] <= 3840 for b in high["blocks"])


@pytest.mark.promise("microphone-is-compared")
def test_parameters_that_alsa_replaces_silently_are_noticed(alsa_sim: AlsaSim) -> None:  # noqa: F811
    """pyalsaaudio opens a 44.1 kHz device with 44.1 kHz when asked for 48: that must not pass for 48."""
    output = alsa_sim.python(
        """
        import dataclasses
        from msrecd.devices.alsa.backend import AlsaBackend
        described = AlsaBackend(extra_pcms=["mic_mono44"]).describe()[0]
        guessed = dataclasses.replace(described, sample_rates=(48000,), channel_counts=(2,))
        source = AlsaBackend(extra_pcms=["mic_mono44"]).open(guessed, {"sample_rate": 48000})
        print(source.format.sample_rate, source.format.channels)
        source.close()
        """
    )
    assert output.split() == ["44100", "1"]


def test_capabilities_are_probed_and_ids_are_stable(alsa_sim: AlsaSim) -> None:  # noqa: F811
    code = """
        import logging
        from msrecd.devices.alsa.backend import AlsaBackend
        logging.basicConfig(format="%(message)s")
        backend = AlsaBackend(extra_pcms=["mic_mono44", "no_such_mic", "mic_s32"])
        for _ in range(2):
            found = backend.describe()
        for d in found:
            print(d.label, d.device_id, d.sample_rates, d.channel_counts, d.sample_sizes, d.state, sep="|")
        """
    first, second = alsa_sim.python(code), alsa_sim.python(code)
    assert first == second
    rows = [line.split("|") for line in first.splitlines()]
    assert [row[0] for row in rows] == ["mic_mono44", "mic_s32"]
    assert rows[0][2:] == ["(44100,)", "(1,)", "(16,)", "free"]
    assert rows[1][2].startswith("(48000, 8000,")
    assert rows[1][3:] == ["(2, 1)", "(32,)", "free"]
    assert len({row[1] for row in rows}) == 2


def test_what_is_being_recorded_is_not_opened_to_look(alsa_sim: AlsaSim) -> None:  # noqa: F811
    output = alsa_sim.python(
        """
        import alsaaudio
        from msrecd.devices.alsa.backend import AlsaBackend
        backend = AlsaBackend(extra_pcms=["mic_sim"])
        (free,) = backend.describe()
        source = backend.open(free, {})
        real, alsaaudio.PCM = alsaaudio.PCM, None
        (busy,) = backend.describe()
        alsaaudio.PCM = real
        source.close()
        (again,) = backend.describe()
        print(free.state, busy.state, again.state)
        print(free.sample_rates == busy.sample_rates)
        """
    )
    assert output.split() == ["free", "busy", "free", "True"]


def test_unplug_and_plug_again(alsa_sim: AlsaSim) -> None:  # noqa: F811
    output = alsa_sim.python(
        f"""
        import pathlib, threading
        from msrecd.devices.alsa.backend import AlsaBackend
        from msrecd.dom.exceptions import NotFoundError
        gone = pathlib.Path({str(alsa_sim.run / "gone")!r})
        backend = AlsaBackend(extra_pcms=["mic_plug"])
        before = backend.describe()
        for _ in range(3):
            ended = threading.Event()
            source = backend.open(before[0], {{}})
            source.on_ended = lambda error: ended.set()
            gone.touch()
            assert ended.wait(10)
            source.close()
            assert backend.describe() == []
            try:
                backend.open(before[0], {{}})
            except NotFoundError as exc:
                print(exc.message)
            gone.unlink()
            assert backend.describe() == before
        """
    )
    assert output.splitlines() == ["mic_plug is not there any more"] * 3
