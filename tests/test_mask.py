"""Who may see whom: the runs of keys that say it, and the parts of the matrix they make."""

from dataclasses import replace

import pytest
import torch

from regard.mask import Block, make_mask, positions, select, select_broadcast

CPU = torch.device("cpu")


def mask(queries=5, keys=7, batch=2, **options):
    return make_mask((batch, 3, queries, keys), CPU, **options)


def spans(rule, row=0):
    return [(int(start), int(stop)) for start, stop in zip(*(bound[row] for bound in rule.spans), strict=True)]


def everything(queries=5, keys=7, batch=2):
    return Block(slice(0, batch), slice(0, 3), slice(0, queries), slice(0, keys))


# Runs of keys


def test_without_rules_all_see_all():
    rule = mask()
    assert not rule.bounded
    assert rule.tile(everything(), CPU) is None
    assert spans(rule) == [(0, 7)] * 5


def test_causal_is_bottom_right_aligned():
    assert spans(mask(queries=3, keys=5, causal=True)) == [(0, 3), (0, 4), (0, 5)]
    assert spans(mask(queries=4, keys=2, causal=True)) == [(0, -1), (0, 0), (0, 1), (0, 2)]  # the first two see none


def test_a_single_query_is_the_last_and_sees_all():
    assert not mask(queries=1, causal=True).bounded
    assert spans(mask(queries=1, causal=True)) == [(0, 7)]


def test_window_counts_from_the_aligned_query():
    assert spans(mask(queries=3, keys=5, window=(1, 0))) == [(1, 3), (2, 4), (3, 5)]
    assert spans(mask(queries=3, keys=5, window=(None, 1))) == [(0, 4), (0, 5), (0, 5)]
    assert spans(mask(queries=3, keys=5, window=(1, None))) == [(1, 5), (2, 5), (3, 5)]


def test_a_window_that_hides_nothing_is_none():
    """A text shorter than the model's window costs what it costs without one."""
    assert mask(queries=7, window=(6, 6)).window == (None, None)
    assert mask(queries=7, window=(5, 5)).window == (5, 5)
    assert mask(queries=7, window=(6, 0), causal=True).window == (None, None)  # causal already hides what is ahead
    assert mask(queries=1, window=(3, 0)).window == (3, None)
    for queries, keys in ((1, 1), (3, 5), (5, 3), (7, 7)):
        for window in [(side, None) for side in range(8)] + [(None, side) for side in range(8)]:
            plain = replace(mask(queries, keys), window=window)  # as given, whatever it hides
            hides = any(start > 0 or stop < keys for start, stop in spans(plain))
            assert hides == (mask(queries, keys, window=window).window != (None, None))


def test_lengths_are_one_run_a_sequence():
    rule = mask(lengths=[3, 7], causal=True)
    assert spans(rule, 0) == [(0, 3), (0, 3), (0, 3), (0, 3), (0, 3)]
    assert spans(rule, 1) == [(0, 3), (0, 4), (0, 5), (0, 6), (0, 7)]


def test_segments_of_no_length():
    rule = mask(queries=4, keys=6, segments=([0, 1, 1, 4], [0, 2, 5, 6]))
    assert spans(rule) == [(0, 2), (5, 6), (5, 6), (5, 6)]
    rule = mask(queries=4, keys=6, segments=([0, 3, 4], [0, 0, 6]))
    assert [start < stop for start, stop in spans(rule)] == [False, False, False, True]


def test_causal_and_window_count_within_each_segment():
    assert spans(mask(queries=6, keys=6, segments=[0, 2, 6], causal=True, window=(1, None))) == [
        (0, 1), (0, 2), (2, 3), (2, 4), (3, 5), (4, 6),
    ]  # fmt: skip


# Parts of the matrix


@pytest.mark.parametrize(
    "options",
    [
        {"causal": True},
        {"window": (2, 1)},
        {"lengths": [2, 5]},
        {"lengths": [0, 0]},
        {"segments": ([0, 2, 5], [0, 4, 7]), "causal": True},
        {"mask": torch.rand(2, 1, 5, 7) < 0.5},
        {"mask": torch.rand(3, 5, 1) < 0.5, "causal": True},
        {"mask": lambda b, h, q, k: (b + h + q + k) % 2 == 0, "lengths": [2, 5]},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_part_is_a_part_of_the_whole(options):
    rule = mask(**options)
    whole = rule.tile(everything(), CPU).expand(2, 3, 5, 7)
    for batch in (slice(0, 2), slice(1, 2)):
        for heads in (slice(0, 3), slice(1, 3)):
            for rows in (slice(0, 5), slice(3, 4), torch.tensor([4, 0, 0])):
                for columns in (slice(0, 7), slice(2, 5), torch.tensor([6, 1])):
                    tile = rule.tile(Block(batch, heads, rows, columns), CPU)
                    expected = whole[batch, heads][:, :, rows][..., columns]
                    assert torch.equal(tile.expand(expected.shape), expected)


def test_reach_holds_all_that_is_seen_and_no_more():
    rule = mask(queries=7, keys=7, causal=True, window=(1, None))
    assert rule.key_range(slice(0, 2), slice(3, 5)) == slice(2, 5)
    assert mask(lengths=[2, 5]).key_range(slice(0, 2), slice(0, 5)) == slice(0, 5)
    assert mask(lengths=[2, 5]).key_range(slice(0, 1), slice(0, 5)) == slice(0, 2)
    assert mask().key_range(slice(0, 1), slice(0, 1)) == slice(0, 7)


def test_reach_of_those_who_see_nothing_is_one_key():
    assert mask(lengths=[0, 0]).key_range(slice(0, 2), slice(0, 5)) == slice(0, 1)
    assert mask(keys=0, causal=True).key_range(slice(0, 2), slice(0, 5)) == slice(0, 0)


def test_rules_take_memory_of_the_length_and_not_of_its_square():
    rule = mask(queries=100_000, keys=100_000, causal=True, window=(4096, 0), lengths=[99_000, 100_000])
    assert sum(bound.numel() for bound in rule.spans) == 2 * 2 * 100_000


# Indices


def test_part_leaves_what_is_shared():
    tensor = torch.arange(15).view(1, 3, 5)
    assert select_broadcast(tensor, slice(0, 2), slice(1, 2), slice(2, 4)).tolist() == [[[7, 8]]]
    assert select_broadcast(tensor, slice(0, 2), torch.tensor([2, 0])).shape == (1, 2, 5)


def test_select_is_a_view_of_a_run():
    tensor = torch.arange(15).view(3, 5)
    assert select(tensor, 1, slice(1, 3)).data_ptr() == tensor[:, 1:].data_ptr()
    assert select(tensor, 1, torch.tensor([4, 4])).tolist() == [[4, 4], [9, 9], [14, 14]]


def test_positions():
    assert positions(slice(2, 5), CPU).tolist() == [2, 3, 4]
    assert positions(torch.tensor([5, 1]), CPU).tolist() == [5, 1]
