"""`msrecd trigger-test`: what a recorder's triggers make of a file, without waiting for it to play."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msrecd.cli.errors import Exit, UsageError
from msrecd.cli.output import print_line
from msrecd.config import load
from msrecd.daemon.checks import config_checks
from msrecd.daemon.from_config import recorder_settings
from msrecd.errors import MsrecdError
from msrecd.triggers import decide

if TYPE_CHECKING:
    from msrecd.inputs.reader import Reader
    from msrecd.libav import StreamInfo
    from msrecd.recorder.settings import TriggerSettings

_NS = 1_000_000_000
_LOOK_NS = round(_NS / decide.LOOKS_PER_SECOND)


@dataclass(slots=True)
class _Trial:
    """One trigger and what it has found so far; times in ns of the file."""

    name: str
    settings: TriggerSettings
    progress: decide.Progress = field(default_factory=decide.Progress)
    samples: list[decide.Sample] = field(default_factory=list)
    events: list[tuple[int, int]] = field(default_factory=list)
    seen_ns: tuple[int, int] = (0, 0)  # first and last look that reached the threshold, of the last event
    highest: float = 0.0  # its score

    def take(self, sample: decide.Sample) -> None:
        rule = decide.MOTION if self.settings.kind == "motion" else decide.SOUND
        self.samples.append(sample)
        self.progress, change = decide.step(rule, self.progress, sample)
        if change == "begin":
            self.events.append((sample.at_ns, sample.at_ns))
            self.highest = 0.0
            print_line(
                f"{_clock(sample.at_ns)}  {self.name}  begin  score {sample.score:.1f} of {sample.threshold:.1f}, "
                f"seen since {_clock(self.progress.since_ns).strip()}"
            )
        if self.progress.is_active:
            self.events[-1] = (self.events[-1][0], sample.at_ns)
            self.seen_ns = self.progress.since_ns, self.progress.last_ns
            self.highest = max(self.highest, sample.score)
        elif change == "end":
            self._print_end("end  ")

    def finish(self) -> None:
        """The file is over."""
        if self.progress.is_active:
            self._print_end("lasts")

    def _print_end(self, word: str) -> None:
        """The time is that of the last look that kept the event alive; that it is over shows only later."""
        begun_ns, ended_ns = self.seen_ns
        print_line(
            f"{_clock(ended_ns)}  {self.name}  {word}  after {(ended_ns - begun_ns) / _NS:.1f} s, "
            f"highest score {self.highest:.1f}"
        )

    def recorded(self, pre_roll_ns: int, duration_ns: int) -> list[tuple[int, int]]:
        """What would be recorded because of it, with pre-roll and hold."""
        hold_ns = round(self.settings.hold_s * _NS)
        spans: list[tuple[int, int]] = []
        for begin, end in self.events:
            begin, end = max(0, begin - pre_roll_ns), min(duration_ns, end + hold_ns)
            if spans and begin <= spans[-1][1] + pre_roll_ns:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((begin, end))
        return spans


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recorder", metavar="RECORDER", help="whose triggers to try")
    parser.add_argument("file", type=Path, metavar="FILE", help="a recording, or any other file with media")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PNG", help="draw scores, thresholds and decisions into this file"
    )


def run(args: argparse.Namespace) -> int:
    """0: the file was looked at, whatever was found in it.

    Raises:
        UsageError: there is no such recorder, it has no triggers, or the file has nothing for them.
        MsrecdError: the file cannot be read, or the drawing not be written.
    """
    config = load(args.config, checks=config_checks())
    recorder = config.recorder(args.recorder)
    if recorder is None:
        raise UsageError(f'there is no recorder "{args.recorder}"')
    settings = recorder_settings(recorder)
    if not settings.triggers:
        raise UsageError(f"{recorder.name} has no [[recorder.trigger]]")
    trials = [_Trial(f"{one.kind} {number}", one) for number, one in enumerate(settings.triggers)]
    duration_ns = _play(args.file, trials)
    pre_roll_ns = round(recorder.pre_roll_s * _NS)
    for trial in trials:
        trial.finish()
        spans = trial.recorded(pre_roll_ns, duration_ns)
        seconds = sum(end - begin for begin, end in spans) / _NS
        print_line(
            f"{trial.name}: {len(trial.events)} events, {len(spans)} recordings, "
            f"{seconds:.1f} s of {duration_ns / _NS:.1f} s recorded"
        )
    if args.output is not None:
        _draw(args.output, trials, pre_roll_ns, duration_ns)
    return Exit.OK


def _play(file: Path, trials: list[_Trial]) -> int:
    """Give the file to the triggers; its length in ns."""
    from msrecd.dom.exceptions import DOMException
    from msrecd.inputs.address import DEFAULT_OPTIONS
    from msrecd.inputs.processes import ReaderError
    from msrecd.inputs.reader import Reader
    from msrecd.media.playback import resolve

    try:
        reader = Reader(resolve(str(file.absolute())), DEFAULT_OPTIONS)
    except (ReaderError, DOMException) as exc:
        raise MsrecdError(f"{file}: {exc}") from exc
    looks = []
    try:
        for kind, word in (("video", "motion"), ("audio", "sound")):
            wanted = [trial for trial in trials if trial.settings.kind == word]
            info = next((info for info in reader.description.streams if info.kind == kind), None)
            if wanted and info is None:
                raise UsageError(f"{file} has no {kind} for the {word} trigger")
            if wanted and info is not None:
                looks.append((_Motion if kind == "video" else _Sound)(info, wanted))
        return _read(reader, looks)
    except ReaderError as exc:
        raise MsrecdError(f"{file}: {exc}") from exc
    finally:
        for look in looks:
            look.decoder.close()
        reader.close()


def _read(reader: Reader, looks: list[_Motion | _Sound]) -> int:
    from msrecd.libav import LibavError

    by_index = {look.info.index: look for look in looks}
    first_ns: int | None = None
    last_ns = 0
    for batch in reader.batches(list(by_index)):
        for packet in batch:
            at_ns = packet.pts_ns if packet.pts_ns is not None else packet.dts_ns
            if at_ns is None:
                continue
            first_ns = at_ns if first_ns is None else first_ns
            last_ns = max(last_ns, at_ns - first_ns + packet.duration_ns)
            try:
                by_index[packet.stream].take(packet.data, max(0, at_ns - first_ns))
            except LibavError:  # damaged: the next one may be well
                continue
    return last_ns


class _Motion:
    """The motion triggers on the video of a file."""

    def __init__(self, info: StreamInfo, trials: list[_Trial]) -> None:
        from msrecd.inputs.decoding import ConfinedVideoDecoder
        from msrecd.triggers.motion import MotionDetector

        self.info = info
        self.decoder = ConfinedVideoDecoder(info, "the file")
        self._trials = [
            (trial, MotionDetector(sensitivity=trial.settings.sensitivity, mask=trial.settings.mask))
            for trial in trials
        ]
        self._looked_ns = -_NS

    def take(self, data: bytes | memoryview, at_ns: int) -> None:
        from msrecd import pixels

        for frame in self.decoder.decode(data, at_ns):
            if frame.pts_ns - self._looked_ns < _LOOK_NS - _NS // 1000:
                continue
            self._looked_ns = frame.pts_ns
            luma = pixels.luma_of(frame, decide.LUMA_WIDTH)
            for trial, detector in self._trials:
                trial.take(detector.look(luma, frame.pts_ns))


class _Sound:
    """The sound triggers on the sound of a file."""

    def __init__(self, info: StreamInfo, trials: list[_Trial]) -> None:
        from msrecd.inputs.decoding import ConfinedAudioDecoder
        from msrecd.triggers.sound import SoundDetector

        self.info = info
        self.decoder = ConfinedAudioDecoder(info, "the file")
        self._trials = [
            (trial, SoundDetector(band=trial.settings.band, threshold_db=trial.settings.threshold_db))
            for trial in trials
        ]

    def take(self, data: bytes | memoryview, at_ns: int) -> None:
        from msrecd import pixels
        from msrecd.flow.units import AudioBlock, AudioFormat

        format = AudioFormat(
            sample_rate=self.info.sample_rate,
            channels=self.info.channels,
            sample_format="s32" if self.info.bits > 16 else "s16",
        )
        for pcm in self._pcm(data):
            samples = len(pcm) // format.frame_bytes
            array: Any = pixels.array_from_block(AudioBlock(pts_ns=at_ns, format=format, samples=samples, data=pcm))
            for trial, detector in self._trials:
                for sample in detector.listen(array, self.info.sample_rate, at_ns):
                    trial.take(sample)

    def _pcm(self, data: bytes | memoryview) -> Iterator[bytes]:
        if self.info.codec == "pcm_s16le":
            yield bytes(data)
        else:
            yield from (pcm for pcm in self.decoder.decode([data]) if pcm)


def _draw(path: Path, trials: list[_Trial], pre_roll_ns: int, duration_ns: int) -> None:
    from msrecd.triggers.drawing import Track, draw, png

    tracks = [
        Track(samples=trial.samples, events=trial.events, recorded=trial.recorded(pre_roll_ns, duration_ns))
        for trial in trials
    ]
    try:
        path.write_bytes(png(draw(tracks, duration_ns)))
    except OSError as exc:
        raise MsrecdError(f"{path}: {exc.strerror}") from exc


def _clock(at_ns: int) -> str:
    minutes, seconds = divmod(at_ns / _NS, 60)
    return f"{int(minutes):3}:{seconds:04.1f}"
