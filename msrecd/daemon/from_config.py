"""From the configuration's words to those of the packages that do the work. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msrecd.config.model import Config
from msrecd.config.recorder_model import Recorder, Source, TrackConstraints
from msrecd.config.recorder_tables import DEFAULT_NOTCH_Q
from msrecd.config.recorder_tables import AudioFilter as ConfiguredFilter
from msrecd.config.trigger_keys import Trigger
from msrecd.mqtt.settings import MqttSettings
from msrecd.recorder.settings import AudioFilter, RecorderSettings, TriggerSettings
from msrecd.triggers.decide import DECISION_S
from msrecd.vocabulary.formats import DEFAULT_TYPES

if TYPE_CHECKING:
    from msrecd.web.websettings import WebSettings


def recorder_settings(recorder: Recorder) -> RecorderSettings:
    """A `[[recorder]]` as the unit takes it."""
    options: dict[str, Any] = {
        "mime_type": recorder.mime_type,
        "audio_bitrate_mode": recorder.audio_bitrate_mode,
        "chunk_duration": recorder.chunk_duration_s * 1000,
        "chunk_max_size": recorder.chunk_max_size_bytes,
        "eager": True,  # what a kill costs
    }
    if recorder.video_bits_per_second is not None:
        options["video_bits_per_second"] = recorder.video_bits_per_second
    if recorder.audio_bits_per_second is not None:
        options["audio_bits_per_second"] = recorder.audio_bits_per_second
    if recorder.video_key_frame_interval_duration_s is not None:
        options["video_key_frame_interval_duration"] = recorder.video_key_frame_interval_duration_s * 1000
    if recorder.pre_roll_s:
        decision_s = max((DECISION_S[one.kind] for one in recorder.triggers), default=0.0)
        options["pre_roll"] = (recorder.pre_roll_s + decision_s) * 1000
    if recorder.overlay is not None:
        options["overlay"] = {"text": recorder.overlay.text, "position": recorder.overlay.position}
    if (lapse := recorder.time_lapse) is not None:
        options["time_lapse"] = {"interval": lapse.interval_s * 1000, "frame_rate": lapse.frame_rate}
    constraints = None
    if recorder.source is None:
        constraints = {"video": _constraints(recorder.video), "audio": _constraints(recorder.audio)}
    else:
        # What the source holds decides, where the default type only says "with or without video".
        options["mime_type"] = "" if recorder.mime_type in DEFAULT_TYPES.values() else recorder.mime_type
    return RecorderSettings(
        name=recorder.name,
        constraints=constraints,
        url=None if recorder.source is None else recorder.source.url,
        loop=recorder.source is not None and recorder.source.loop,
        source_options={} if recorder.source is None else _source_options(recorder.source),
        options=options,
        timeslice_ms=recorder.timeslice_s * 1000,
        autostart=recorder.autostart,
        max_duration_s=recorder.max_duration_s,
        closes_camera=recorder.time_lapse is not None and recorder.time_lapse.closes_camera,
        audio_filters=tuple(_audio_filter(one) for one in recorder.audio_filters),
        triggers=tuple(_trigger(one) for one in recorder.triggers),
    )


def _trigger(one: Trigger) -> TriggerSettings:
    usual = TriggerSettings(kind=one.kind)
    return TriggerSettings(
        kind=one.kind,
        sensitivity=usual.sensitivity if one.sensitivity is None else one.sensitivity,
        mask=one.mask,
        band=(one.band[0], one.band[1]) if one.band else usual.band,
        threshold_db=one.threshold_db or usual.threshold_db,
        hold_s=one.hold_s,
        max_per_hour=one.max_per_hour,
        protect=one.protect,
    )


def _audio_filter(one: ConfiguredFilter) -> AudioFilter:
    return AudioFilter(
        type=one.type, frequency=one.frequency or 0.0, gain_db=one.gain_db or 0.0, q=one.q or DEFAULT_NOTCH_Q
    )


def mqtt_settings(config: Config) -> MqttSettings | None:
    """`[mqtt]` as the MQTT package takes it; None without a broker."""
    mqtt = config.mqtt
    if mqtt is None:
        return None
    return MqttSettings(
        host=mqtt.host,
        device_id=config.device.id,
        port=mqtt.port or None,
        username=mqtt.username,
        password_file=mqtt.password_file,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
        allow_plaintext=mqtt.allow_plaintext,
        groups=tuple(mqtt.groups),
        allow_verbs=frozenset(mqtt.allow_verbs),
        command_max_age_s=mqtt.command_max_age_s,
        keepalive_s=round(mqtt.keepalive_s),
        homeassistant=config.homeassistant.discovery,
    )


def web_settings(config: Config, version: str) -> WebSettings | None:
    """`[web]` as the page takes it; None without one."""
    web = config.web
    if web is None:
        return None
    from msrecd.vocabulary.listen import parse_listen  # here: only devices with a page need it
    from msrecd.web.websettings import WebSettings

    return WebSettings(
        listen=parse_listen(web.listen),
        device_id=config.device.id,
        version=version,
        password_file=web.password_file,
        viewer_password_file=web.viewer_password_file,
        cert_file=web.cert_file,
        key_file=web.key_file,
        metrics=web.metrics,
    )


def _constraints(constraints: TrackConstraints) -> TrackConstraints:
    """Constraints as the recorder takes them. In a configuration, a bare device_id means exactly this device."""
    if isinstance(constraints, bool):
        return constraints
    device_id = constraints.get("device_id")
    if device_id is None or isinstance(device_id, Mapping):
        return dict(constraints)
    return {**constraints, "device_id": {"exact": device_id}}


def _source_options(source: Source) -> dict[str, Any]:
    """The options of a MediaElement."""
    options: dict[str, Any] = {
        "transport": source.transport,
        "timeout": source.timeout_s,
        "redirects": source.redirects,
    }
    if source.tracks:
        options["tracks"] = list(source.tracks)
    if source.user is not None:
        options["user"] = source.user
    if source.password_file is not None:
        options["password_file"] = str(source.password_file)
    return options
