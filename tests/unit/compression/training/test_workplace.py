"""The folder of a run: one run, one process, and what a killed one left half-written is gone."""

import json

import pytest

from compression.training.workplace import STATE_SUFFIX, find_difference, open_workplace
from runtimes.errors import OutputError, UsageError

RUN = {"recipe": {"name": "r", "steps": [{"do": "prune", "sparsity": 0.8}, {"do": "finetune"}]}, "data": {}}


def test_steps_are_counted_by_their_checkpoints(tmp_path):
    with open_workplace(tmp_path / "p", RUN) as place:
        assert place.count_done() == 0
        place.checkpoint(1).mkdir()
        assert place.count_done() == 2
        place.open_step(0)
        place.remove_all_but(1)
        assert sorted(path.name for path in place.folder.iterdir()) == ["1-finetune", "run.json"]


def change(*steps):
    return {**RUN, "recipe": {**RUN["recipe"], "steps": list(steps)}}


PRUNE, FINETUNE = RUN["recipe"]["steps"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": {**RUN["recipe"], "name": "s"}}, 'recipe.name was "r", is "s"'),
        (change({**PRUNE, "sparsity": 0.9}, FINETUNE), "0.8, is 0.9"),
        (change({"do": "distil"}, FINETUNE), 'recipe.steps[0].do was "prune", is "distil"'),
        (change(PRUNE), "recipe.steps was 2 long, is 1 long"),
        ({"data": {"train": "abc"}}, 'data.train was null, is "abc"'),
    ],
)
def test_another_run_is_refused(tmp_path, changed, message):
    with open_workplace(tmp_path / "p", RUN) as place:
        place.checkpoint(0).mkdir()
    before = (tmp_path / "p" / "run.json").read_text()
    with (
        pytest.raises(UsageError, match="a run begun there was another") as caught,
        open_workplace(tmp_path / "p", {**RUN, **changed}),
    ):
        pass
    assert message in str(caught.value)
    assert (tmp_path / "p" / "run.json").read_text() == before


def test_the_same_run_goes_on(tmp_path):
    for _ in range(2):
        with open_workplace(tmp_path / "p", RUN) as place:
            assert json.loads((place.folder / "run.json").read_text()) == RUN


OTHER_LAST = [change(PRUNE, {**FINETUNE, "epochs": 2}), change(PRUNE, {"do": "distil"})]


@pytest.mark.parametrize("changed", OTHER_LAST)
@pytest.mark.parametrize("given_up", [True, False])
def test_steps_of_which_nothing_is_kept_may_change(tmp_path, changed, given_up):
    with open_workplace(tmp_path / "p", RUN) as place:
        place.checkpoint(0).mkdir()
        work = place.open_step(1)
        if given_up:
            (work / f"train{STATE_SUFFIX}").touch()
            place.give_up(1)
    with open_workplace(tmp_path / "p", changed) as place:
        assert place.count_done() == 1
        assert json.loads((place.folder / "run.json").read_text()) == changed


@pytest.mark.parametrize("changed", OTHER_LAST)
def test_a_step_under_way_is_not_thrown_away_for_another(tmp_path, changed):
    with open_workplace(tmp_path / "p", RUN) as place:
        place.checkpoint(0).mkdir()
        state = place.open_step(1) / f"train{STATE_SUFFIX}"
        state.touch()
    with pytest.raises(UsageError, match=r"another: recipe\.steps"), open_workplace(tmp_path / "p", changed):
        pass
    assert state.is_file()
    longer = change(PRUNE, FINETUNE, {"do": "quantise"})
    with open_workplace(tmp_path / "p", longer) as place:
        assert state.is_file()
        assert place.steps[-1] == "quantise"


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_broken_record_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match="cannot be read"), open_workplace(tmp_path, RUN):
        pass


def test_two_at_once_are_refused(tmp_path):
    with (
        open_workplace(tmp_path, RUN),
        pytest.raises(UsageError, match="another process"),
        open_workplace(tmp_path, RUN),
    ):
        pass


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / ".0-prune.x1").mkdir()
    (tmp_path / ".run.json.x2").write_text("{")
    with open_workplace(tmp_path, RUN):
        assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_step_without_a_kept_state_starts_anew_with_its_metrics(tmp_path):
    with open_workplace(tmp_path, RUN) as place:
        for step in (0, 1):
            place.journal.write({"step": step})
        work = place.open_step(1)
        assert place.journal.path.read_text() == '{"step": 0}\n'
        place.journal.write({"step": 1})
        (work / f"train{STATE_SUFFIX}").touch()
        place.open_step(1)
        assert place.journal.path.read_text().count("\n") == 2


def test_a_place_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError), open_workplace(tmp_path / "file" / "p", RUN):
        pass


def test_equal_values_do_not_differ():
    assert find_difference(RUN, json.loads(json.dumps(RUN))) is None
