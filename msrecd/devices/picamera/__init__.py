"""Cameras through libcamera: what is picamera2's."""
