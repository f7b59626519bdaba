"""The configuration file: model, reading, checking."""

from msrecd.config.load import DEFAULT_PATH, check, load
from msrecd.config.model import Config, Device, Devices, HomeAssistant, Location, Mqtt, Storage, VirtualDevice
from msrecd.config.problems import InvalidConfigError, Problem
from msrecd.config.recorder_model import Recorder, Retention, Schedule, Source
from msrecd.config.rules import Checks

__all__ = [
    "DEFAULT_PATH",
    "Checks",
    "Config",
    "Device",
    "Devices",
    "HomeAssistant",
    "InvalidConfigError",
    "Location",
    "Mqtt",
    "Problem",
    "Recorder",
    "Retention",
    "Schedule",
    "Source",
    "Storage",
    "VirtualDevice",
    "check",
    "load",
]
