"""`python -m lazynet.cli`."""

import sys

from lazynet.cli import main

sys.exit(main())
