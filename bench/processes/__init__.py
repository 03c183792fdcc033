"""A worker process, whatever works in it: requests, replies, time-outs, memory."""
