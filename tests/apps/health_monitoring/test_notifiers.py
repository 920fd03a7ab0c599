"""What the outputs say, and what they do when nobody listens."""

import asyncio
import io
from typing import Any

import pytest

from apps.health_monitoring.notifiers import DROPPED, Alertmanager, Terminal, Webhook, backoff_s, printable
from streamcore.clock import ManualClock
from streamcore.errors import UsageError
from tests.apps.health_monitoring.alarms import an_alarm
from tests.apps.health_monitoring.receivers import receiver, running


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(out: io.StringIO, *alarms: Any) -> list[str]:
    async def scenario() -> None:
        terminal = Terminal(out)
        for alarm in alarms:
            await terminal.notify(alarm)

    asyncio.run(scenario())
    return out.getvalue().splitlines()


def dropped(output: str, reason: str) -> float:
    return DROPPED.labels(output, reason)._value.get()


# The terminal.


def test_each_change_of_state_is_one_line_with_the_states_name() -> None:
    states = ["pending", "firing", "resolved"]
    lines = told(io.StringIO(), *(an_alarm(state, sequence=n) for n, state in enumerate(states, 1)))
    assert [line.split()[0] for line in lines] == states
    assert all("CpuSaturated" in line and "web-01 is at 97.3 % CPU" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_repeated_or_an_older_change_is_not_told_again() -> None:
    firing = an_alarm("firing", sequence=2)
    assert len(told(io.StringIO(), firing, firing, an_alarm("pending", sequence=1))) == 1


def test_a_terminal_gets_colour_and_whole_lines() -> None:
    (line,) = told(Tty(), an_alarm("firing", annotations={"summary": "[bold]not markup[/bold] " + "x" * 300}))
    assert "firing" in line
    assert "\x1b[" in line
    assert "[bold]not markup[/bold]" in line


def test_without_a_summary_the_comparison_is_told() -> None:
    (line,) = told(io.StringIO(), an_alarm("firing", annotations={}, labels={"host": "a", "mount": "/var"}))
    assert "97.3 > 95" in line
    assert "(mount=/var)" in line


def test_text_from_outside_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202ed") == "a\\x1b[2Jb\\r\\nc\\u202ed"
    (line,) = told(io.StringIO(), an_alarm("firing", annotations={"summary": "evil\x1b]0;title\x07\nsecond line"}))
    assert "\x1b" not in line


def test_a_pipe_that_nobody_reads_costs_nothing_but_the_lines() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    assert told(Broken(), an_alarm("pending"), an_alarm("firing", sequence=2)) == []


# The webhook.


@pytest.mark.parametrize("every_change", [False, True])
def test_a_webhook_gets_what_people_should_hear_of_in_order(every_change: bool) -> None:
    async def scenario() -> tuple[list[Any], list[dict[str, str]]]:
        async with receiver() as there:
            webhook = Webhook(there.url + "/hook", every_change=every_change, headers={"X-Token": "t"})
            async with running(webhook):
                for sequence, state in enumerate(("pending", "firing", "resolved"), 1):
                    await webhook.notify(an_alarm(state, sequence=sequence))
                await webhook.settled()
            return there.bodies, there.headers

    bodies, headers = asyncio.run(scenario())
    assert [body["state"] for body in bodies] == ["pending"] * every_change + ["firing", "resolved"]
    assert bodies[-1]["labels"] == {"host": "web-01", "severity": "critical"}
    assert headers[0]["x-token"] == "t"
    assert headers[0]["content-type"] == "application/json"
    assert headers[-2]["idempotency-key"] == "e1-2"


def test_a_receiver_that_fails_is_tried_again() -> None:
    async def scenario() -> list[Any]:
        async with receiver(lambda request: (503, 429, 200, 200)[request]) as there:
            webhook = Webhook(there.url, backoff_first_s=0.001)
            async with running(webhook):
                await webhook.notify(an_alarm("no_data"))
                await webhook.notify(an_alarm("firing", sequence=2))
                await webhook.settled()
            return [body["state"] for body in there.bodies]

    assert asyncio.run(scenario()) == ["no_data", "no_data", "no_data", "firing"]


def test_a_change_that_is_refused_is_dropped_and_counted_and_the_next_one_goes_on() -> None:
    before = dropped("webhook", "not delivered")

    async def scenario() -> list[Any]:
        async with receiver(lambda request: (400, 200)[request]) as there:
            webhook = Webhook(there.url)
            async with running(webhook):
                await webhook.notify(an_alarm("no_data"))
                await webhook.notify(an_alarm("firing", sequence=2))
                await webhook.settled()
            return [body["state"] for body in there.bodies]

    assert asyncio.run(scenario()) == ["no_data", "firing"]
    assert dropped("webhook", "not delivered") == before + 1


def test_a_receiver_that_hangs_never_holds_up_notify_and_costs_the_oldest() -> None:
    before = dropped("webhook", "too many waiting")

    async def scenario() -> None:
        async with receiver(lambda request: None) as there:
            webhook = Webhook(there.url, waiting_max=10)
            async with running(webhook):
                await webhook.notify(an_alarm("no_data", id="0"))
                await there.wait(1)
                async with asyncio.timeout(5):
                    for number in range(1, 30):
                        await webhook.notify(an_alarm("no_data", id=str(number)))

    asyncio.run(scenario())
    assert dropped("webhook", "too many waiting") == before + 20


def test_a_receiver_that_hangs_is_given_up_after_the_timeout() -> None:
    async def scenario() -> list[Any]:
        async with receiver(lambda request: None if request == 0 else 200) as there:
            webhook = Webhook(there.url, timeout_s=0.05, backoff_first_s=0.001)
            async with running(webhook):
                await webhook.notify(an_alarm("firing"))
                await webhook.settled()
            return there.bodies

    assert len(asyncio.run(scenario())) == 2


def test_nobody_there_at_all_is_dropped_after_the_attempts() -> None:
    before = dropped("webhook", "not delivered")

    async def scenario() -> None:
        async with receiver() as there:
            url = there.url
        webhook = Webhook(url, attempts=2, backoff_first_s=0.001)
        async with running(webhook):
            await webhook.notify(an_alarm("firing"))
            await webhook.settled()

    asyncio.run(scenario())
    assert dropped("webhook", "not delivered") == before + 1


@pytest.mark.parametrize("url", ["", "ftp://x/", "http://", "no address", "http://h:port/"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    for output in (Webhook, Alertmanager):
        with pytest.raises(UsageError, match="should look like http://"):
            output(url)


def test_pauses_grow_up_to_a_bound() -> None:
    assert [backoff_s(attempt, 0.5, 3.0) for attempt in (1, 2, 3, 4, 400)] == [0.5, 1.0, 2.0, 3.0, 3.0]


# Alertmanager.

NOW_MS = 1_700_000_000_000


def to_alertmanager(*alarms: Any, answers: tuple[int, ...] = (), requests: int = 1, **options: Any) -> list[Any]:
    async def scenario() -> list[Any]:
        async with receiver(lambda request: answers[request] if request < len(answers) else 200) as there:
            notifier = Alertmanager(there.url, clock=ManualClock(NOW_MS), backoff_first_s=0.001, **options)
            for alarm in alarms:
                await notifier.notify(alarm)
            async with running(notifier):
                await there.wait(requests)
                await notifier.settled()
            return there.bodies

    return asyncio.run(scenario())


def test_a_firing_alarm_has_labels_annotations_and_an_end_ahead() -> None:
    ((alert,),) = to_alertmanager(
        an_alarm("firing", at_ms=NOW_MS, fired_ms=NOW_MS, labels={"host": "web-01", "mount-point": "/", "empty": ""})
    )
    assert alert["labels"] == {
        "alertname": "CpuSaturated",
        "host": "web-01",
        "mount_point": "/",
    }
    assert alert["annotations"] == {"summary": "web-01 is at 97.3 % CPU", "value": "97.3 > 95"}
    assert alert["startsAt"] == "2023-11-14T22:13:20.000Z"
    assert alert["endsAt"] == "2023-11-14T22:17:20.000Z"


def test_pending_is_not_its_business_and_recovering_still_fires() -> None:
    alerts, *_ = to_alertmanager(
        an_alarm("pending", id="a"),
        an_alarm("recovering", id="b", sequence=3, at_ms=NOW_MS, fired_ms=NOW_MS - 5000),
        an_alarm("no_data", id="c", rule="HostSilent", at_ms=NOW_MS, started_ms=NOW_MS - 9000, value=None),
    )
    assert [alert["labels"]["alertname"] for alert in alerts] == ["CpuSaturated", "HostSilent"]
    assert all(alert["endsAt"] > "2023-11-14T22:13:20" for alert in alerts)


def test_resolved_ends_when_it_was_resolved() -> None:
    ((alert,),) = to_alertmanager(
        an_alarm("firing", sequence=2, at_ms=NOW_MS - 9000, fired_ms=NOW_MS - 9000),
        an_alarm("resolved", sequence=4, at_ms=NOW_MS, fired_ms=NOW_MS - 9000, resolved_ms=NOW_MS),
    )
    assert (alert["startsAt"], alert["endsAt"]) == ("2023-11-14T22:13:11.000Z", "2023-11-14T22:13:20.000Z")


def test_a_resolution_of_long_ago_is_no_news() -> None:
    old = NOW_MS - 3_600_000
    (alerts,) = to_alertmanager(
        an_alarm("resolved", id="old", at_ms=old, fired_ms=old - 1, resolved_ms=old),
        an_alarm("resolved", id="never fired", at_ms=NOW_MS),
        an_alarm("resolved", id="new", at_ms=NOW_MS, fired_ms=NOW_MS - 5, resolved_ms=NOW_MS, labels={"host": "new"}),
    )
    assert [alert["labels"]["host"] for alert in alerts] == ["new"]


def test_what_fires_is_sent_again_and_again() -> None:
    bodies = to_alertmanager(an_alarm("firing", fired_ms=NOW_MS), requests=3, resend_s=0.01)
    assert [len(body) for body in bodies[:3]] == [1, 1, 1]


def test_an_alertmanager_that_is_down_gets_the_newest_state_later() -> None:
    bodies = to_alertmanager(an_alarm("firing", fired_ms=NOW_MS), answers=(500, 503), requests=3)
    assert len(bodies) >= 3
    assert bodies[2][0]["labels"]["host"] == "web-01"


def test_a_refused_batch_is_dropped_and_counted() -> None:
    before = dropped("alertmanager", "refused")
    to_alertmanager(an_alarm("firing", fired_ms=NOW_MS), answers=(400,), requests=1)
    assert dropped("alertmanager", "refused") == before + 1


def test_too_many_firing_alarms_are_counted_not_kept() -> None:
    before = dropped("alertmanager", "too many alarms")
    (alerts,) = to_alertmanager(*(an_alarm("firing", id=str(n), fired_ms=NOW_MS) for n in range(5)), alarms_max=3)
    assert len(alerts) == 3
    assert dropped("alertmanager", "too many alarms") == before + 2


def test_what_is_due_at_the_stop_is_still_sent() -> None:
    async def scenario() -> list[Any]:
        async with receiver() as there:
            webhook, alertmanager = Webhook(there.url), Alertmanager(there.url, clock=ManualClock(NOW_MS))
            async with running(webhook), running(alertmanager):
                await asyncio.sleep(0)
                await webhook.notify(an_alarm("firing", fired_ms=NOW_MS))
                await alertmanager.notify(an_alarm("firing", fired_ms=NOW_MS))
            return there.bodies

    assert len(asyncio.run(scenario())) == 2
