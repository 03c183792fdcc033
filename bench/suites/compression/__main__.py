"""``python -m bench.suites.compression``."""

import sys

from bench.suites.compression.suite import main

sys.exit(main())
