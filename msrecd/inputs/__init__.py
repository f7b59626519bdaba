"""Files and network streams as inputs: their addresses, the process that reads them, and their time line."""
