"""``python -m bench.suites.gate``."""

import sys

from bench.suites.gate.suite import main

sys.exit(main())
