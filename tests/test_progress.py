"""How far something is, in lines of text and as a bar."""

import contextlib
import io
import os
import pty
import termios

from imagesafety.progress import LINE_SECONDS, Progress, progress, progress_line


def test_a_line_says_count_rate_and_time_left() -> None:
    assert progress_line(0, 10, 5.0) == "0 of 10"
    assert progress_line(50, 200, 10.0) == "50 of 200, 5/s, 0:30 left"
    assert progress_line(10, 100_010, 1.0) == "10 of 100010, 10/s, 2:46:40 left"
    assert progress_line(1234, None, 10.0, "3 problems") == "1234, 123/s, 3 problems"
    assert progress_line(200, 200, 10.0) == "200 of 200, 20/s"


def test_elsewhere_than_on_a_terminal_there_are_few_lines() -> None:
    file, now = io.StringIO(), 0.0
    shown = Progress("scoring", 100, file, clock=lambda: now)
    for _ in range(100):
        now += LINE_SECONDS / 40
        shown.advance()
    shown.note("1 problem")
    shown.close()
    assert file.getvalue().splitlines() == [
        "scoring: 40 of 100, 4/s, 0:15 left",
        "scoring: 80 of 100, 4/s, 0:05 left",
        "scoring: 100 of 100, 4/s, 1 problem",
    ]


def test_the_end_is_told_although_the_work_fails() -> None:
    file = io.StringIO()
    try:
        with progress("scoring", None, file) as shown:
            shown.advance(3)
            raise OSError
    except OSError:
        pass
    assert file.getvalue().startswith("scoring: 3")


def test_a_terminal_shows_a_bar() -> None:
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (24, 80))
    with os.fdopen(primary, "rb", 0) as screen:
        with os.fdopen(secondary, "w") as terminal, progress("scoring", 10, terminal) as shown:
            shown.advance(10)
            shown.note("3 problems")
        text = b""
        with contextlib.suppress(OSError):  # what says that the terminal is gone
            while some := screen.read(65536):
                text += some
    assert b"scoring" in text
    assert b"10/10" in text
