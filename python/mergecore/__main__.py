"""`python -m mergecore` is the `mergecore` command."""

from __future__ import annotations

import sys

from mergecore.cli import main

if __name__ == "__main__":
    sys.exit(main())
