"""``python -m bench.suites.decoder``."""

import sys

from bench.suites.decoder.suite import main

sys.exit(main())
