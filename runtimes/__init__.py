"""What an artifact is and how to run one: all that a device installs."""

import os

# From 1.31 on ONNX Runtime tells its makers about its use, from threads of its own and a database in the user's cache.
# A served model should not do that, nor be measured beside it. It reads this when it is imported, so it is set before
# any module of ours can; who sets it to 0 keeps it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
