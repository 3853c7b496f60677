"""Images that arrive while a pass runs are answered together by the next."""

import threading

import pytest

from featurepipe.errors import ImageError
from featurepipe.serving.batching import MAX_TOGETHER, Batcher


class Held:
    """Answers that wait until they are released, and what each pass was given."""

    def __init__(self):
        self.passes, self.begun, self.may_answer = [], threading.Semaphore(0), threading.Event()

    def answer(self, images):
        self.passes.append(list(images))
        self.begun.release()
        assert self.may_answer.wait(60)
        return [image.upper() for image in images]


@pytest.fixture
def held():
    held = Held()
    held.counted = []
    held.decoded = threading.Semaphore(0)

    def decode(data):
        if data == b"broken":
            raise ImageError("damaged image")
        held.decoded.release()
        return data.decode()

    with Batcher(decode, held.answer, held.counted.append) as held.batcher:
        yield held
        held.may_answer.set()


def test_what_arrives_during_a_pass_is_answered_by_the_next_together(held):
    first = held.batcher.submit(b"first")
    assert held.begun.acquire(timeout=60)
    later = [held.batcher.submit(b"later") for _ in range(5)]
    # Until all are decoded, none can be left for a third pass.
    for _ in range(6):
        assert held.decoded.acquire(timeout=60)
    while held.batcher._ready.qsize() < 5:
        threading.Event().wait(0.001)
    held.may_answer.set()
    assert first.result(60) == "FIRST"
    assert [one.result(60) for one in later] == ["LATER"] * 5
    assert held.passes == [["first"], ["later"] * 5]
    assert held.counted == [1, 5]


def test_a_pass_has_a_largest_size_and_each_image_its_own_answer(held):
    held.may_answer.set()
    asked = {f"i{k}": held.batcher.submit(b"i%d" % k) for k in range(5 * MAX_TOGETHER)}
    assert {name: one.result(60) for name, one in asked.items()} == {
        name: name.upper() for name in asked
    }
    assert max(held.counted) <= MAX_TOGETHER
    assert sum(held.counted) == len(asked)


def test_an_image_that_cannot_be_decoded_has_its_own_error_and_no_pass(held):
    held.may_answer.set()
    broken, good = held.batcher.submit(b"broken"), held.batcher.submit(b"good")
    with pytest.raises(ImageError, match="damaged"):
        broken.result(60)
    assert good.result(60) == "GOOD"
    assert held.passes == [["good"]]


def test_a_pass_that_fails_fails_its_images_and_the_next_goes_on():
    def answer(images):
        if "bad" in images:
            raise ValueError("no answer")
        return images

    with Batcher(bytes.decode, answer, lambda n: None) as batcher:
        with pytest.raises(ValueError, match="no answer"):
            batcher.submit(b"bad").result(60)
        assert batcher.submit(b"good").result(60) == "good"


def test_an_image_that_is_cancelled_before_it_is_decoded_costs_nothing():
    decoded, may_decode = [], threading.Event()

    def decode(data):
        assert may_decode.wait(60)
        decoded.append(data)
        return data

    with Batcher(decode, lambda images: images, lambda n: None) as batcher:
        asked = [batcher.submit(b"%d" % k) for k in range(100)]
        # Decoders are busy with the first ones, and cannot begin the last.
        assert asked[-1].cancel()
        may_decode.set()
        assert [one.result(60) for one in asked[:-1]] == [b"%d" % k for k in range(99)]
    assert b"99" not in decoded


def test_closing_answers_what_is_decoded_and_ends_the_threads():
    with Batcher(bytes.decode, lambda images: images, lambda n: None) as batcher:
        asked = batcher.submit(b"one")
        assert asked.result(60) == "one"
        assert "passes" in [thread.name for thread in threading.enumerate()]
    assert "passes" not in [thread.name for thread in threading.enumerate()]
