import pytest

from exporter.packing.provenance import cut_paths, make_finite


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("/home/somebody/models/minilm", "minilm"),
        ("~/models/minilm/", "minilm"),
        (r"C:\Users\somebody\texts.txt", "texts.txt"),
        ("/home/somebody/model.py:make", "model.py:make"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("and/or", "and/or"),
        ("int8-static, smoothed", "int8-static, smoothed"),
        ("", ""),
    ],
)
def test_paths_of_a_machine_are_cut_and_all_else_stays(told, kept):
    assert cut_paths({"at": [told]}) == {"at": [kept]}


def test_what_is_no_number_becomes_null_all_the_way_down():
    told = {"speed": {"1x16": (float("inf"), 2.5)}, "load": float("nan"), "none": None, "count": 3, "is": True}
    assert make_finite(told) == {"speed": {"1x16": [None, 2.5]}, "load": None, "none": None, "count": 3, "is": True}
