"""Web Audio: a graph of processing nodes over float32 arrays (https://webaudio.github.io/web-audio-api/)."""
