"""What a browser may be made to send by other people's pages."""

import pytest

from gateway.admin.same_origin import objection

HERE = {"host": "127.0.0.1:14052"}


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin", "origin": "https://behind.a.proxy"},
        {"sec-fetch-site": "none", "origin": "http://127.0.0.1:14052"},
        {"origin": "http://127.0.0.1:14052", "content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json"},
        {"content-type": "text/csv; charset=utf-8"},
    ],
)
def test_our_own_pages_and_programs_may_post(headers: dict[str, str]) -> None:
    assert objection("POST", HERE | headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "content-type": "application/json"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none", "origin": "https://evil.example"},
        {"origin": "https://evil.example", "content-type": "application/json"},
        {"origin": "null", "content-type": "application/json"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:14052.evil.example"},
        {"origin": ""},
        {"content-type": "text/plain;charset=UTF-8"},
        {"content-type": "multipart/form-data; boundary=x"},
        {},
    ],
)
def test_other_pages_may_not(headers: dict[str, str]) -> None:
    assert objection("POST", HERE | headers)


def test_without_a_body_a_program_may_delete() -> None:
    assert objection("DELETE", HERE) is None
    assert objection("DELETE", HERE | {"origin": "https://evil.example"})


def test_a_link_may_be_followed_and_data_may_not_be_loaded_elsewhere() -> None:
    cross = HERE | {"sec-fetch-site": "cross-site"}
    assert objection("GET", cross | {"sec-fetch-mode": "navigate"}) is None
    assert objection("GET", cross | {"sec-fetch-mode": "no-cors"})
    assert objection("GET", HERE) is None
