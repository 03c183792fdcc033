"""``python -m exporter.cli`` is ``stepdown``."""

import sys

from exporter.cli.main import main

sys.exit(main())
