"""What the process of a subject does by itself."""

import threading
import time

from bench.subjects.worker import run_streams


def test_every_stream_has_a_call_of_its_own():
    seen = [set(), set()]

    def make_call(number):
        def call():
            seen[number].add(threading.get_ident())
            time.sleep(0.001)

        return call

    runs, ns = run_streams([make_call(0), make_call(1)], 0.05)
    assert runs >= 2
    assert ns >= 50_000_000
    assert [len(threads) for threads in seen] == [1, 1]
    assert seen[0] != seen[1]
