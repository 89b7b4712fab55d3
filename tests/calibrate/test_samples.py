import pytest
import torch
from torch import nn

from octavo import CaptureError, DataError
from octavo.calibrate.samples import Samples, calls_with, keep_samples
from octavo.capture.export import capture


def test_a_subset_is_the_first_samples():
    x = torch.arange(12.0).view(6, 2)
    few = Samples([[x[:2]], [x[2:4]], [x[4:]]], [[x]]).subset(3)
    assert torch.equal(torch.cat([inputs[0] for inputs in few.tuning]), x[:3])
    assert torch.equal(torch.cat([inputs[0] for inputs in few.measuring]), x[:3])


def test_without_a_batch_each_input_is_a_sample():
    images = [[torch.randn(3, 5, 5)] for _ in range(6)]
    few = Samples(images, images, batched=False).subset(4)
    assert [inputs[0].shape for inputs in few.tuning] == [(3, 5, 5)] * 4


def test_what_is_tuned_on_is_not_measured_on_and_no_call_is_lost():
    x = torch.arange(40.0).view(20, 2)
    graph = capture(nn.Linear(2, 2), (x[:3],))
    calls = iter([((part,), {}) for part in x.split(3)])
    samples, taken = keep_samples(graph, calls, True, tuning=5, measuring=4)
    assert torch.equal(torch.cat([inputs[0] for inputs in samples.measuring]), x[:4])
    assert torch.equal(torch.cat([inputs[0] for inputs in samples.tuning]), x[4:9])
    assert torch.equal(torch.cat([args[0] for args, _ in (*taken, *calls)]), x)


def test_too_few_samples_serve_for_both():
    x = torch.rand(3, 2)
    graph = capture(nn.Linear(2, 2), (x,))
    samples, taken = keep_samples(graph, [((x,), {})], True, tuning=16, measuring=8)
    assert torch.equal(samples.tuning[0][0], x) and torch.equal(samples.measuring[0][0], x)
    assert len(taken) == 1


def test_calls_are_taken_until_they_hold_enough():
    calls = [((torch.rand(4, 2),), {}) for _ in range(5)]
    assert len(list(calls_with(calls, 9))) == 3


def test_a_call_of_another_shape_is_refused():
    graph = capture(nn.Linear(2, 2), (torch.rand(3, 2),))
    with pytest.raises((CaptureError, DataError), match="batches differ"):
        keep_samples(graph, [((torch.rand(3, 5),), {})], True, 4, 4)
