"""What a run found, as a file that later rules can judge."""
