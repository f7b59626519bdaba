"""Commands, states and events, for every adapter alike: knows no transport."""
