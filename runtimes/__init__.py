"""The floor: what an artifact is and how to run one. All that a device installs."""
