"""Microphones through alsa-lib."""
