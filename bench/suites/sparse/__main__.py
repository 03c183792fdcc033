"""``python -m bench.suites.sparse``."""

import sys

from bench.suites.sparse.suite import main

sys.exit(main())
