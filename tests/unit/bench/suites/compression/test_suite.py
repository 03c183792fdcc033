"""What the compression suite makes of its rows, records and times: nothing is trained here."""

import json
from dataclasses import asdict, replace
from hashlib import sha256

import pytest

from bench.suites.compression import suite
from bench.suites.compression.commands import Commands, read_answer
from bench.suites.compression.data import MOVIES, REUTERS, TaskData, split_lines
from bench.suites.compression.goals import find_best, judge_all
from bench.suites.compression.make import Bench, Teacher, make_row, start_anew
from bench.suites.compression.peers import PEERS, Pair, read_pairs
from bench.suites.compression.records import (
    Origin,
    Plan,
    Quality,
    Record,
    describe_origin,
    keep,
    read_record,
    read_records,
    write_record,
)
from bench.suites.compression.resume import RECIPE, Resumed, read_resumed, write_resumed
from bench.suites.compression.rows import ROWS, describe_row, read_recipe
from bench.suites.compression.suite import parse_options
from bench.suites.compression.tables import render_records
from bench.suites.compression.times import Timed, fill_batch
from bench.timing.compare import Comparison
from bench.timing.measure import MeasurePlan
from compression.recipe import STEPS, parse_recipe
from runtimes.errors import Inconclusive, UnsupportedModel

TEACHER = Quality(accuracy=0.9, macro_f1=0.89, samples=2000)


def make_speed(ratio, spread=0.05):
    return Comparison(ratio=ratio, low=ratio - spread, high=ratio + spread, rounds=15, verdict="faster")


def make_origin(made_by):
    return Origin(made_by_sha256=sha256(made_by.encode()).hexdigest(), data_sha256="0" * 64, cpu="a CPU")


def make_record(key, *, task=MOVIES, seed=0, lost=0.0, speed=5.0, size=5_000_000, tier="built", origin=None):
    timed = Timed(
        median_ns={"torch": 1e8, "ort-fp32": 1.1e8, "ours": 2e7},
        against_torch=make_speed(speed),
        against_ort=make_speed(speed),
        gemm_gflops=300.0,
    )
    return Record(
        key=key,
        task=task,
        seed=seed,
        origin=origin or make_origin(describe_row(key, ROWS[key])),
        quality=Quality(accuracy=0.9 - lost / 100, macro_f1=0.88, samples=2000),
        teacher=TEACHER,
        artifact_bytes=size,
        model_bytes=size - 200_000,
        teacher_bytes=90_900_000,
        candidate="int8-dynamic",
        plan=Plan(tier=tier, why="" if tier != "none" else "it has an If"),
        times={"8x128": timed, "texts": timed},
        train_seconds=60.0,
    )


def make_pair(**accuracies):
    return Pair(key="peer-svd", origin=make_origin(PEERS["peer-svd"].steps), teacher=0.9, **accuracies)


def group(*records):
    found = {}
    for one in records:
        found.setdefault((one.key, one.task), []).append(one)
    return found


@pytest.mark.parametrize("key", ROWS)
def test_every_row_is_a_recipe(key):
    recipe = parse_recipe(read_recipe(key, ROWS[key]), where=key)
    assert recipe.name == (ROWS[key].shipped or key)


def test_every_step_has_a_row():
    done = {step.do for key, row in ROWS.items() for step in parse_recipe(read_recipe(key, row), where=key).steps}
    # finetune makes the teacher; new-student makes a language model, which the suite `decoder` measures.
    assert done | {"finetune", "new-student"} == set(STEPS)


@pytest.mark.parametrize("text", [RECIPE, *(f'name = "p"\n{peer.steps}' for peer in PEERS.values())])
def test_what_is_compared_and_killed_are_recipes(text):
    assert parse_recipe(text, where="r").steps


def test_the_split_depends_on_the_text_alone():
    lines = [json.dumps({"text": f"text {number}", "label": number % 2}) for number in range(2000)]
    train, held_out = split_lines(lines)
    assert 0.07 < len(held_out) / len(lines) < 0.13
    assert sorted(train + held_out) == sorted(lines)
    again = split_lines(lines[::-1])
    assert (sorted(again[0]), sorted(again[1])) == (sorted(train), sorted(held_out))


def test_the_headline_is_met_only_where_all_of_it_is():
    goals = judge_all(group(make_record("compact"), make_record("compact", task=REUTERS, seed=1)))
    assert [goal.verdict for goal in goals if goal.name.startswith("compact")] == ["met"] * 6


