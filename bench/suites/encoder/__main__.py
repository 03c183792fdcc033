"""``python -m bench.suites.encoder``."""

import sys

from bench.suites.encoder.suite import main

sys.exit(main())
