"""Cameras, whichever library drives them: modes, controls, frames, packets, encodings and the running source."""
