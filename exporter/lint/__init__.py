"""What a runtime will not take of a quantised graph, whoever made it: found, explained and rewritten where possible."""
