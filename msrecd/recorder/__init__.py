"""One configured recorder: its state machine, its input, its files."""
