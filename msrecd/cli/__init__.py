"""The command line."""

from msrecd.cli.main import main

__all__ = ["main"]
