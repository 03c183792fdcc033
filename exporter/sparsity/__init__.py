"""Which linears ship sparse: by what it takes and what it brings, measured."""
