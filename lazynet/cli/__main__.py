"""Entry point for `python -m lazynet.cli`."""

import sys

from lazynet.cli import start

sys.exit(start())
