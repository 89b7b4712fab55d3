import pytest
import torch
from torch import nn

from octavo import CaptureError, ConfigError, DataError
from octavo.calibrate.samples import (
    COPIES,
    Samples,
    calls_with,
    count,
    keep_samples,
    labels_of,
    peak_bytes,
)
from octavo.capture.export import capture


def test_a_subset_is_the_first_samples():
    x = torch.arange(12.0).view(6, 2)
    few = Samples([[x[:2]], [x[2:4]], [x[4:]]], [[x]], (0,)).subset(3)
    assert torch.equal(torch.cat([inputs[0] for inputs in few.tuning]), x[:3])
    assert torch.equal(torch.cat([inputs[0] for inputs in few.measuring]), x[:3])


def test_without_a_batch_each_input_is_a_sample():
    images = [[torch.randn(3, 5, 5)] for _ in range(6)]
    few = Samples(images, images).subset(4)
    assert [inputs[0].shape for inputs in few.tuning] == [(3, 5, 5)] * 4


def test_what_is_tuned_on_is_not_measured_on_and_no_call_is_lost():
    x = torch.arange(40.0).view(20, 2)
    graph = capture(nn.Linear(2, 2), (x[:3],))
    calls = iter([((part,), {}) for part in x.split(3)])
    samples, taken = keep_samples(graph, calls, tuning=5, measuring=4, memory=1e9)
    assert torch.equal(torch.cat([inputs[0] for inputs in samples.measuring]), x[:4])
    assert torch.equal(torch.cat([inputs[0] for inputs in samples.tuning]), x[4:9])
    assert torch.equal(torch.cat([args[0] for args, _ in (*taken, *calls)]), x)


def test_too_few_samples_are_divided_if_asked():
    x = torch.arange(24.0).view(12, 2)
    graph = capture(nn.Linear(2, 2), (x[:3],))
    calls = iter([((part,), {}) for part in x.split(3)])
    samples, taken = keep_samples(graph, calls, 16, 8, memory=1e9, divided=True)
    assert torch.equal(torch.cat([inputs[0] for inputs in samples.measuring]), x[:4])
    assert torch.equal(torch.cat([inputs[0] for inputs in samples.tuning]), x[4:])
    assert torch.equal(torch.cat([args[0] for args, _ in taken]), x)


def test_pieces_and_groups_hold_each_sample_once():
    x = torch.arange(22.0).view(11, 2)
    samples = Samples([[x[:5]], [x[5:]]], [[x[:8]], [x[8:]]], (0,))
    pieces = [inputs[0] for inputs in samples.pieces(2, 9)]
    assert [len(p) for p in pieces] == [2, 2, 1, 2, 2]
    assert torch.equal(torch.cat(pieces), x[:9])
    groups = [torch.cat([inputs[0] for inputs in group]) for group in samples.groups(5)]
    assert [len(g) for g in groups] == [2, 2, 2, 2, 2, 1]
    assert torch.equal(torch.cat(groups), x)
    fewer = samples.to_tune(3).to_measure(4)
    assert torch.equal(fewer.tuning[0][0], x[:3]) and torch.equal(fewer.measuring[0][0], x[:4])
    assert samples.to_tune(None) is samples


def test_samples_of_one_label_are_in_one_group():
    x = torch.arange(7.0)[:, None]
    samples = Samples([], [[x[:3]], [x[3:]]], (0,), "abaccba")
    groups = [[inputs[0].flatten().tolist() for inputs in group] for group in samples.groups(2)]
    assert groups == [[[0, 2], [6]], [[1], [3, 4, 5]]]
    assert [len(group) for group in samples.groups(1)] == [2]
    fewer = [[inputs[0].tolist() for inputs in g] for g in samples.to_measure(4).groups(9)]
    assert fewer == [[[[0], [2]]], [[[1]]], [[[3]]]]


