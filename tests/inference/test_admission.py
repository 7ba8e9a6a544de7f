"""Who may have how much in the service at once."""

import asyncio
import contextlib

import pytest

from inference.admission import Admission, AdmissionLimits, Sender
from inference.errors import Reason, ScoringError

LIMITS = AdmissionLimits(
    max_images=8, max_bytes=1000, max_image_bytes=100, quotas={"large": 8, "small": 1}
)


class Held:
    """Places that were taken."""

    def __init__(self, limits: AdmissionLimits = LIMITS) -> None:
        self.admission = Admission(limits)
        self.places: list[contextlib.ExitStack] = []

    def take(self, client: str = "a", *, bulk: bool = False, size: int = 0) -> bool:
        place = contextlib.ExitStack()
        try:
            place.enter_context(self.admission.image(Sender(client, bulk), reserve=size))
        except ScoringError as error:
            if error.reason is Reason.QUEUE_FULL:
                return False
            raise
        self.places.append(place)
        return True

    def most(self, client: str, *, bulk: bool = False) -> int:
        count = 0
        while self.take(client, bulk=bulk):
            count += 1
        return count

    def free(self) -> None:
        while self.places:
            self.places.pop().close()


@pytest.mark.parametrize(("client", "places"), [("a", 6), ("", 6), ("large", 8), ("small", 1)])
def test_a_client_has_its_quota_or_three_quarters(client: str, places: int) -> None:
    held = Held()
    for _ in range(2):
        assert held.most(client) == places
        held.free()


def test_one_client_s_places_leave_room_for_another() -> None:
    held = Held()
    assert held.most("a") == 6
    assert held.most("b") == 2
    held.places.pop(0).close()
    assert held.most("b") == 1


def test_bulk_work_of_all_clients_takes_half() -> None:
    held = Held()
    assert held.most("a", bulk=True) + held.most("b", bulk=True) == 4
    assert held.most("a") == 2
    assert held.most("b") == 2


def test_bulk_work_takes_half_of_the_bytes() -> None:
    held = Held(AdmissionLimits(max_images=100, max_bytes=1000, max_image_bytes=100))
    assert [held.take(bulk=True, size=100) for _ in range(6)] == [True] * 5 + [False]
    assert [held.take(size=100) for _ in range(6)] == [True] * 5 + [False]
    held.free()
    assert held.take(bulk=True, size=100)


def test_a_small_service_still_takes_everything_alone() -> None:
    for bulk in (True, False):
        held = Held(AdmissionLimits(max_images=1, max_bytes=100, max_image_bytes=100))
        assert held.take(bulk=bulk, size=100)


async def test_bulk_work_waits_for_room_of_its_own() -> None:
    held = Held()
    held.most("a", bulk=True)
    sender = Sender("b", True)
    waiting = asyncio.create_task(held.admission.wait_for_room(sender, 10))
    await asyncio.sleep(0)
    assert held.take("b")
    held.places.pop().close()  # an upload's: no room for bulk work
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    held.places.pop().close()
    await asyncio.wait_for(waiting, 10)


def test_calls_without_a_header_are_bounded() -> None:
    admission = Admission(LIMITS)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(admission.arriving())
        with pytest.raises(ScoringError), admission.arriving():
            pass
    with admission.arriving():
        pass


def test_names_are_remembered_only_while_they_have_something_here() -> None:
    admission = Admission(LIMITS)
    for number in range(1000):
        with admission.image(Sender(f"client {number}", False)):
            pass
    assert not admission._client_images
