"""``python -m bench.suites.bundle``."""

import sys

from bench.suites.bundle.suite import main

sys.exit(main())
