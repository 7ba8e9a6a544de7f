"""Multipart forms with a file, as pict-rs 0.6 sends them, and broken ones."""

from __future__ import annotations

from collections.abc import Iterable

BOUNDARY = "53d76e3ebcde1c25-6a526e3f38329913-49793938d246d1d6-c59661d975bdd8b2"
NAME = "01/a2/22/86/81/ff/75/11/ad/51/2203e0c62c8b.png"
DISPOSITION = f"form-data; name*=utf-8''{NAME.replace('/', '%2F')}"
CONTENT_TYPES = ("image/png", f"multipart/form-data; boundary={BOUNDARY}")


def form(
    file: bytes,
    disposition: str | None = DISPOSITION,
    *headers: str,
    boundary: str = BOUNDARY,
    end: str = "--\r\n",
) -> bytes:
    """A form with one part, with further header lines."""
    lines = [f"--{boundary}", *headers]
    if disposition is not None:
        lines.insert(1, f"Content-Disposition: {disposition}")
    head = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
    return head + b"\r\n" + file + f"\r\n--{boundary}{end}".encode()


def split(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The bytes in pieces, cut at these places."""
    ends = [*sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


Request = tuple[tuple[str, ...], bytes]
"""Content types and body."""


def broken_forms(file: bytes) -> dict[str, Request]:
    """Requests that bring no whole file, by what is wrong."""
    good, types = form(file), CONTENT_TYPES
    head, _, _ = good.partition(file)
    second = form(file, 'form-data; name="b"')
    end = f"--{BOUNDARY}--\r\n".encode()
    bodies = {
        "no final boundary": good.removesuffix(b"\r\n" + end),
        "no final hyphens": good.removesuffix(b"--\r\n"),
        "one final hyphen": good.removesuffix(b"-\r\n"),
        "the next boundary and no part": good.removesuffix(b"--\r\n") + b"\r\n",
        "cut in the file": good[: len(head) + len(file) // 2],
        "cut before the file": head,
        "cut in the headers": head[:-20],
        "cut in the first boundary": good[:10],
        "cut in the final boundary": good[:-10],
        "nothing": b"",
        "the file without a form": file,
        "no part": end,
        "boundaries and no part": f"--{BOUNDARY}\r\n".encode() + end,
        "two parts": good.removesuffix(end) + second,
        "the file and a field": good.removesuffix(end) + form(b"x", 'form-data; name="x"'),
        "a second form behind the first": good + second,
        "a part behind the end": good + second.removesuffix(end),
        "text behind the final boundary": form(file, end="--more\r\n"),
        "text behind the first boundary": good.replace(b"\r\n", b"more\r\n", 1),
        "another boundary": form(file, boundary="another"),
        "a shorter boundary": form(file, boundary=BOUNDARY[:-1]),
        "a longer boundary": form(file, boundary=f"{BOUNDARY}x"),
        "LF for line ends": good.replace(b"\r\n", b"\n"),
        "CR for line ends": good.replace(b"\r\n", b"\r"),
        "LF in the headers": head.replace(b"\r\n", b"\n") + good[len(head) :],
        "no empty line": good.replace(b"\r\n\r\n", b"\r\n", 1),
        "no Content-Disposition": form(file, None),
        "another disposition": form(file, 'attachment; name="a"'),
        "no name": form(file, "form-data"),
        "a file name and no name": form(file, 'form-data; filename="a.png"'),
        "two names": form(file, 'form-data; name="a"; name="b"'),
        "two dispositions": form(file, DISPOSITION, f"Content-Disposition: {DISPOSITION}"),
        "two types of the part": form(
            file, DISPOSITION, "Content-Type: image/png", "Content-Type: image/png"
        ),
        "a quote that is not closed": form(file, 'form-data; name="a'),
        "a parameter without a value": form(file, "form-data; name"),
        "text behind a quote": form(file, 'form-data; name="a"b'),
        "an unknown charset": form(file, "form-data; name*=utf-7''a"),
        "no charset": form(file, "form-data; name*=a"),
        "a wrong percent": form(file, "form-data; name*=utf-8''%zz"),
        "half a percent": form(file, "form-data; name*=utf-8''a%2"),
        "bytes that are not UTF-8": form(file, "form-data; name*=utf-8''%ff%fe"),
        "a name that is not UTF-8": form(file, 'form-data; name="\xff"'),
        "a name in pieces": form(file, "form-data; name*0=a; name*1=b"),
        "NUL in the name": form(file, "form-data; name*=utf-8''a%00b"),
        "a line end in the name": form(file, "form-data; name*=utf-8''a%0D%0Ab"),
        "NUL in a header": form(file, DISPOSITION, "X: a\0b"),
        "NUL in the name of a header": form(file, DISPOSITION, "X\0: a"),
        "a long name": form(file, f'form-data; name="{"a" * 1025}"'),
        "a long header line": form(file, DISPOSITION, f"X: {'a' * 5000}"),
        "a long name of a header": form(file, DISPOSITION, f"{'a' * 5000}: x"),
        "many headers": form(file, DISPOSITION, *(f"X-{n}: a" for n in range(8))),
        "headers without end": head.removesuffix(b"\r\n") + b"X: a\r\n" * 100_000,
        "a header without a colon": form(file, DISPOSITION, "X"),
        "a header without a name": form(file, DISPOSITION, ": a"),
        "a space before the colon": form(file, DISPOSITION, "X : a"),
        "a folded header": form(file, DISPOSITION, "X: a", "  b"),
        "a header like a boundary": form(file, DISPOSITION, f"--{BOUNDARY}--: a"),
        "base64": form(file, DISPOSITION, "Content-Transfer-Encoding: base64"),
        "quoted-printable": form(file, DISPOSITION, "Content-Transfer-Encoding: quoted-printable"),
        "a form in the form": form(
            form(file, boundary="in"), DISPOSITION, "Content-Type: multipart/mixed; boundary=in"
        ),
        "a long preamble": b"x" * 20_000 + b"\r\n" + good,
        "a preamble without end": b"\r\n" * 1_000_000,
        "a long epilogue": good + b"x" * 20_000,
        "a boundary behind the headers": head + f"--{BOUNDARY}\r\n".encode() + file + good[-80:],
        "the end behind the headers": head + end,
        "NULs": bytes(1000),
    }
    broken: dict[str, Request] = {what: (types, body) for what, body in bodies.items()}
    for what, parameters in {
        "no boundary": "",
        "an empty boundary": "; boundary=",
        "an empty boundary in quotes": '; boundary=""',
        "a boundary of 71 characters": f"; boundary={'a' * 71}",
        "a boundary with a wrong character": "; boundary=a*b",
        "a boundary that ends in a space": '; boundary="a "',
        "a boundary with NUL": '; boundary="a%00"',
        "two boundaries": f"; boundary={BOUNDARY}; boundary={BOUNDARY}",
        "a quote of the boundary that is not closed": f'; boundary="{BOUNDARY}',
    }.items():
        broken[what] = (("image/png", f"multipart/form-data{parameters}"), good)
    broken["two forms"] = (("image/png", types[1], types[1]), good)
    return broken
