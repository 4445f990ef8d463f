"""A remote model against a real HTTP server in this process."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny_networks import make_tokenizer

from pipeline.errors import (
    ConfigurationError,
    InvalidRequestError,
    ModelError,
    PromptTooLongError,
    UnavailableError,
)
from pipeline.lm import remote
from pipeline.lm.remote import RemoteConfig, RemoteModel
from pipeline.lm.request import GeneratingModel
from pipeline.seams import Capabilities, LanguageModel, Message, Sampling

QUESTION = [Message("system", "Be brief."), Message("user", "When does the lease end?")]


def event(**fields) -> str:
    return f"data: {json.dumps(fields)}\n\n"


def piece(text: str, finish: str | None = None) -> str:
    return event(choices=[{"delta": {"content": text}, "finish_reason": finish}])


DONE = "data: [DONE]\n\n"
ANSWER = [
    ": a comment\n\n",
    event(choices=[{"delta": {"role": "assistant"}, "finish_reason": None}]),
    piece("On the last "),
    piece("day of März 🌲."),
    piece("", "stop"),
    event(choices=[], usage={"prompt_tokens": 12, "completion_tokens": 9}),
    DONE,
]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        status, chunks = self.server.script[min(len(self.server.asked), len(self.server.script)) - 1]
        self.send_response(status)
        self.send_header("content-type", "text/event-stream" if status == 200 else "application/json")
        self.end_headers()
        try:
            for chunk in chunks:
                if isinstance(chunk, float):
                    time.sleep(chunk)
                    continue
                self.wfile.write(chunk.encode())
                self.wfile.flush()
        except OSError:
            self.server.hung_up.set()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.script, made.hung_up = [], [(200, ANSWER)], threading.Event()
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(remote, "_MOST_WAIT_SECONDS", 0.01)


def model(server, **options) -> RemoteModel:
    return RemoteModel(RemoteConfig(f"http://127.0.0.1:{server.server_port}/v1", "big", **options))


def test_it_writes_what_the_server_streams(server):
    deltas = list(model(server).stream(QUESTION, Sampling(max_tokens=20)))
    assert "".join(d.text for d in deltas) == "On the last day of März 🌲."
    assert [d.finish for d in deltas] == [None, None, "stop"]
    assert sum(d.tokens for d in deltas) == 9
    [(path, headers, body)] = server.asked
    assert path == "/v1/chat/completions"
    assert "authorization" not in {name.lower() for name in headers}
    assert body == {
        "model": "big",
        "messages": [{"role": m.role, "content": m.content} for m in QUESTION],
        "max_tokens": 20,
        "temperature": 0.0,
        "top_p": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_settings_beyond_the_standard_are_sent_only_if_they_are_set(server, tmp_path):
    (tmp_path / "key").write_text("secret-key\n")
    sampling = Sampling(8, 0.5, 0.9, 40, 1.1, ("\n\n",), 7)
    list(model(server, api_key_file=tmp_path / "key").stream(QUESTION, sampling))
    [(_, headers, body)] = server.asked
    assert headers["Authorization"] == "Bearer secret-key"
    assert (body["stop"], body["seed"], body["top_k"], body["repetition_penalty"]) == (["\n\n"], 7, 40, 1.1)


def test_it_is_a_language_model_that_can_only_write(server):
    made = model(server)
    assert isinstance(made, LanguageModel)
    assert not isinstance(made, GeneratingModel)
    assert made.capabilities == Capabilities(False, False, False, False)
    assert made.describe()["server"].endswith("/v1")


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_cancelling_hangs_up_while_the_server_is_thinking(server, moment):
    server.script = [(200, [piece("One "), piece("two "), 30.0, piece("three")])]
    stop = threading.Event()
    began = time.monotonic()
    deltas = []
    made = model(server).stream(QUESTION, Sampling(), stop.is_set)
    if moment == 0:
        stop.set()
    for delta in made:
        deltas.append(delta)
        if len(deltas) == moment:
            stop.set()
    assert time.monotonic() - began < 5
    assert deltas[-1].finish == "cancelled"
    assert len(deltas) == moment + 1


def test_a_reader_that_leaves_stops_the_servers_work(server):
    server.script = [(200, [piece("word ")] + [piece("x" * 5000), 0.005] * 2000)]
    made = model(server).stream(QUESTION, Sampling())
    next(made)
    made.close()
    assert server.hung_up.wait(10)


def test_a_busy_server_is_asked_again(server):
    server.script = [(429, ['{"error": {"message": "slow down"}}']), (503, ["busy"]), (200, ANSWER)]
    assert list(model(server).stream(QUESTION, Sampling()))[-1].finish == "stop"
    assert len(server.asked) == 3


def test_a_server_that_stays_busy_is_unavailable(server):
    server.script = [(429, ['{"error": {"message": "slow down"}}'])]
    with pytest.raises(UnavailableError, match=r"2 attempts: 429 slow down"):
        list(model(server, attempts=2).stream(QUESTION, Sampling()))


def test_a_server_that_is_not_there_is_unavailable():
    absent = RemoteModel(RemoteConfig("http://127.0.0.1:9/v1", "big", attempts=1))
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9.*ConnectError"):
        list(absent.stream(QUESTION, Sampling()))


@pytest.mark.parametrize(
    ("status", "said", "kind", "named"),
    [
        (401, '{"error": {"message": "bad key"}}', ModelError, "refuses the key.*bad key"),
        (404, '{"error": "no model big"}', ModelError, "nothing at .*no model big"),
        (400, '{"error": {"message": "maximum context length is 4096"}}', PromptTooLongError, "4096"),
        (422, "<html>unhappy</html>", ModelError, "refuses the request.*unhappy"),
    ],
)
def test_refusals_say_what_the_server_said(server, status, said, kind, named):
    server.script = [(status, [said])]
    with pytest.raises(kind, match=named):
        list(model(server).stream(QUESTION, Sampling()))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("chunks", "named"),
    [
        ([piece("One ")], "broke off"),
        ([piece("One "), DONE], "without saying why"),
        ([piece("One "), event(error={"message": "out of memory"})], "failed midway.*out of memory"),
        (["data: {half\n\n"], "not a chat completion.*half"),
        (['data: {"choices": [3]}\n\n'], "not a chat completion"),
        (["<html>hello</html>"], "broke off"),
    ],
)
def test_answers_that_break_are_errors_not_answers(server, chunks, named):
    server.script = [(200, chunks)]
    with pytest.raises(ModelError, match=named):
        list(model(server).stream(QUESTION, Sampling()))


def test_a_filtered_answer_says_so(server):
    server.script = [(200, [piece("One "), piece("", "content_filter"), DONE])]
    last = list(model(server).stream(QUESTION, Sampling()))[-1]
    assert (last.finish, last.degraded) == ("stop", ("big ended its answer early: content_filter",))


def test_nothing_is_sent_for_what_cannot_be_right(server, tmp_path):
    with pytest.raises(PromptTooLongError, match=r"reads 20\b"):
        model(server, window_tokens=20).stream(QUESTION, Sampling())
    with pytest.raises(InvalidRequestError, match="temperature is -1"):
        model(server).stream(QUESTION, Sampling(temperature=-1))
    assert server.asked == []
    with pytest.raises(ConfigurationError, match="ftp://"):
        RemoteModel(RemoteConfig("ftp://there", "big"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        model(server, api_key_file=tmp_path / "none")
    (tmp_path / "key").write_text("two\nlines")
    with pytest.raises(ConfigurationError, match="a key alone"):
        model(server, api_key_file=tmp_path / "key")
    with pytest.raises(ConfigurationError, match=r"no .*tokenizer\.json"):
        model(server, tokenizer=tmp_path).count_tokens("x")


def test_tokens_are_counted_or_overestimated(server, tmp_path):
    text = "The lease ends on the last day of March, and the tenant returns the keys."
    make_tokenizer().save_pretrained(tmp_path)
    exact = model(server, tokenizer=tmp_path).count_tokens(text)
    assert exact == len(make_tokenizer().encode(text))
    assert model(server).count_tokens("") == 0
    assert model(server).count_tokens(text) >= len(text.split())
