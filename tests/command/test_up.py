"""When `imagesafety up` starts a service again."""

from imagesafety.command.up import FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS, Restarts


def test_a_service_that_dies_is_started_again_with_growing_pauses() -> None:
    restarts = Restarts()
    pauses = []
    for _ in range(10):
        after = restarts.after(-9, 1)
        assert after is not None
        restarts = after
        pauses.append(restarts.pause)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    steady = restarts.after(-9, STEADY_SECONDS + 1)
    assert steady is not None
    assert steady.pause == FIRST_PAUSE


def test_a_wrong_setting_is_final_unless_it_has_worked_before() -> None:
    assert Restarts().after(2, 1) is None
    worked = Restarts().after(-9, STEADY_SECONDS + 1)
    assert worked is not None
    assert worked.after(2, 1) is not None
