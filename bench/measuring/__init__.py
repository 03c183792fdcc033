"""A run of ``bench``: rounds of subjects in processes, and each of them alone."""
