"""`python -m sessile` is `sessile`."""

import sys

from sessile.cli import main

sys.exit(main())