@pytest.mark.parametrize(
    ("change", "what"),
    [({"speed": 4.22}, "speed"), ({"size": 5_700_000}, "smaller"), ({"lost": 0.81}, "points lost")],
)
def test_a_part_of_the_headline_is_missed(change, what):
    goals = [goal for goal in judge_all(group(make_record("compact", **change))) if goal.name.startswith("compact")]
    assert {goal.verdict for goal in goals if what in goal.name} == {"missed"}
    assert {goal.verdict for goal in goals if what not in goal.name} == {"met"}


def test_a_loss_is_the_mean_of_the_seeds_and_says_how_many_there_are():
    records = group(*(make_record("compact", seed=seed, lost=lost) for seed, lost in enumerate((0.2, 0.6, 1.3))))
    (goal,) = (goal for goal in judge_all(records) if "points lost" in goal.name)
    assert (goal.measured, goal.verdict) == ("+0.70", "met")
    assert "3 of 3 seeds" in goal.name


def test_the_best_loses_little_on_both_tasks():
    fast = [make_record("fastest", task=MOVIES, speed=9), make_record("fastest", task=REUTERS, speed=9, lost=0.9)]
    deep = [make_record("compact", task=task, speed=5, size=4_000_000) for task in (MOVIES, REUTERS)]
    wide = [make_record("compact-shallow", task=task, speed=6) for task in (MOVIES, REUTERS)]
    half = [make_record("smallest", size=1_000_000)]
    found = {what: key for what, key, _ in find_best(group(*fast, *deep, *wide, *half))}
    assert found == {"fastest": "compact-shallow", "smallest": "compact"}


def test_rows_that_are_missing_are_named():
    goals = {goal.name: goal.verdict for goal in judge_all(group(make_record("heads")))}
    (name,) = (name for name in goals if name.startswith("rows measured"))
    assert goals[name] == "missed"
    assert "neurons" in name
    assert "heads" not in name.replace("heads-", "")


def test_a_row_without_a_plan_is_a_miss_and_says_why():
    every = [make_record(key, tier="none" if key == "exit-early" else "built") for key in ROWS]
    goals = {goal.name: goal.verdict for goal in judge_all(group(*every))}
    assert goals["rows measured"] == "met"
    assert goals["rows with a plan of TensorRT: not exit-early"] == "missed"
    assert "it has an If" in "\n".join(render_records(group(*every), {}, ()))


@pytest.mark.parametrize(("second", "verdict"), [(1.9, "met"), (2.1, "missed")])
def test_second_order_may_lose_half_of_what_magnitude_loses(second, verdict):
    records = group(make_record("once-magnitude", lost=4.0), make_record("once-second-order", lost=second))
    (goal,) = (goal for goal in judge_all(records) if goal.name.startswith("at once"))
    assert goal.verdict == verdict


@pytest.mark.parametrize(("lost", "verdict"), [(0.3, "met"), (0.5, "missed")])
def test_training_with_rounding_is_held_to_the_best_rounding_afterwards(lost, verdict):
    afterwards = [make_record("int8-dynamic", lost=0.4), make_record("int8-static", lost=0.9)]
    goals = judge_all(group(*afterwards, make_record("int8-aware", lost=lost)))
    (goal,) = (goal for goal in goals if goal.name.startswith("int8-aware"))
    assert goal.verdict == verdict


def test_a_record_is_read_back_as_it_was(tmp_path):
    record = make_record("heads", lost=0.3)
    assert read_record(tmp_path, "heads", MOVIES, 0) is None
    write_record(tmp_path, record)
    assert read_record(tmp_path, "heads", MOVIES, 0) == record
    assert read_records(tmp_path) == {("heads", MOVIES): [record]}


def test_a_record_of_another_recipe_counts_no_more(tmp_path):
    write_record(tmp_path, make_record("heads", origin=make_origin("steps of last year")))
    assert read_records(tmp_path) == {}


def test_a_row_with_a_record_is_not_made_again(tmp_path):
    """No time is left to make it; learned from other texts, it would have to be."""
    path = tmp_path / "model.safetensors"
    path.write_text("weights and texts")
    data = TaskData(name=MOVIES, train=path, held_out=path, test=path, unlabelled=path)
    teacher = Teacher(checkpoint=tmp_path, graph=path, quality=TEACHER)
    bench = Bench(
        work=tmp_path / "work",
        records=tmp_path / "records",
        commands=Commands(until=0.0),
        plan=MeasurePlan(blocks=6),
        say=print,
    )
    row = ROWS["heads"]
    record = make_record("heads", origin=describe_origin(describe_row("heads", row), data))
    write_record(bench.records, record)
    assert make_row(bench, "heads", row, data, teacher, 0) == record
    path.write_text("other texts")
    with pytest.raises(Inconclusive):
        make_row(bench, "heads", row, data, teacher, 0)


