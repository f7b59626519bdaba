"""The local socket: commands and states without a broker, on the device itself."""
