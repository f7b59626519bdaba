"""From packets to chunks: order, time line, cuts, containers. One worker thread per recording."""