def test_what_is_measured_on_shares_no_label_with_what_is_tuned_on():
    x = torch.arange(24.0).view(12, 2)
    graph = capture(nn.Linear(2, 2), (x[:3],))
    calls = [((part,), {}) for part in x.split(5)]
    labels = labels_of(torch.tensor([0, 1, 0, 2, 1, 3, 0, 3, 4, 2, 2, 5]))
    samples, taken = keep_samples(graph, calls, 4, 4, 1e9, labels=labels)
    assert torch.equal(torch.cat([inputs[0] for inputs in samples.measuring]), x[[0, 2, 5, 6]])
    assert torch.equal(torch.cat([inputs[0] for inputs in samples.tuning]), x[[1, 3, 4, 8]])
    assert samples.labels == [0, 0, 3, 0]
    assert len(taken) == 2


def test_a_side_that_no_label_fills_ends_the_reading():
    x = torch.rand(200, 2)
    graph = capture(nn.Linear(2, 2), (x[:3],))
    calls = iter([((part,), {}) for part in x.split(5)])
    samples, taken = keep_samples(graph, calls, 4, 4, 1e9, labels=["only"] * 200)
    assert torch.equal(samples.measuring[0][0], x[:4]) and samples.tuning == samples.measuring
    assert len(taken) == 7


def test_labels_that_are_none():
    graph, x = capture(nn.Linear(2, 2), (torch.rand(3, 2),)), torch.rand(8, 2)
    for groups in (3, "abc", {0: 1}, torch.tensor(3)):
        with pytest.raises(ConfigError, match="a label for each sample of the data is needed"):
            labels_of(groups)
    with pytest.raises(DataError, match="one for each sample, not for each batch"):
        keep_samples(graph, [((x,), {})], 4, 4, 1e9, labels=labels_of([0, 1]))
    with pytest.raises(ConfigError, match="a number or string is needed"):
        keep_samples(graph, [((x,), {})], 4, 4, 1e9, labels=labels_of([[0]] * 8))


def test_too_few_samples_serve_for_both():
    x = torch.rand(3, 2)
    graph = capture(nn.Linear(2, 2), (x,))
    samples, taken = keep_samples(graph, [((x,), {})], tuning=16, measuring=8, memory=1e9)
    assert torch.equal(samples.tuning[0][0], x) and torch.equal(samples.measuring[0][0], x)
    assert len(taken) == 1


def test_calls_are_taken_until_they_hold_enough():
    calls = [((torch.rand(4, 2),), {}) for _ in range(5)]
    assert len(list(calls_with(calls, 9))) == 3


def test_a_call_of_another_shape_is_refused():
    graph = capture(nn.Linear(2, 2), (torch.rand(3, 2),))
    with pytest.raises((CaptureError, DataError), match="batches differ"):
        keep_samples(graph, [((torch.rand(3, 5),), {})], 4, 4, 1e9)


def test_fewer_samples_are_kept_where_their_values_take_too_much_memory():
    net, x = nn.Sequential(nn.Linear(8, 1000), nn.ReLU()), torch.rand(20, 8)
    graph = capture(net, (x,))
    one = peak_bytes(graph, [x[:1]])
    assert one == 2 * 4 * 1000  # the output of the layer, and that of the activation
    for memory, expected in ((1e9, 12), (5.5 * COPIES * one, 5), (0, 1)):
        samples, _ = keep_samples(graph, [((x,), {})], 12, 4, memory)
        assert sum(len(inputs[0]) for inputs in samples.tuning) == expected


def test_only_tensors_with_samples_are_counted_and_cut():
    x, table = torch.rand(5, 2), torch.rand(5, 3)
    assert count([x, table], (0, None)) == count([table, x], (None, 0)) == 5
    assert count([x, table], ()) == 1
    few = Samples([[x, table]], [[x, table]], (0, None)).subset(2)
    assert [t.shape[0] for t in few.tuning[0]] == [2, 5]


def test_samples_along_another_dimension():
    x = torch.arange(24.0).view(2, 4, 3)
    assert count([x], (1,)) == 4
    few = Samples([[x]], [[x]], (1,)).subset(3)
    assert torch.equal(few.tuning[0][0], x[:, :3])
