import pytest

from compression.factors.rank_limits import RANK_STEP, RankLimits, limit_by_arithmetic


def test_limit_by_arithmetic():
    # 384 x 1536: 589,824 products against rank x 1,920.
    assert limit_by_arithmetic(384, 1536) == 307
    assert 307 * 1920 < 384 * 1536 <= 308 * 1920
    assert limit_by_arithmetic(384, 384) == 191  # at 192 they are as many


def test_nothing_to_time_with_leaves_arithmetic():
    limits = RankLimits(None)
    assert limits.find(384, 384) == 191
    assert not limits.measured


@pytest.mark.parametrize("breaking", [0, 7, 8, 100, 190, 400])
def test_the_limit_is_where_factors_stop_to_gain(breaking):
    asked = []

    def gain(_inputs, _outputs, rank):
        asked.append(rank)
        return 1.5 if rank <= breaking else 0.9

    limit = RankLimits(gain).find(384, 384)
    assert limit == min(breaking, 191) // RANK_STEP * RANK_STEP
    assert all(rank <= 191 for rank in asked)
    assert len(asked) <= 5


def test_each_size_is_timed_once():
    asked = []

    def gain(inputs, outputs, _rank):
        asked.append((inputs, outputs))
        return 2.0

    limits = RankLimits(gain)
    assert limits.find(64, 32) == limits.find(64, 32) == 16
    limits.find(32, 64)
    assert asked.count((64, 32)) == asked.count((32, 64)) > 0
    assert limits.list_found() == {"64x32": 16, "32x64": 16}
