"""Generation: what a decoder's cache is called, and the loop that turns a prompt into text."""
