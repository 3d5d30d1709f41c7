"""Entry point for `python -m lazynet`."""

import sys

from lazynet.cli import start

sys.exit(start())
