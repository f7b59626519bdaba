"""`python -m msrecd`."""

from __future__ import annotations

import sys

from msrecd.cli import main

if __name__ == "__main__":
    sys.exit(main())
