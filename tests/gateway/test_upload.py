"""The body of an upload: read once, sent again while it is kept."""

from collections.abc import Iterable

import pytest
from starlette.types import Message

from gateway.kept_bytes import KeptBytes
from gateway.upload import Upload

CHUNKS = (b"one", b"two", b"three")


def upload(budget: KeptBytes, chunks: Iterable[bytes] = CHUNKS) -> Upload:
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return Upload(receive, 10**6, budget)


async def read(body: Upload) -> list[bytes]:
    return [chunk async for chunk in body]


async def test_what_is_kept_can_be_read_again_and_from_the_middle_on() -> None:
    body = upload(KeptBytes(1000))
    reading = aiter(body)
    assert await anext(reading) == b"one"  # the call ends here
    assert body.is_kept
    assert await read(body) == list(CHUNKS)
    assert await read(body) == list(CHUNKS)
    assert body.sha256 is not None


async def test_what_was_gathered_is_part_of_it() -> None:
    body = upload(KeptBytes(1000))
    assert await body.gather(5, 1)
    assert await read(body) == await read(body) == list(CHUNKS)


async def test_a_body_over_the_budget_is_read_once_and_frees_what_it_had() -> None:
    budget = KeptBytes(4 * 8)
    body = upload(budget)  # of 11 bytes, where 8 are for each
    assert await read(body) == list(CHUNKS)
    assert not body.is_kept
    with pytest.raises(RuntimeError):
        await read(body)
    assert budget.take(8, 0)
    assert all(budget.take(8, 0) for _ in range(3))
    assert not budget.take(1, 0)


async def test_a_body_that_is_not_kept_is_whole_if_the_room_ends_in_the_middle() -> None:
    for most in range(0, 60, 4):
        body = upload(KeptBytes(most))
        await body.gather(4, 1)
        assert await read(body) == list(CHUNKS)


async def test_uploads_share_the_budget_and_give_it_back() -> None:
    budget = KeptBytes(44)
    first, second = upload(budget), upload(budget, [b"x" * 11] * 4)
    assert await read(first) == list(CHUNKS)
    await read(second)
    assert first.is_kept
    assert not second.is_kept
    others = [upload(budget) for _ in range(4)]
    for other in others:
        await read(other)
    assert [other.is_kept for other in others] == [True, True, True, False]
    for body in (first, second, *others):
        body.forget()
        body.forget()
    assert all(budget.take(11, 0) for _ in range(4))
    assert not budget.take(1, 0)
