"""The page: an adapter of `control` over HTTP, with a thread and a loop of its own; only with `[web]`."""
