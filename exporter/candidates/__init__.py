"""What every target does with its candidates: build, judge, time, choose."""
