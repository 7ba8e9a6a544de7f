"""Who may have how much in the service at once."""

import asyncio
import contextlib

import pytest

from inference.admission import Admission, AdmissionLimits, Sender
from inference.errors import Reason, ScoringError

LIMITS = AdmissionLimits(
    max_images=8, max_bytes=1000, max_image_bytes=100, quotas={"large": 8, "small": 1, "pair": 2}
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
    assert held.most("a") == 3
    assert held.most("b") == 1


@pytest.mark.parametrize(("client", "places"), [("a", 3), ("large", 4), ("pair", 1), ("small", 1)])
def test_bulk_work_of_a_client_takes_half_of_its_places(client: str, places: int) -> None:
    """So that its own uploads find room, though its quota is small."""
    held = Held()
    assert held.most(client, bulk=True) == places
    assert held.most(client) == LIMITS.images_of(client) - places


def test_bulk_work_takes_half_of_the_bytes() -> None:
    held = Held(AdmissionLimits(max_images=100, max_bytes=1000, max_image_bytes=100))
    assert [held.take(bulk=True, size=100) for _ in range(6)] == [True] * 5 + [False]
    assert [held.take("b", size=100) for _ in range(6)] == [True] * 5 + [False]
    held.free()
    assert held.take(bulk=True, size=100)


def test_one_client_s_bytes_leave_room_for_another() -> None:
    held = Held(AdmissionLimits(max_images=100, max_bytes=1000, max_image_bytes=100))
    assert [held.take(size=100) for _ in range(8)] == [True] * 7 + [False]
    assert not held.take(size=51)
    assert [held.take("b", size=100) for _ in range(4)] == [True] * 3 + [False]
    held.free()
    assert held.take(size=100)


def test_bytes_that_come_are_the_client_s_too() -> None:
    admission = Admission(AdmissionLimits(max_images=9, max_bytes=400, max_image_bytes=100))
    with contextlib.ExitStack() as stack:
        buffers = [stack.enter_context(admission.image(Sender("a", False))) for _ in range(4)]
        for buffer in buffers[:3]:
            buffer.append(bytes(100))
        with pytest.raises(ScoringError, match="bytes of this client"):
            buffers[3].append(b"0")
        stack.enter_context(admission.image(Sender("b", False))).append(bytes(100))


def test_a_small_service_still_takes_everything_alone() -> None:
    for bulk in (True, False):
        held = Held(AdmissionLimits(max_images=1, max_bytes=100, max_image_bytes=100))
        assert held.take(bulk=bulk, size=100)


async def settled() -> None:
    """After everybody has gone who could."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_bulk_work_waits_for_room_of_its_own() -> None:
    held = Held()
    held.most("a", bulk=True)
    held.most("b", bulk=True)
    waiting = asyncio.create_task(held.admission.wait_for_room(Sender("c", True), 10))
    await settled()
    assert held.take("b")
    held.places.pop().close()  # an upload's: no room for bulk work
    await settled()
    assert not waiting.done()
    held.places.pop().close()
    await asyncio.wait_for(waiting, 10)


class Queue:
    """Bulk images that take their place as soon as there is room."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._tasks: set[asyncio.Task[None]] = set()
        self.gone: list[str] = []

    async def add(self, name: str, size: int, *, client: str = "") -> asyncio.Task[None]:
        async def go() -> None:
            sender = Sender(client or name, True)
            await self._held.admission.wait_for_room(sender, size)
            assert self._held.take(sender.client, bulk=True, size=size)
            self.gone.append(name)

        task = asyncio.create_task(go())
        self._tasks.add(task)
        await settled()
        return task


BYTES = AdmissionLimits(
    max_images=100, max_bytes=800, max_image_bytes=100, quotas={"small": 2, "s": 2}
)


async def test_who_needs_much_room_is_not_passed_for_ever_by_who_needs_little() -> None:
    held = Held(BYTES)
    queue = Queue(held)
    for _ in range(4):
        held.take(bulk=True, size=100)
    await queue.add("much", 100)
    for number in range(4):
        await queue.add(f"little {number}", 50)
    held.admission.give_back_bytes(50, Sender("a", True))
    await settled()
    assert queue.gone == []
    held.admission.give_back_bytes(50, Sender("a", True))
    await settled()
    assert queue.gone == ["much"]
    held.admission.give_back_bytes(100, Sender("a", True))
    await settled()
    assert queue.gone == ["much", "little 0", "little 1"]


async def test_who_waits_for_its_own_client_s_images_keeps_nobody_waiting() -> None:
    held = Held(BYTES)
    queue = Queue(held)
    held.take("small", bulk=True)
    await queue.add("own", 10, client="small")
    await queue.add("other", 10)
    assert queue.gone == ["other"]
    held.places.pop(0).close()
    await settled()
    assert queue.gone == ["other", "own"]


async def test_a_turn_is_passed_on_by_who_may_not_take_it_any_more() -> None:
    held = Held(BYTES)
    queue = Queue(held)
    for _ in range(4):
        held.take(bulk=True, size=100)
    await queue.add("first", 100, client="s")
    await queue.add("second", 100)
    held.places.pop().close()  # wakes the first
    assert held.take("s")
    assert held.take("s")  # its client has as much as it may
    await settled()
    assert queue.gone == ["second"]


async def test_who_gives_up_waiting_lets_the_next_one_go() -> None:
    held = Held(BYTES)
    queue = Queue(held)
    for _ in range(3):
        held.take(bulk=True, size=100)
    held.take(bulk=True, size=50)
    first = await queue.add("first", 100)
    await queue.add("second", 50)
    assert queue.gone == []
    first.cancel()
    await settled()
    assert queue.gone == ["second"]


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
        with admission.image(Sender(f"client {number}", True), reserve=10):
            pass
    assert not admission._client_images
    assert not admission._client_bulk_images
    assert not admission._client_bytes


def test_each_image_that_comes_and_goes_can_be_noticed() -> None:
    held = Held()
    seen = [held.admission.moves]
    for step in (held.take, held.free, held.take, held.take):
        step()
        seen.append(held.admission.moves)
    assert seen == sorted(set(seen))
    seen.append(held.admission.moves)
    assert held.most("small") == 1
    assert not held.take("small")
    assert held.admission.moves == seen[-1] + 1, "not one that is refused"
