from inference.waiting import DeviceClock, Waiting
from inference.work_queue import Priority

BULK, INTERACTIVE = Priority.BULK, Priority.INTERACTIVE


def test_what_waits_is_counted_by_priority_and_the_oldest_is_known() -> None:
    waiting = Waiting()
    assert waiting.oldest(BULK) is None
    waiting.enter("a", BULK, 1.0)
    waiting.enter("b", BULK, 2.0)
    waiting.enter("c", INTERACTIVE, 3.0)
    assert (waiting.count(BULK), waiting.oldest(BULK)) == (2, 1.0)
    assert waiting.leave("a", BULK) == 1.0
    assert waiting.leave("a", BULK) is None
    assert (waiting.count(BULK), waiting.oldest(BULK)) == (1, 2.0)
    assert (waiting.count(INTERACTIVE), waiting.oldest(INTERACTIVE)) == (1, 3.0)


def test_overlapping_calls_make_a_device_busy_once() -> None:
    clock = DeviceClock()
    first = clock.begin(10.0)
    second = clock.begin(11.0)
    assert clock.busy_seconds(12.0) == 2.0
    assert clock.longest(12.0) == 2.0
    clock.end(first, 13.0)
    assert clock.longest(13.0) == 2.0
    clock.end(second, 14.0)
    assert clock.busy_seconds(100.0) == 4.0
    assert clock.longest(100.0) == 0.0
    third = clock.begin(100.0)
    clock.end(third, 101.0)
    assert clock.busy_seconds(101.0) == 5.0
