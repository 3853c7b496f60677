"""Tasks that fail are begun again, slow ones run twice, and the first to finish counts."""

from featurepipe.cluster.task_queue import MAX_TRIES, TaskQueue


def queue_of(n_tasks, sizes=None):
    return TaskQueue([f"Shard {number}" for number in range(n_tasks)], sizes or [1] * n_tasks)


def test_tasks_are_given_in_order_until_none_waits():
    queue = queue_of(2)
    first, second = queue.begin("a", 0), queue.begin("b", 0)
    assert (first.task, second.task, queue.begin("c", 100)) == (0, 1, None)
    assert queue.finish(first, 3) and queue.finish(second, 4)
    assert not queue.open
    assert (queue.outcome.failed, queue.outcome.n_again) == ({}, 0)


def test_a_task_that_fails_comes_next_and_is_given_up_in_the_end():
    queue = queue_of(3)
    for number in range(MAX_TRIES):
        attempt = queue.begin("a", 0)
        assert attempt.task == 0
        queue.fail(attempt, f"reason {number}")
    assert queue.outcome.failed == {0: f"reason {MAX_TRIES - 1}"}
    assert queue.outcome.n_again == MAX_TRIES - 1
    assert queue.open == {1, 2}
    assert queue.begin("a", 0).task == 1


def test_the_slowest_task_runs_elsewhere_once_and_the_first_to_finish_counts():
    queue = queue_of(3)
    quick, slow, slower = (queue.begin(worker, 0) for worker in "abc")
    queue.finish(quick, 10)
    # Twice the median of 10 s must have passed.
    assert queue.begin("a", 20) is None
    second = queue.begin("a", 20.5)
    assert (second.task, second.worker) == (slow.task, "a")
    queue.finish(slow, 21)
    # That of 10 and 21 s is 15.5 s.
    assert queue.begin("b", 31) is None
    third = queue.begin("b", 31.5)
    assert third.task == slower.task
    assert queue.begin("d", 1000) is None
    assert queue.outcome.n_again == 2
    # The copy is first; what comes after it is nothing.
    assert queue.finish(third, 32) and not queue.finish(slower, 33)
    assert not queue.finish(second, 34)
    assert not queue.open


def test_short_tasks_are_not_slow_after_a_moment():
    queue = queue_of(2)
    quick, _ = queue.begin("a", 0), queue.begin("b", 0)
    queue.finish(quick, 0.1)
    assert queue.begin("a", 4.9) is None
    assert queue.begin("a", 5.1).task == 1


def test_of_two_copies_one_may_fail():
    queue = queue_of(2)
    quick, slow = queue.begin("a", 0), queue.begin("b", 0)
    queue.finish(quick, 1)
    copy = queue.begin("a", 6)
    queue.fail(slow, "its worker died")
    # It does not wait again, since the copy still runs.
    assert queue.begin("b", 6.5) is None
    assert queue.finish(copy, 7)
    assert (queue.outcome.failed, queue.outcome.n_again) == ({}, 1)


def test_what_is_slow_depends_on_the_size_of_a_task():
    queue = queue_of(3, [10, 100, 0])
    quick, large, _ = (queue.begin(worker, 0) for worker in "abc")
    queue.finish(quick, 1)
    # Twice a tenth of a second, a hundred times.
    assert queue.begin("a", 19.5) is None
    assert queue.begin("a", 20.5).task == large.task
    # Nobody knows how long the last one takes.
    assert queue.begin("d", 1000) is None


def test_tasks_of_unknown_size_do_not_tell_how_long_others_take():
    queue = queue_of(3, [0, 0, 100])
    for _ in range(2):
        queue.finish(queue.begin("a", 0), 0.1)
    queue.begin("b", 0)
    assert queue.begin("a", 1000) is None
