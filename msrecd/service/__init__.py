"""The daemon: connects the object model, storage, MQTT and schedules. Nobody imports it but the command line."""
