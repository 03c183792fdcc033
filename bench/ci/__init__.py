"""What a gate found, in the forms that continuous integration reads."""
