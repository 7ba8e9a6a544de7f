"""The body of an upload: read once, sent again while it is kept."""

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.types import Message

from gateway.kept_bytes import KeptBytes
from gateway.upload import ClientGoneError, Upload, UploadTooLargeError
from gateway.upload_form import FileForm, MalformedFormError
from tests.forms import BOUNDARY, NAME, form, split

CHUNKS = (b"one", b"two", b"three")


def upload(
    budget: KeptBytes,
    chunks: Iterable[bytes] = CHUNKS,
    most: int = 10**6,
    end: Message | None = None,
) -> Upload:
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append(end or {"type": "http.request", "body": b"", "more_body": False})
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return Upload(receive, most, budget)


def form_upload(data: bytes, step: int = 10, **others: Any) -> Upload:
    """An upload whose body is a form."""
    body = upload(KeptBytes(1000), split(data, range(0, len(data), step)), **others)
    body.declare("image/png", FileForm(BOUNDARY.encode()))
    return body


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


async def test_of_a_form_only_the_file_counts() -> None:
    file = bytes(range(100))
    body = form_upload(form(file), most=100)
    assert await body.gather(1, 1)
    assert (body.name, body.media_type, body.sha256) == (NAME, "image/png", None)
    assert b"".join(await read(body)) == b"".join(await read(body)) == file
    assert (body.sha256, body.received) == (hashlib.sha256(file).digest(), 100)
    with pytest.raises(UploadTooLargeError):
        await read(form_upload(form(file), most=99))


async def test_a_malformed_form_is_no_file_however_often_it_is_asked_for() -> None:
    body = form_upload(form(b"file").removesuffix(b"--\r\n"))
    for _ in range(2):
        with pytest.raises(MalformedFormError):
            await read(body)
        with pytest.raises(MalformedFormError):
            await body.read_rest()
    assert (body.ended, body.sha256, body.ended_at) == (True, None, None)


async def test_the_rest_of_a_malformed_form_is_dropped() -> None:
    body = form_upload(b"--wrong\r\n" + bytes(20_000))
    with pytest.raises(MalformedFormError):
        await read(body)
    assert not body.ended
    await body.discard_rest(60)
    assert (body.ended, body.sha256) == (True, None)
    with pytest.raises(MalformedFormError):
        await read(body)


async def test_who_hangs_up_in_a_form_is_gone() -> None:
    body = form_upload(form(b"file"), end={"type": "http.disconnect"})
    with pytest.raises(ClientGoneError):
        await read(body)
    assert body.sha256 is None
