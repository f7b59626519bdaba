"""Home Assistant discovery: one retained message about a device. Pure functions.

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
`unique_id`s are stable for ever: changing one makes a new entity and loses the old one's history.
"""

from __future__ import annotations

from collections.abc import Mapping

from msrecd.mqtt.topics import PREFIX
from msrecd.vocabulary.verbs import RECORDER_EVENTS

HEALTH_EXPIRES_S = 300
_BUTTONS = {
    "pause": "mdi:pause",
    "resume": "mdi:play",
    "split": "mdi:content-cut",
    "snapshot": "mdi:camera",
}

Component = dict[str, object]


def discovery(device_id: str, recorders: Mapping[str, bool], *, version: str, model: str) -> dict[str, object]:
    """The discovery message of a device.

    Args:
        recorders: by name, whether it may have video: without, there are no snapshots.
    """
    base = f"{PREFIX}/{device_id}"
    components: dict[str, Component] = {}
    for name, has_video in recorders.items():
        found = _recorder(base, name)
        if not has_video:
            del found[f"{name}_image"], found[f"{name}_snapshot"]
        components.update(found)
    components.update(_health(base))
    for key, component in components.items():
        component["unique_id"] = f"msrecd_{device_id}_{key}"
    return {
        "device": {
            "identifiers": [f"msrecd_{device_id}"],
            "name": f"Recorder {device_id}",
            "manufacturer": "msrecd",
            "model": model or "msrecd recorder",
            "sw_version": version or "unknown",
        },
        "origin": {"name": "msrecd", "sw_version": version or "unknown"},
        "availability_topic": f"{base}/availability",
        "qos": 1,
        "components": components,
    }


def platforms(payload: Mapping[str, object]) -> dict[str, str]:
    """Key and platform of every component: what must be remembered to be able to remove it."""
    components = payload["components"]
    if not isinstance(components, dict):
        raise TypeError("components")
    return {key: str(component["platform"]) for key, component in components.items()}


def with_removals(payload: Mapping[str, object], known: Mapping[str, str]) -> dict[str, object]:
    """The message that makes Home Assistant drop what is known to it and no longer in `payload`.

    A component is removed by one message that holds its platform only; the ordinary message must follow.
    """
    components = payload["components"]
    if not isinstance(components, dict):
        raise TypeError("components")
    removed: dict[str, Component] = {
        key: {"platform": platform} for key, platform in known.items() if key not in components
    }
    return {**payload, "components": {**components, **removed}}


def _recorder(base: str, name: str) -> dict[str, Component]:
    # Names hold no underscore, so that no two keys can be equal: a key's name ends at its first underscore.
    state, commands = f"{base}/state/recorder/{name}", f"{base}/cmd/recorder/{name}"
    found: dict[str, Component] = {
        f"{name}_rec": {
            "platform": "switch",
            "name": f"{name} recording",
            "icon": "mdi:record-rec",
            "state_topic": state,
            "value_template": "{{ 'ON' if value_json.state in ('recording','paused') else 'OFF' }}",
            "command_topic": f"{commands}/set",
            "retain": False,
            "optimistic": False,
        },
        f"{name}_state": {
            "platform": "sensor",
            "name": f"{name} state",
            "device_class": "enum",
            "options": ["inactive", "recording", "paused", "error"],
            "state_topic": state,
            "value_template": "{{ value_json.state }}",
        },
        f"{name}_event": {
            "platform": "event",
            "name": f"{name} event",
            "state_topic": f"{base}/event/recorder/{name}",
            "event_types": list(RECORDER_EVENTS),
        },
        f"{name}_image": {
            "platform": "image",
            "name": f"{name} snapshot",
            "image_topic": f"{base}/image/{name}",
            "content_type": "image/jpeg",
        },
        f"{name}_last_chunk": {
            "platform": "sensor",
            "name": f"{name} last chunk",
            "device_class": "timestamp",
            "state_topic": state,
            "value_template": "{{ (value_json.last_chunk or {}).get('ended') or None }}",
        },
        f"{name}_problem": {
            "platform": "binary_sensor",
            "name": f"{name} problem",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": state,
            "value_template": "{{ 'ON' if value_json.error else 'OFF' }}",
        },
        f"{name}_bitrate": {
            "platform": "sensor",
            "name": f"{name} bitrate",
            "device_class": "data_rate",
            "unit_of_measurement": "bit/s",
            "state_class": "measurement",
            "entity_category": "diagnostic",
            "expire_after": HEALTH_EXPIRES_S,
            "state_topic": f"{base}/state/health",
            "value_template": f"{{{{ value_json.recorders['{name}'].bitrate_bps | default(0, true) }}}}",
        },
    }
    for verb, icon in _BUTTONS.items():
        found[f"{name}_{verb}"] = {
            "platform": "button",
            "name": f"{name} {verb}",
            "icon": icon,
            "command_topic": f"{commands}/{verb}",
            "payload_press": "{}",
            "retain": False,
        }
    return found


def _health(base: str) -> dict[str, Component]:
    common: Component = {
        "state_topic": f"{base}/state/health",
        "expire_after": HEALTH_EXPIRES_S,
        "entity_category": "diagnostic",
    }
    return {
        "disk_free": {
            **common,
            "platform": "sensor",
            "name": "Disk free",
            "device_class": "data_size",
            "unit_of_measurement": "B",
            "state_class": "measurement",
            "value_template": "{{ value_json.disk.free_bytes }}",
        },
        "disk_time_left": {  # unknown while nothing is recorded
            **common,
            "platform": "sensor",
            "name": "Recording time left",
            "device_class": "duration",
            "unit_of_measurement": "s",
            "value_template": "{{ (value_json.disk or {}).get('seconds_left_estimate') }}",
        },
        "cpu_temperature": {
            **common,
            "platform": "sensor",
            "name": "CPU temperature",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "state_class": "measurement",
            "value_template": "{{ value_json.cpu_temp_c }}",
        },
        "under_voltage": {
            **common,
            "platform": "binary_sensor",
            "name": "Under-voltage",
            "device_class": "problem",
            "value_template": "{{ 'ON' if 'under_voltage' in (value_json.throttled or {}).get('now', []) else 'OFF' }}",
        },
        "clock_sync": {
            **common,
            "platform": "binary_sensor",
            "name": "Clock not synchronised",
            "device_class": "problem",
            "value_template": "{{ 'OFF' if value_json.clock == 'synchronized' else 'ON' }}",
        },
        "spooled_events": {
            **common,
            "platform": "sensor",
            "name": "Spooled events",
            "state_class": "measurement",
            "value_template": "{{ value_json.mqtt.spooled }}",
        },
    }
