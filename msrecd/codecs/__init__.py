"""From raw units to packets: types, codec strings, encodings that are shared by all who want the same."""
