"""Endpoints, pages of the app, refusals; and the real server on a real port."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from streamcore.clock import ManualClock
from streamcore.errors import OffsetOutOfRangeError, UsageError
from streamcore.web import assets
from streamcore.web.server import RESERVED, WebServer, create_web
from streamcore.web.views import View
from tests.web.asgi_client import Client
from tests.web.fake_worker import FakeWorker

HTML = {"accept": "text/html"}


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker(ManualClock())


@pytest.fixture
def client(worker: FakeWorker) -> Client:
    return Client(create_web(worker, clock=worker.clock))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/overview",
        "/topics",
        "/topics/health",
        "/topics/health/3",
        "/groups",
        "/tables",
        "/tables/minutes",
        "/agents",
        "/why",
    ],
)
def test_every_page_is_served(client: Client, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "<main" in page.text


def test_the_page_one_is_on_is_marked_in_the_navigation(client: Client) -> None:
    assert '<a href="/topics" aria-current="page">Topics</a>' in client.get("/topics/health/3").text
    assert '<a href="/" aria-current="page">Overview</a>' in client.get("/").text


def test_a_healthy_worker_answers_200_and_an_unhealthy_one_503_with_its_reason(
    client: Client, worker: FakeWorker
) -> None:
    assert client.get("/healthz").status_code == 200
    worker.health = (False, "lag without progress for 60 s")
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"healthy": False, "reason": "lag without progress for 60 s"})


def test_a_worker_that_recovers_is_not_ready(client: Client, worker: FakeWorker) -> None:
    worker.readiness = (False, "recovering")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "reason": "recovering"})


def test_metrics_are_those_of_the_workers_registry(client: Client) -> None:
    answer = client.get("/metrics")
    assert "streamcore_events_total 42.0" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


def test_the_status_has_rates_findings_and_a_summary(client: Client) -> None:
    status = client.get("/api/status").json()
    assert {"topics", "rates", "why", "summary"} <= set(status)


def test_records_come_from_the_asked_offset(client: Client) -> None:
    answer = client.get("/api/topics/server-metrics/3/records?offset=500000&count=3").json()
    assert [record["offset"] for record in answer["records"]] == [500_000, 500_001, 500_002]
    assert answer["log_start_offset"] == 412_000


def test_without_an_offset_the_newest_records_come(client: Client) -> None:
    answer = client.get("/api/topics/server-metrics/3/records?count=2").json()
    assert answer["records"][-1]["offset"] == answer["log_end_offset"] - 1


def test_an_offset_before_the_log_gives_its_first_records_and_says_so(client: Client) -> None:
    answer = client.get("/api/topics/server-metrics/3/records?offset=7&count=1").json()
    assert (answer["asked"], answer["offset"], answer["records"][0]["offset"]) == (7, 412_000, 412_000)


def test_an_offset_after_the_log_gives_none(client: Client) -> None:
    answer = client.get("/api/topics/server-metrics/3/records?offset=999999999").json()
    assert (answer["records"], answer["offset"]) == ([], answer["log_end_offset"])


def test_retention_that_overtakes_a_reader_is_no_error(
    client: Client, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(*arguments: Any) -> list[dict[str, Any]]:
        raise OffsetOutOfRangeError(1, 2, 3)

    monkeypatch.setattr(worker, "read_records", overtaken)
    assert client.get("/api/topics/server-metrics/3/records").json()["records"] == []


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/topics/server-metrics/3/records?count=0", 400, "count=0 is out of bounds: it goes from 1 to 200"),
        ("/api/topics/server-metrics/3/records?count=201", 400, "from 1 to 200"),
        ("/api/topics/server-metrics/3/records?count=1_0", 400, "not a whole number"),
        ("/api/topics/server-metrics/3/records?offset=-2", 400, "out of bounds"),
        ("/api/topics/server-metrics/3/records?offset=" + "9" * 400, 400, "not a whole number"),
        ("/api/topics/server-metrics/3/records?offset=%D9%A3", 400, "not a whole number"),
        ("/api/topics/server-metrics/zz/records", 400, "partition='zz' is not a whole number"),
        ("/api/topics/server-metrics/99/records", 404, "has no partition 99"),
        ("/api/topics/nope/0/records", 404, "there is no topic 'nope'"),
        ("/api/tables/nope/rows", 404, "there is no table 'nope'"),
        ("/api/tables/minutes/rows?limit=5000", 400, "from 1 to 500"),
        ("/api/tables/minutes/rows?prefix=" + "x" * 300, 400, "at most 200"),
        ("/static/../server.py", 404, ""),
        ("/static/%2e%2e%2fserver.py", 404, "there is no file"),
        ("/static/.hidden.js", 404, "there is no file"),
        ("/static/nothing.js", 404, "there is no file"),
        ("/assets/plotly-0.0.0.js", 404, "plotly"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(client: Client, path: str, status: int, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert words in answer.text


def test_a_page_that_is_not_there_is_a_page_that_says_so(client: Client) -> None:
    page = client.get("/nosuch/<script>alert(1)</script>", headers=HTML)
    assert page.status_code == 404
    assert "There is no such page" in page.text
    assert "<script>alert" not in page.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/api/status", "/healthz", "/events", "/api/tables/minutes/rows"])
def test_nothing_can_be_written(client: Client, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


def test_rows_are_those_whose_key_starts_with_the_prefix(client: Client) -> None:
    answer = client.get("/api/tables/minutes/rows?prefix=web-1&limit=5").json()
    assert [row["key"]["text"] for row in answer["rows"]] == ["web-10", "web-11", "web-12", "web-13", "web-14"]
    assert answer["more"] is True


def test_windows_in_seconds_become_milliseconds(
    client: Client, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rows(*arguments: Any) -> list[dict[str, Any]]:
        return [{"key": "a", "value": 1, "window": (60.0, 120.0)}, {"key": "b", "value": 1, "window": None}]

    monkeypatch.setattr(worker, "table_rows", rows)
    first, second = client.get("/api/tables/minutes/rows").json()["rows"]
    assert (first["window_start_ms"], first["window_end_ms"]) == (60_000, 120_000)
    assert "window_start_ms" not in second


def test_every_answer_forbids_scripts_from_elsewhere(client: Client) -> None:
    for path in ("/", "/nosuch", "/api/status", "/static/style.css", "/healthz"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_our_files_are_checked_for_changes_each_time(client: Client) -> None:
    first = client.get("/static/vdom.js")
    assert first.headers["cache-control"] == "no-cache"
    assert client.get("/static/vdom.js", headers={"if-none-match": first.headers["etag"]}).status_code == 304


def test_plotly_is_served_from_its_package_under_its_version(client: Client) -> None:
    path = assets.plotly_path()
    assert path is not None
    script = client.get(path, headers={"accept-encoding": "gzip"})
    assert script.headers["content-encoding"] == "gzip"
    assert "immutable" in script.headers["cache-control"]
    assert "plotly.js" in script.text[:200]
    assert client.get(path, headers={"accept-encoding": "identity"}).content[:200] == script.content[:200]
    assert f'data-plotly="{path}"' in client.get("/").text


def test_without_plotly_the_pages_say_so(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamcore.web.assets.importlib.util.find_spec", lambda name: None)
    client = Client(create_web(worker, clock=worker.clock))
    assert 'data-plotly=""' in client.get("/").text


def test_no_script_or_style_of_ours_names_another_host() -> None:
    root = Path(assets.__file__).parent / "static"
    for file in root.iterdir():
        for line in file.read_text().splitlines():
            if "://" in line:
                assert "http://www.w3.org/2000/svg" in line, (file.name, line)


def test_pages_of_the_app_are_served_and_in_the_navigation(worker: FakeWorker) -> None:
    @worker.page("/count/{word}")
    async def count(view: View, request: Any, word: str) -> Any:
        return view.json({"word": word, "self": view.url_for("count", word="b")})

    @worker.page("/", title="Home")
    async def home(view: View, request: Any) -> Any:
        return view.page("Home", module="/static/overview.js")

    @worker.page("/plain", title="Plain")
    async def plain(view: View, request: Any) -> Any:
        return {"plain": True}

    worker.mounts.append(("/files", PlainTextResponse("a file"), "Files"))
    client = Client(create_web(worker, clock=worker.clock))
    assert client.get("/count/a").json() == {"word": "a", "self": "/count/b"}
    assert client.get("/plain").json() == {"plain": True}
    assert client.get("/files/x").text == "a file"
    page = client.get("/")
    assert "<title>Home · health-monitoring</title>" in page.text
    links = [
        part.split('"')[0]
        for part in page.text.split('<nav aria-label="Pages">')[1].split("</nav>")[0].split('href="')[1:]
    ]
    assert links[:3] == ["/", "/plain", "/files"]
    assert "/overview" in links


def test_view_has_fausts_answers(worker: FakeWorker) -> None:
    @worker.page("/answers/{kind}")
    async def answers(view: View, request: Any, kind: str) -> Any:
        return {
            "text": lambda: view.text("t", status=201),
            "html": lambda: view.html("<p>h</p>"),
            "bytes": lambda: view.bytes(b"\x00"),
            "notfound": lambda: view.notfound("no such parcel", parcel=7),
            "error": lambda: view.error(503, "later"),
        }[kind]()

    client = Client(create_web(worker, clock=worker.clock))
    assert (client.get("/answers/text").status_code, client.get("/answers/text").text) == (201, "t")
    assert client.get("/answers/html").headers["content-type"].startswith("text/html")
    assert client.get("/answers/bytes").content == b"\x00"
    missing = client.get("/answers/notfound")
    assert (missing.status_code, missing.json()) == (404, {"error": "no such parcel", "parcel": 7})
    assert client.get("/answers/error").json() == {"error": "later"}


def test_a_page_that_fails_is_a_500_without_its_traceback(worker: FakeWorker) -> None:
    @worker.page("/broken")
    async def broken(view: View, request: Any) -> Any:
        raise RuntimeError("secret")

    client = Client(create_web(worker, clock=worker.clock))
    page = client.get("/broken", headers=HTML)
    assert page.status_code == 500
    assert "secret" not in page.text
    assert "the worker&#x27;s log" in page.text


@pytest.mark.parametrize("path", [*RESERVED, "/api/own"])
def test_the_workers_own_paths_cannot_be_taken(worker: FakeWorker, path: str) -> None:
    @worker.page(path)
    async def taken(view: View, request: Any) -> Any:
        return view.text("")

    with pytest.raises(UsageError, match="taken by the worker"):
        create_web(worker, clock=worker.clock)


def test_a_path_that_cannot_be_read_is_refused_with_what_can(worker: FakeWorker) -> None:
    @worker.page(r"/x/{word:\d+}")
    async def odd(view: View, request: Any, word: str) -> Any:
        return view.text("")

    with pytest.raises(UsageError, match="a path parameter is"):
        create_web(worker, clock=worker.clock)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:6066", 200),
        ("127.0.0.1:6066", 200),
        ("[::1]:6066", 200),
        ("10.0.0.7", 200),
        ("evil.example", 421),
        ("a" * 300, 421),
    ],
)
def test_a_local_server_answers_to_its_own_names_only(worker: FakeWorker, host: str, status: int) -> None:
    client = Client(create_web(worker, clock=worker.clock, local_only=True))
    assert client.get("/healthz", headers={"host": host}).status_code == status


def test_the_real_server_streams_and_stops_with_open_streams(worker: FakeWorker) -> None:
    async def run() -> None:
        server = WebServer(worker, clock=worker.clock)
        await server.start("127.0.0.1", 0)
        async with httpx.AsyncClient(base_url=server.url, timeout=10) as client:
            assert (await client.get("/healthz")).status_code == 200
            async with client.stream("GET", "/events") as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                lines = answer.aiter_lines()
                seen: list[str] = []
                while "event: status" not in seen:
                    seen.append(await anext(lines))
                data = json.loads((await anext(lines)).removeprefix("data: "))
                assert data["app"] == "health-monitoring"
                stopping = asyncio.create_task(server.stop())
                async for _ in lines:
                    pass
                await stopping
        await server.stop()  # twice does no harm

    asyncio.run(run())


def test_a_port_in_use_is_an_error_with_a_remedy(worker: FakeWorker) -> None:
    async def run() -> None:
        first = WebServer(worker, clock=worker.clock)
        await first.start("127.0.0.1", 0)
        try:
            with pytest.raises(UsageError, match=rf"port {first.port} on 127.0.0.1 is in use .* --web-port"):
                await WebServer(worker, clock=worker.clock).start("127.0.0.1", first.port)
        finally:
            await first.stop()

    asyncio.run(run())


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid"])
def test_a_host_that_is_not_this_machine_is_an_error_with_a_remedy(worker: FakeWorker, host: str) -> None:
    with pytest.raises(UsageError, match="--web-host"):
        asyncio.run(WebServer(worker, clock=worker.clock).start(host, 0))
