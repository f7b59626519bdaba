"""How media moves: units, feeds (fan-out), queues, sources. No vendor library, no files, no event loop."""
