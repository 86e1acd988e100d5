"""Only this machine, or who has the token, and only this page get in; and nobody takes what others need."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.dashboard.server import guard as guard_module
from lpr_lab.dashboard.server.guard import MAX_BODY_BYTES, Guard
from lpr_lab.dashboard.server.request_limits import Limits, RequestLimiter, TooManyError

HOSTS = ("127.0.0.1", "localhost", "::1")
HERE = {"host": "127.0.0.1:7860"}
TOKEN = "correct-horse"


def refusal(method="GET", path="/", **headers):
    given = {**HERE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    found = Guard(None, HOSTS).refusal(method, path, given)
    return found and found[0]


async def echo(scope, receive, send) -> None:
    """An app that says back what it was sent."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"SAMEORIGIN")]})
    await send({"type": "http.response.body", "body": message["body"]})


def ask(guard: Guard, path="/", parts=(b"",), method="GET", client="127.0.0.1", **headers):
    """Send one request, its body in parts, and return status, headers and body."""
    path, _, query = path.partition("?")
    lines = {**HERE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "client": (client, 1)}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in lines.items()]
    said = []

    async def run() -> None:
        left = list(parts)

        async def receive():
            if not left:
                await asyncio.sleep(3600)
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or parts[-1] == b"..."}

        async def send(message) -> None:
            said.append(message)

        await guard(scope, receive, send)

    asyncio.run(run())
    found = [(name.decode(), value.decode()) for name, value in said[0]["headers"]]
    assert len(dict(found)) == len(found), "no header twice"
    return said[0]["status"], dict(found), b"".join(part.get("body", b"") for part in said[1:]).decode()


