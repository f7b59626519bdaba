"""The daemon: wiring, reload, health, systemd."""
