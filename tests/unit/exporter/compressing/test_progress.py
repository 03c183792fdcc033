"""What a person sees while a recipe runs."""

from contextlib import contextmanager

from exporter.compressing.progress import Narrator


class Notes:
    """A progress that writes down what it is told."""

    def __init__(self):
        self.lines = []

    def step(self, title):
        self.lines.append(title)

    @contextmanager
    def task(self, title, total):
        self.lines.append(f"{title} of {total}")
        yield self
        self.lines.append("closed")

    def advance(self, count=1):
        self.lines.append(count)

    def describe(self, title):
        self.lines.append(title)


def entry(update, **more):
    return {
        "step": 0,
        "do": "prune",
        "training": "train",
        "update": update,
        "updates": 20,
        "epoch": update / 10,
        **more,
    }


def test_a_training_is_a_bar_with_its_measures():
    notes = Notes()
    with Narrator(notes) as narrator:
        narrator.tell({"step": 0, "do": "prune", "steps": 2})
        narrator.tell(entry(10, loss=0.51234, sparsity=0.25, held_out={"accuracy": 0.75}))
        narrator.tell(entry(20, loss=0.25, sparsity=0.5))
        narrator.tell({"step": 0, "do": "prune", "facts": {}, "seconds": 2.0})
    assert notes.lines == [
        "step 1 of 2: prune",
        "train of 20",
        "train · loss 0.5123 · sparsity 0.25",
        10,
        "epoch 1 · loss 0.5123 · sparsity 0.25 · accuracy 0.75",
        "train · loss 0.25 · sparsity 0.5",
        10,
        "closed",
    ]


def test_the_bar_goes_where_a_training_is_cut_short():
    notes = Notes()
    with Narrator(notes) as narrator:
        narrator.tell(entry(10, loss=0.5))
    assert notes.lines[-1] == "closed"
