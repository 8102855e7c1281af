"""Keys, limits, the access log, health and metrics of a running server."""

import json
import re
import threading
import time
from contextlib import suppress

import httpx
import openai
import pytest

from iava.errors import IavaError
from iava.lvlm.model import LVLM
from iava.serve.api.access import read_keys
from iava.serve.limits import Limits
from tests import tiny
from tests.serve.serving import data_uri, running, user

QUESTION = "Is there a dog ?"


def body(**more):
    return {"model": "tiny", "messages": [user(QUESTION, tiny.image())], "max_tokens": 2, **more}


def error_of(answer, status):
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.fixture(scope="module")
def locked(lvlm, tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("first-key\n\nsecond-key\n")
    with running(lvlm, method="greedy", keys=read_keys(file)) as server:
        yield server


class TestKeys:
    @pytest.mark.parametrize("key", ["first-key", "second-key"])
    def test_a_key_opens(self, locked, key):
        assert locked.client(key).models.list().data[0].id == "tiny"

    @pytest.mark.parametrize("key", ["first", "first-key2", "FIRST-KEY", "é", "first-key second-key"])
    def test_another_key_does_not(self, locked, key):
        with locked.http() as http:
            headers = {"Authorization": f"Bearer {key}".encode()}
            error = error_of(http.get("/v1/models", headers=headers), 401)
        assert error["code"] == "invalid_api_key"

    @pytest.mark.parametrize("path", ["/v1/models", "/v1/methods", "/metrics", "/openapi.json", "/v1/other"])
    def test_every_other_path_needs_a_key(self, locked, path):
        with locked.http() as http:
            answer = http.get(path)
            assert answer.headers["www-authenticate"] == "Bearer"
            error_of(answer, 401)
            error_of(http.get(path, headers={"Authorization": "Basic first-key"}), 401)

    def test_the_key_is_checked_before_the_body(self, locked):
        with locked.http() as http:
            error_of(http.post("/v1/chat/completions", content=b"{"), 401)

    @pytest.mark.parametrize("path", ["/health", "/", "/site/site.js"])
    def test_health_and_the_web_page_need_no_key(self, locked, path):
        with locked.http() as http:
            assert http.get(path).status_code == 200

    def test_a_key_file_without_keys_is_refused(self, tmp_path):
        (tmp_path / "keys").write_text("\n \n")
        with pytest.raises(IavaError, match="no API key"):
            read_keys(tmp_path / "keys")
        with pytest.raises(IavaError, match="cannot be read"):
            read_keys(tmp_path / "none")


class TestLimits:
    def test_a_body_that_is_too_long(self, lvlm):
        with running(lvlm, method="greedy", limits=Limits(body=1000)) as served, served.http() as http:
            error = error_of(http.post("/v1/chat/completions", json=body(user="x" * 1000)), 413)
            assert "1,000" in error["message"]
            # In chunks, without a Content-Length.
            data = json.dumps(body()).encode() + b" " * 1000
            chunks = (data[start : start + 100] for start in range(0, len(data), 100))
            headers = {"Content-Type": "application/json"}
            error_of(http.post("/v1/chat/completions", content=chunks, headers=headers), 413)

    def test_too_many_pixels_tokens_or_images(self, lvlm):
        limits = Limits(pixels=40 * 32, prompt_tokens=20, new_tokens=3, images=1)
        with running(lvlm, method="greedy", limits=limits) as served, served.http() as http:

            def refused(**more):
                return error_of(http.post("/v1/chat/completions", json=body(**more)), 400)

            assert http.post("/v1/chat/completions", json=body(max_tokens=3)).status_code == 200
            assert refused(messages=[user(QUESTION, tiny.image(size=(40, 33)))])["code"] == "image_too_large"
            assert refused(messages=[user(QUESTION, tiny.image(), tiny.image())])["code"] == "too_many_images"
            assert refused(messages=[user("dog " * 30, tiny.image())])["code"] == "context_length_exceeded"
            assert refused(messages=[user("dog " * 30, tiny.image())], stream=True)["param"] == "messages"
            error = refused(max_tokens=4)
            assert (error["param"], error["code"]) == ("max_tokens", "too_many_new_tokens")
            # An answer without a token limit ends at that of the server.
            unlimited = http.post("/v1/chat/completions", json=body(max_tokens=None)).json()
            assert unlimited["usage"]["completion_tokens"] == 3

    def test_an_answer_without_a_token_limit_ends_at_the_last_position(self, served):
        service = served.service
        with served.http() as http:
            found = http.post("/v1/chat/completions", json=body(max_tokens=None)).json()
        positions = tiny.model().config.get_text_config().max_position_embeddings
        assert positions < service.limits.new_tokens
        rest = positions - found["usage"]["prompt_tokens"]
        expected = LVLM(tiny.model(), tiny.processor()).ask(
            tiny.image(), QUESTION, method="greedy", max_new_tokens=rest
        )
        assert found["choices"][0]["message"]["content"] == expected.text
        assert found["usage"]["completion_tokens"] == len(expected.tokens)

    def test_a_full_queue(self):
        lvlm, release = held_model()
        with running(lvlm, method="greedy", limits=Limits(queue=2)) as served, served.http() as http:
            answers = []
            threads = [
                threading.Thread(target=lambda: answers.append(http.post("/v1/chat/completions", json=body())))
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            while served.service.in_flight < 2:
                time.sleep(0.01)
            refused = http.post("/v1/chat/completions", json=body())
            assert error_of(refused, 429)["code"] == "queue_full"
            assert refused.headers["retry-after"] == "1"
            # A request that is not decoded is answered.
            assert http.get("/v1/models").status_code == 200
            release.set()
            for thread in threads:
                thread.join(30)
            assert [answer.status_code for answer in answers] == [200, 200]
            assert http.post("/v1/chat/completions", json=body()).status_code == 200

    def test_too_many_bytes_of_waiting_requests(self):
        """Ten of the largest requests: 10 * (10,000 + 3 * 2,000) bytes. A request holds its body and 40 * 32 pixels."""
        lvlm, release = held_model()
        limits = Limits(body=10_000, pixels=2000)
        content = json.dumps(body()).encode()
        content += b" " * (9000 - len(content))
        held = 9000 + 3 * 40 * 32
        with running(lvlm, method="greedy", limits=limits) as served, served.http() as http:

            def post():
                headers = {"Content-Type": "application/json"}
                return http.post("/v1/chat/completions", content=content, headers=headers)

            answers = []
            threads = [
                threading.Thread(target=lambda: answers.append(post().status_code)) for _ in range(160_000 // held)
            ]
            for thread in threads:
                thread.start()
            while served.service.budget.held < len(threads) * held:
                time.sleep(0.01)
            refused = post()
            assert error_of(refused, 429)["code"] == "queue_full"
            assert refused.headers["retry-after"] == "1"
            release.set()
            for thread in threads:
                thread.join(30)
            assert answers == [200] * len(threads)
            served.until_idle()
            assert served.service.budget.held == 0

    def test_the_time_limit(self):
        lvlm, release = held_model()
        with running(lvlm, method="greedy", limits=Limits(seconds=0.3)) as served, served.http() as http:
            assert error_of(http.post("/v1/chat/completions", json=body()), 504)["type"] == "timeout_error"
            assert error_of(http.post("/v1/chat/completions", json=body(stream=True)), 504)["code"] == "timeout"
            release.set()
            served.until_idle()

    def test_the_time_limit_of_a_stream_that_has_begun(self):
        lvlm = LVLM(tiny.model(), tiny.processor())
        lvlm.model.register_forward_pre_hook(lambda *_: time.sleep(0.1))
        with running(lvlm, method="greedy", limits=Limits(seconds=0.5)) as served:
            chunks = served.client().chat.completions.create(**body(max_tokens=50, stream=True))
            assert next(chunks).choices[0].delta.role == "assistant"
            with pytest.raises(openai.APIError, match=r"more than 0\.5 s"):
                list(chunks)

    def test_limits_out_of_range_are_refused(self):
        for bad in ({"batch": 0}, {"seconds": 0}, {"window": -1}, {"body": 1.5}, {"prompt_tokens": 0}):
            with pytest.raises(IavaError, match=next(iter(bad))):
                Limits(**bad)


def held_model():
    """A model that waits, and the event that lets it answer."""
    lvlm, release = LVLM(tiny.model(), tiny.processor()), threading.Event()
    lvlm.model.register_forward_pre_hook(lambda *_: None if release.wait(30) else pytest.fail("never released"))
    return lvlm, release


class TestClientsThatLeave:
    """A client that closes its connection frees its row, and the other clients get their whole answers."""

    @pytest.fixture
    def counted(self):
        """A slow model, and the number of rows of each run of its decoder."""
        lvlm, rows = LVLM(tiny.model(), tiny.processor()), []
        lvlm.model.generation_config.eos_token_id = None

        def slow(count):
            rows.append(count)
            time.sleep(0.02)

        lvlm.model.get_decoder().register_forward_pre_hook(
            lambda _module, _args, given: slow(len(given["inputs_embeds"])), with_kwargs=True
        )
        return lvlm, rows

    @pytest.mark.parametrize("stream", [True, False])
    def test_alone(self, counted, stream):
        lvlm, rows = counted
        with running(lvlm, method="greedy") as served:
            asked = body(max_tokens=200, stream=stream)
            with (
                served.http() as http,
                suppress(httpx.ReadTimeout),
                http.stream("POST", "/v1/chat/completions", json=asked, timeout=1) as answer,
            ):
                for _ in zip(range(6), answer.iter_lines(), strict=False):
                    pass
            served.until_idle()
            time.sleep(0.2)
            steps = len(rows)
            time.sleep(0.2)
            assert len(rows) == steps < 150
            lines = [json.loads(line) for line in served.log.getvalue().splitlines()]
        assert [line["status"] for line in lines] == [200 if stream else 499]

    def test_in_a_batch(self, counted):
        lvlm, _ = counted
        expected = lvlm.ask(tiny.image(), QUESTION, method="greedy", max_new_tokens=30).text
        texts = []
        with running(lvlm, method="greedy", limits=Limits(window=0.5)) as served:

            def stays():
                chunks = served.client().chat.completions.create(**body(max_tokens=30, stream=True))
                texts.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))

            def leaves():
                with served.client().chat.completions.create(**body(max_tokens=30, stream=True)) as chunks:
                    for _ in zip(range(3), chunks, strict=False):
                        pass

            threads = [threading.Thread(target=work) for work in (stays, leaves, stays, leaves)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert texts == [expected, expected]


class TestLog:
    def test_a_line_a_request(self, lvlm):
        with running(lvlm, method="greedy") as served, served.http() as http:
            found = http.post("/v1/chat/completions", json=body(user="ann", stream=True))
            http.post("/v1/chat/completions", json=body(temperature=9))
            http.get("/nowhere")
            served.until_idle()
            lines = [json.loads(line) for line in served.log.getvalue().splitlines()]
        assert [line["status"] for line in lines] == [200, 400, 404]
        first = lines[0]
        assert first["id"] == found.headers["x-request-id"]
        assert first["verb"] == "POST"
        assert first["path"] == "/v1/chat/completions"
        assert first["client"] == "127.0.0.1"
        assert (first["method"], first["images"], first["stream"], first["user"]) == ("greedy", 1, True, "ann")
        assert first["completion_tokens"] == 2
        assert first["seconds"] > 0
        assert QUESTION not in served.log.getvalue()


class TestMetrics:
    def test_requests_tokens_and_batches_are_counted(self, lvlm):
        with running(lvlm, method="greedy") as served, served.http() as http:
            http.post("/v1/chat/completions", json=body(n=3))
            http.post("/v1/chat/completions", json=body(iava={"method": "vcd"}, max_tokens=1))
            http.post("/v1/chat/completions", json=body(n=-1))
            asked = {"image": data_uri(tiny.image()), "questions": [QUESTION], "max_tokens": 1}
            http.post("/v1/compare", json={**asked, "methods": {"greedy": {}, "vcd": {}}})
            http.get("/made-up-1")
            http.get("/made-up-2")
            served.until_idle()
            text = http.get("/metrics").text
        prompt = tiny.inputs(tiny.processor(), tiny.image(), QUESTION)["input_ids"].numel()

        def value(name):
            return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

        path = 'path="/v1/chat/completions"'
        assert value(f'iava_requests_total{{method="greedy",{path},status="200"}}') == 1
        assert value(f'iava_requests_total{{method="vcd",{path},status="200"}}') == 1
        assert value(f'iava_requests_total{{method="",{path},status="400"}}') == 1
        assert value('iava_requests_total{method="",path="other",status="404"}') == 2
        # A list of methods, which a client makes up, is no label either.
        assert value('iava_requests_total{method="",path="/v1/compare",status="200"}') == 1
        assert value('iava_tokens_total{kind="completion",method="greedy"}') == 7
        assert value('iava_tokens_total{kind="prompt",method="vcd"}') == 2 * prompt
        assert value('iava_batch_rows_count{method="greedy"}') == 2
        assert value('iava_batch_rows_sum{method="greedy"}') == 4
        assert value('iava_first_token_seconds_count{method="greedy"}') == 4
        assert value('iava_token_seconds_count{method="greedy"}') == 3
        assert value('iava_first_token_seconds_count{method="vcd"}') == 2
        assert 'iava_token_seconds_count{method="vcd"}' not in text
        assert value("iava_queue_rows") == 0
        assert value("iava_requests_in_flight") == 0
        # This process holds torch.
        assert value("process_resident_memory_bytes") > 10**8


class TestOrigins:
    def test_only_named_origins_can_send_requests(self, served, lvlm):
        ask = {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
        with served.http() as http:
            assert "access-control-allow-origin" not in http.options("/v1/chat/completions", headers=ask).headers
            assert "access-control-allow-origin" not in http.get("/v1/models", headers=ask).headers
        with running(lvlm, method="greedy", origins=["https://app.test"]) as open_to_one, open_to_one.http() as http:
            allowed = http.options("/v1/chat/completions", headers=ask)
            assert allowed.headers["access-control-allow-origin"] == "https://app.test"
            other = http.get("/v1/models", headers={"Origin": "https://evil.test"})
            assert "access-control-allow-origin" not in other.headers

    def test_pages_of_named_origins_can_read_errors(self, lvlm):
        options = {"method": "greedy", "keys": [b"digest"], "origins": ["https://app.test"]}
        with running(lvlm, **options) as locked, locked.http() as http:
            refused = http.get("/v1/models", headers={"Origin": "https://app.test"})
        error_of(refused, 401)
        assert refused.headers["access-control-allow-origin"] == "https://app.test"
        assert "Retry-After" in refused.headers["access-control-expose-headers"]

    def test_a_form_of_another_origin_is_refused(self, served):
        """A browser sends text/plain to other origins without a preflight request, but not JSON."""
        with served.http() as http:
            content = json.dumps(body()).encode()
            answer = http.post("/v1/chat/completions", content=content, headers={"Content-Type": "text/plain"})
        error_of(answer, 400)


class TestRubbish:
    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b'{"model": "tiny"}', b"[" * 100_000, b'{"a": 1e999}', b"NaN"],
    )
    def test_a_body_that_is_not_a_request(self, served, content):
        with served.http() as http:
            answer = http.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
        error_of(answer, 400)

    @pytest.mark.parametrize(("verb", "path", "status"), [("GET", "/v1/chat/completions", 405), ("GET", "/x", 404)])
    def test_an_unknown_path(self, served, verb, path, status):
        with served.http() as http:
            error_of(http.request(verb, path), status)


def test_health(served):
    with served.http() as http:
        assert http.get("/health").json() == {"status": "ready"}
