"""What health says, whatever troubles hold."""

from hypothesis import given
from hypothesis import strategies as st

from inference.serving_status import LIVENESS, NAMES, SERVICE_NAME, ServingStatus, Trouble


@given(st.lists(st.tuples(st.sampled_from(Trouble), st.booleans()), max_size=12))
def test_it_serves_while_no_trouble_holds_and_lives_while_a_restart_would_not_help(
    changes: list[tuple[Trouble, bool]],
) -> None:
    status, holds = ServingStatus(), dict.fromkeys(Trouble, False)
    for trouble, on in changes:
        status.set(trouble, on)
        holds[trouble] = on
    serving = {name: status.objection(name) is None for name in NAMES}
    assert serving[""] == serving[SERVICE_NAME] == (not any(holds.values()))
    deadly = holds[Trouble.DEVICE_STUCK] or holds[Trouble.DEVICE_LOST]
    assert serving[LIVENESS] == (not deadly)