def test_a_row_of_another_recipe_is_made_anew(tmp_path):
    start_anew(tmp_path / "row", {"recipe": "a"})
    (tmp_path / "row" / "plan.json").write_text("{}")
    start_anew(tmp_path / "row", {"recipe": "a"})
    assert (tmp_path / "row" / "plan.json").is_file()
    start_anew(tmp_path / "row", {"recipe": "b"})
    assert not (tmp_path / "row" / "plan.json").exists()


def test_a_batch_is_filled_with_texts_one_after_the_other():
    assert fill_batch([[1, 2], [3]], 2, 4) == [[1, 2, 3, 1], [2, 3, 1, 2]]


def test_no_command_begins_when_the_time_is_up():
    with pytest.raises(Inconclusive, match="run it again"):
        Commands(until=0.0).run("doctor")


def test_what_a_command_said_is_the_reason():
    error = {"what": "no layer\nis left", "where": "steps[0]", "cure": "keep one", "kind": "UsageError", "exit_code": 2}
    with pytest.raises(UnsupportedModel, match=r"steps\[0\]: no layer is left"):
        read_answer(json.dumps({"error": error}), 2, "compress")
    with pytest.raises(UnsupportedModel, match="without an answer"):
        read_answer("", 139, "export")


def test_pairs_and_kills_are_goals():
    pair = make_pair(ours=0.8, theirs=0.7)
    assert pair.judge().verdict == "met"
    assert make_pair(ours=0.7, theirs=0.8).judge().verdict == "missed"
    same = Resumed(kills=(1.0, 2.0), alone_sha256="a", resumed_sha256="a", seconds=3.0)
    assert same.judge().verdict == "met"
    assert Resumed(kills=(1.0,), alone_sha256="a", resumed_sha256="b", seconds=3.0).judge().verdict == "missed"
    assert Resumed(kills=(), alone_sha256="a", resumed_sha256="a", seconds=3.0).judge().verdict == "missed"


def test_pairs_are_read_back_unless_they_are_made_otherwise_now(tmp_path):
    assert read_pairs(tmp_path) == ()
    pair = make_pair(ours=0.8, theirs=0.7)
    keep(tmp_path / "movies-peer-svd.json", asdict(pair))
    assert read_pairs(tmp_path) == (pair,)
    keep(tmp_path / "movies-peer-svd.json", asdict(replace(pair, origin=make_origin("other steps"))))
    assert read_pairs(tmp_path) == ()


def test_kills_are_read_back_as_they_were(tmp_path):
    assert read_resumed(tmp_path) is None
    resumed = Resumed(kills=(1.0, 2.0), alone_sha256="a", resumed_sha256="a", seconds=3.0)
    write_resumed(tmp_path, resumed)
    assert read_resumed(tmp_path) == resumed


def test_an_unknown_row_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--only", "heads,haeds"])
    assert ended.value.code == 2
    assert "haeds" in capsys.readouterr().err


def test_showing_makes_nothing_and_prints_what_is_there(tmp_path, capsys):
    write_record(tmp_path / "records", make_record("heads"))
    words = ["--show", "--work", str(tmp_path / "work"), "--records", str(tmp_path / "records")]
    words += ["--output", str(tmp_path / "results")]
    assert suite.main(words) == 0
    said = capsys.readouterr().out
    assert ROWS["heads"].title in said
    assert "MISSED" in said
    assert "a CPU" in said
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_a_row_is_made_from_end_to_end_and_then_kept(tmp_path, minilm_dir, movie_sentences, capsys):
    """On MiniLM, which takes the 128 tokens that are timed: compress, export, a plan, accuracy, times, a record."""
    assert movie_sentences.train.is_file()
    words = ["--part", "bounds", "--only", "once-magnitude", "--model", str(minilm_dir), "--limit", "48"]
    words += ["--blocks", "6", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "results")]
    assert suite.main(words) == 0
    (records,) = read_records(tmp_path / "work" / "records").values()
    assert records[0].artifact_bytes > records[0].model_bytes > 0
    assert records[0].quality.samples == 48
    first = capsys.readouterr()
    assert "Not made" not in first.out
    assert suite.main(words) == 0
    assert "compressing" not in capsys.readouterr().err
