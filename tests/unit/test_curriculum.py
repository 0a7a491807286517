"""A curriculum serves one stream after another, and no minibatch twice."""

import pytest
import torch

from thesis_kit.data.curriculum import Curriculum
from thesis_kit.data.parts import Part, Stream


class Numbers(Stream):
    """Images whose pixel is the minibatch's number, labels that tell the stream."""

    def __init__(self, label):
        self.name, self.label, self.device = f"numbers {label}", label, "cpu"

    def minibatch(self, position, size):
        x = torch.full((size, 1, 1, 1), position / 100, device=self.device)
        return Part(x, torch.full((size,), self.label, device=self.device), torch.arange(size, device=self.device))

    def to(self, device):
        moved = Numbers(self.label)
        moved.device = device
        return moved


def test_streams_follow_one_another_with_running_numbers():
    curriculum = Curriculum([Numbers(0), Numbers(1), Numbers(2)], [2, 3])
    served = [curriculum.minibatch(position, 4) for position in range(8)]
    assert [int(part.y[0]) for part in served] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert [round(100 * part.x[0].item()) for part in served] == list(range(8))
    assert curriculum.name == "2 of numbers 0, 3 of numbers 1, numbers 2"


def test_it_moves_with_its_streams():
    curriculum = Curriculum([Numbers(0), Numbers(1)], [1]).to("meta")
    assert {curriculum.minibatch(position, 2).x.device.type for position in (0, 1)} == {"meta"}


@pytest.mark.parametrize(("streams", "counts"), [([], []), ([Numbers(0)], [1]), ([Numbers(0), Numbers(1)], [])])
def test_each_stream_but_the_last_needs_a_number(streams, counts):
    with pytest.raises(ValueError, match="a curriculum needs a number of minibatches for every stream but the last"):
        Curriculum(streams, counts)


def test_a_number_below_zero_is_one_sentence():
    with pytest.raises(ValueError, match="minibatches of a stream must be a whole number of at least 0"):
        Curriculum([Numbers(0), Numbers(1)], [-1])
