"""A worker under the shell: signals, exit codes, and what a user reads when it cannot start."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

APP = """
import streamcore as sc

app = sc.App("shop", web_port=0, flush="always")
words = app.topic("words", key_type=str, value_type=str, partitions=1)
counts = app.Table("counts", default=int)


@app.agent(words, on_error="{on_error}")
async def count(stream):
    async for word in stream:
        {body}


if __name__ == "__main__":
    app.main()
"""


@pytest.fixture
def shop(run, tmp_path):
    """An app in shop.py that counts words, and three words for it."""
    (tmp_path / "shop.py").write_text(APP.format(on_error="retry", body="counts[word] += 1"))
    run("topics", "create", "words", "-p", "1")
    run("produce", "words", input="a\nb\na\n")
    return run


@contextlib.contextmanager
def worker(directory, *args, script=None):
    """A running worker; it is killed if the test leaves it alive."""
    command = script or [sys.executable, "-c", "from streamcore.cli import main; main()", "worker", "-A", "shop"]
    process = subprocess.Popen(
        [*command, *args], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process, text):
    """The first line of the log with `text` in it."""
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_in_order(shop, tmp_path, number):
    with worker(tmp_path) as process:
        assert "1 agent, pages at http://127.0.0.1:" in wait_for(process, "is running")
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_python_app_py_worker_does_the_same(shop, tmp_path):
    with worker(tmp_path, script=[sys.executable, "shop.py", "worker", "--without-web"]) as process:
        assert "pages" not in wait_for(process, "is running")
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_second_signal_ends_it_at_once(shop, tmp_path):
    (tmp_path / "shop.py").write_text(APP.format(on_error="retry", body="await __import__('asyncio').sleep(600)"))
    with worker(tmp_path, "--without-web") as process:
        wait_for(process, "is running")
        os.kill(process.pid, signal.SIGTERM)
        wait_for(process, "stopping in order")
        # Signals close to the first one count as the same.
        while process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
    assert process.returncode == 128 + signal.SIGTERM


def test_an_agent_that_stops_the_worker_is_an_error_in_one_sentence(shop, tmp_path):
    (tmp_path / "shop.py").write_text(APP.format(on_error="stop", body="raise ValueError('no such word')"))
    with worker(tmp_path, "--without-web", "-l", "critical") as process:
        out, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.startswith("Error: ")
    assert "no such word" in errors
    assert len(errors.splitlines()) == 1
    assert out == ""


def test_a_port_in_use_is_told(shop, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with worker(tmp_path, "--web-port", str(port), "-l", "critical") as process:
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"ort {port}" in errors
    assert "Traceback" not in errors


def test_the_log_goes_to_a_file(shop, tmp_path):
    (tmp_path / "shop.py").write_text(APP.format(on_error="stop", body="raise ValueError('no such word')"))
    with worker(tmp_path, "--without-web", "--logfile", "shop.log") as process:
        _, errors = process.communicate(timeout=20)
    assert len(errors.splitlines()) == 1
    assert "ValueError: no such word" in (tmp_path / "shop.log").read_text()


def test_a_directory_whose_holder_lets_nobody_in_is_exit_code_three(shop, tmp_path):
    private = APP.replace("web_port=0", "web_port=0, listen=False")
    (tmp_path / "shop.py").write_text(private.format(on_error="retry", body="counts[word] += 1"))
    with worker(tmp_path, "--without-web") as first:
        wait_for(first, "is running")
        with worker(tmp_path, "--without-web") as second:
            _, errors = second.communicate(timeout=20)
        assert second.returncode == 3
        assert str(first.pid) in errors


def test_a_second_worker_on_the_same_directory_joins_the_first(shop, tmp_path):
    with worker(tmp_path, "--without-web") as first:
        wait_for(first, "is running")
        with worker(tmp_path, "--without-web") as second:
            wait_for(second, "joined the log")
            wait_for(second, "is running")
            os.kill(second.pid, signal.SIGTERM)
            _, errors = second.communicate(timeout=20)
            assert second.returncode == 0, errors
        assert first.poll() is None


def test_data_says_where_the_log_is(shop, tmp_path):
    with worker(tmp_path, "--without-web", "--data", "elsewhere") as process:
        assert "embedded:elsewhere" in wait_for(process, "is running")
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=20)
    assert (tmp_path / "elsewhere" / "words-0").is_dir()


def test_an_app_has_its_own_command_line_on_its_own_log(shop, tmp_path):
    listed = subprocess.run(
        [sys.executable, "shop.py", "topics", "list"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert listed.stdout.splitlines()[1].split()[:3] == ["words", "1", "3"]
    wrong = subprocess.run(
        [sys.executable, "shop.py", "wroker"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "Did you mean 'worker'?" in wrong.stderr


def test_a_worker_needs_an_app(run):
    outcome = run("worker")
    assert outcome.code == 2
    assert "streamcore worker -A health" in outcome.err
