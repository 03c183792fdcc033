"""``python -m bench.suites.tensorrt``."""

import sys

from bench.suites.tensorrt.suite import main

sys.exit(main())