# ------------------------------------------------------------------------------------------------ who and from where


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "[::1]:7860"])
def test_this_machine_gets_in(host):
    assert refusal(host=host) is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[", "0.0.0.0"])
def test_a_rebound_name_is_refused(host):
    assert refusal(host=host) == 421


def test_other_sites_may_link_here_but_not_act_here():
    assert refusal(sec_fetch_site="cross-site", sec_fetch_mode="navigate") is None
    assert refusal("POST", "/gradio_api/queue/join", sec_fetch_site="cross-site", sec_fetch_mode="cors") == 403
    assert refusal("POST", "/gradio_api/queue/join", origin="https://evil.example") == 403
    assert (
        refusal("POST", "/gradio_api/queue/join", origin="http://127.0.0.1:7860", sec_fetch_site="same-origin") is None
    )


@pytest.mark.parametrize(
    "path",
    [
        "upload",
        "upload_progress",
        "proxy=http://x",
        "file=http://x",
        "component_server",
        "run-history/records",
        "login",
    ],
)
def test_endpoints_that_the_pages_do_not_use_are_blocked(path):
    assert refusal("POST", f"/gradio_api/{path}") == 404


@pytest.mark.parametrize("path", ["/../etc/passwd", "/static/..%2f..%2fapp.py", "/gradio_api/file=..\\x", "/%00"])
def test_no_path_leads_upwards(path):
    assert refusal("GET", path) == 404


def test_what_is_no_plain_request_is_refused():
    said = []

    async def send(message) -> None:
        said.append(message)

    asyncio.run(Guard(echo, HOSTS)({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert said == [{"type": "websocket.close", "code": 1008}]


def test_every_answer_carries_the_protective_headers_once():
    for path in ("/", "/gradio_api/upload"):
        _, headers, _ = ask(Guard(echo, HOSTS), path)
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin" and headers["cross-origin-opener-policy"] == "same-origin"
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "object-src 'none'" in policy


headers_of_any_kind = st.dictionaries(
    st.sampled_from(["host", "origin", "sec-fetch-site", "sec-fetch-mode", "content-length", "cookie"]),
    st.text(max_size=40) | st.sampled_from(["127.0.0.1", "http://127.0.0.1:7860", "cross-site", "navigate", "evil"]),
)


@given(headers=headers_of_any_kind, path=st.text(max_size=60), method=st.sampled_from(["GET", "POST", "PUT"]))
def test_any_request_is_passed_or_refused_in_a_sentence_and_a_stranger_never_acts(headers, path, method):
    found = Guard(None, HOSTS).refusal(method, f"/{path}", headers)
    assert found is None or (400 <= found[0] < 500 and found[1].endswith("."))
    if headers.get("host") not in HOSTS or headers.get("origin") == "evil":
        assert found is not None


# ------------------------------------------------------------------------------------------------------------ bodies


@pytest.mark.parametrize(
    ("length", "status"), [("1000", None), ("1000001", 413), ("-5", 413), ("a lot", 413), ("²", 413), ("", 413)]
)
def test_large_bodies_are_refused(length, status):
    assert refusal("POST", "/gradio_api/run/predict", content_length=length) == status


def test_large_bodies_are_refused_also_when_their_length_was_not_announced():
    half = b"x" * (MAX_BODY_BYTES // 2)
    assert ask(Guard(echo, HOSTS), "/gradio_api/run/x", (half, half), "POST")[0] == 200
    status, _, text = ask(Guard(echo, HOSTS), "/gradio_api/run/x", (half, half, b"x"), "POST")
    assert status == 413 and "1,000,000 bytes" in text


def test_a_body_in_parts_arrives_whole():
    assert ask(Guard(echo, HOSTS), "/", (b"a", b"", b"bc"), "POST")[2] == "abc"


def test_a_body_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(guard_module, "BODY_SECONDS", 0.02)
    assert ask(Guard(echo, HOSTS), "/", (b"a", b"..."), "POST")[0] == 408


# ------------------------------------------------------------------------------------------------------------- token


@pytest.fixture
def open_guard() -> Guard:
    """A guard as it stands where others can connect."""
    return Guard(echo, HOSTS, TOKEN)


@pytest.mark.parametrize(
    "path", ["/", "/routing?run=x", "/gradio_api/info", "/gradio_api/heartbeat/x", "/?token=wrong"]
)
def test_without_the_token_nothing_is_served(open_guard, path):
    status, _, text = ask(open_guard, path, host="lab.example:7860", client="10.0.0.9")
    assert status == 401 and "?token=" in text and TOKEN not in text


def test_the_first_visit_leaves_a_cookie_and_takes_the_token_out_of_the_address(open_guard):
    host = {"host": "lab.example:7860", "client": "10.0.0.9"}
    status, headers, _ = ask(open_guard, f"/routing?run=a-b&token={TOKEN}&tok=3", **host)
    assert status == 303 and headers["location"] == "/routing?run=a-b&tok=3"
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=Lax" in headers["set-cookie"]
    cookie = headers["set-cookie"].split(";")[0]
    assert ask(open_guard, "/routing", cookie=cookie, **host)[0] == 200
    assert ask(open_guard, "/routing", cookie=cookie + "x", **host)[0] == 401


def test_programs_bring_the_token_in_a_header(open_guard):
    assert ask(open_guard, authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(open_guard, authorization="Bearer wrong")[0] == 401
    assert ask(open_guard, authorization=f"Basic {TOKEN}")[0] == 401


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "///evil.example"])
def test_the_way_in_never_leads_elsewhere(open_guard, path):
    _, headers, _ = ask(open_guard, f"{path}?token={TOKEN}")
    assert headers["location"] == "/evil.example"


def test_with_the_token_other_sites_still_cannot_act(open_guard):
    cookie = f"{open_guard.cookie}={TOKEN}"
    mine = {"host": "lab.example", "cookie": cookie}
    assert ask(open_guard, "/gradio_api/queue/join", method="POST", origin="http://evil.example", **mine)[0] == 403
    assert ask(open_guard, "/gradio_api/queue/join", method="POST", origin="http://lab.example", **mine)[0] == 200


# ------------------------------------------------------------------------------------------------------------ limits


def test_what_is_above_the_bound_waits_its_turn_and_all_are_answered():
    limiter, under_way, most = RequestLimiter(Limits(at_once=3)), 0, 0

    async def request(number: int) -> int:
        nonlocal under_way, most
        async with limiter.request(f"10.0.0.{number % 4}"):
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.001)
            under_way -= 1
        return number

    async def run() -> list[int]:
        return await asyncio.gather(*(request(number) for number in range(40)))

    assert asyncio.run(run()) == list(range(40)) and most == 3


def test_who_waited_in_vain_is_told_to_come_again():
    async def run() -> None:
        limiter = RequestLimiter(Limits(at_once=1, waiting=1, patience_seconds=0.02))
        async with limiter.request("a"):
            with pytest.raises(TooManyError, match="in vain"):
                async with limiter.request("b"):
                    pass
        async with limiter.request("b"):  # and gets in when there is room
            pass

    asyncio.run(run())

    async def slow(scope, receive, send) -> None:
        await asyncio.sleep(0.2)

    async def two() -> list[int]:
        guard = Guard(slow, HOSTS, limits=Limits(at_once=1, patience_seconds=0.01))
        scope = {"type": "http", "method": "GET", "path": "/", "client": ("127.0.0.1", 1)}
        scope["headers"] = [(b"host", b"localhost")]
        said = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message) -> None:
            said.append(message.get("status"))

        await asyncio.gather(guard(dict(scope), receive, send), guard(dict(scope), receive, send))
        return said

    assert asyncio.run(two())[0] == 503


def test_one_who_asks_too_often_slows_down_alone_and_is_never_banned():
    now = [0.0]
    limits = Limits(burst=5, per_second=50, patience_seconds=0.1)
    limiter = RequestLimiter(limits, clock=lambda: now[0])

    async def act(address: str) -> None:
        async with limiter.request(address, is_action=True):
            pass

    async def run() -> None:
        for _ in range(5):
            await act("greedy")
        started = time.monotonic()
        await asyncio.gather(*(act("greedy") for _ in range(5)))
        assert time.monotonic() - started > 0.08
        with pytest.raises(TooManyError, match="one address"):
            await asyncio.gather(*(act("greedy") for _ in range(20)))
        await act("reader")
        async with limiter.request("greedy"):  # reading pages goes on
            pass
        now[0] += 1.0
        await act("greedy")

    asyncio.run(run())


def test_open_pages_take_no_place_from_requests_nor_all_streams_from_others():
    async def run() -> None:
        limiter = RequestLimiter(Limits(at_once=1, streams=4, streams_per_address=2))
        async with limiter.stream("a"), limiter.stream("a"):
            with pytest.raises(TooManyError):
                async with limiter.stream("a"):
                    pass
            async with limiter.stream("b"), limiter.request("a"):
                pass
        async with limiter.stream("a"):
            pass

    asyncio.run(run())


def test_addresses_are_forgotten_before_they_fill_the_memory():
    limiter = RequestLimiter(Limits())

    async def run() -> None:
        for number in range(3000):
            async with limiter.request(str(number), is_action=True):
                pass

    asyncio.run(run())
    assert len(limiter._buckets) <= 1024
