"""Commands, states and events, whoever asks or listens: knows no transport."""
