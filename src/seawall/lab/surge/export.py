"""Exports of a scenario to load generators that run on many machines: k6 and Locust.

Both scripts contain the arrival times themselves, so that they produce the same load. The token
comes from the variable SURGE_TOKEN, and SURGE_URL replaces the address: a script has no secrets.
"""

import json
import math

from seawall.errors import ConfigError
from seawall.lab.surge.scenario import Closed, Open, Scenario, arrivals

__all__ = ["to_k6", "to_locust"]

_K6 = """\
// Written by `seawall surge --export-k6`. Run: k6 run -e SURGE_TOKEN=... this-file.js
// In an open loop each turn has a virtual user, which sleeps until the turn is due.
// surge_first_byte and surge_whole_turn: of completed turns, measured from when they were due.
import { SharedArray } from 'k6/data';
import exec from 'k6/execution';
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Rate, Trend } from 'k6/metrics';

const URL = __ENV.SURGE_URL || %(url)s;
const PATH = %(path)s;
const QUESTIONS = new SharedArray('questions', () => %(questions)s);
const UNIQUE = %(unique)s;
const DUE = new SharedArray('due', () => %(due)s); // seconds; empty: closed loop
const THINK = %(think)s;
// k6 reads a streamed answer to its end; of the first text it reports only the first byte.
const firstByte = new Trend('surge_first_byte', true);
const wholeTurn = new Trend('surge_whole_turn', true);
const late = new Trend('surge_late', true);
const completed = new Rate('surge_completed');

export const options = {
  scenarios: { surge: %(scenario)s },
  noConnectionReuse: %(closing)s,
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
};

export function setup() {
  return { began: Date.now() + %(lead)s };
}

export default function (data) {
  const number = DUE.length ? exec.vu.idInTest - 1 : exec.scenario.iterationInTest;
  let due = Date.now();
  if (DUE.length) {
    due = data.began + DUE[number] * 1000;
    sleep(Math.max(0, due - Date.now()) / 1000);
  }
  late.add(Math.max(0, Date.now() - due));
  const text = QUESTIONS[number %% QUESTIONS.length] + (UNIQUE ? ` I am customer ${number}.` : '');
  const headers = { 'content-type': 'application/json', accept: 'text/event-stream' };
  if (__ENV.SURGE_TOKEN) headers.authorization = `Bearer ${__ENV.SURGE_TOKEN}`;
  const answer = http.post(URL + PATH, JSON.stringify(%(body)s), {
    headers,
    timeout: '%(patience)ss',
  });
  const took = Date.now() - due;
  const whole = check(answer, {
    'status 200': (r) => r.status === 200,
    'complete': (r) => r.body !== null && r.body.includes(%(last)s),
    'no error': (r) => r.body !== null && !failed(r.body),
  });
  completed.add(whole);
  if (whole) {
    firstByte.add(took - answer.timings.receiving);
    wholeTurn.add(took);
  }
  if (THINK) sleep(Math.random() * THINK);
}

const FINISHED = ['stop', 'length', 'tool_calls', 'function_call', 'eos', 'end_turn', 'max_tokens'];

// Whether a stream has an error in it, or no text.
function failed(body) {
  let text = '';
  for (const line of body.split('\\n')) {
    const data = line.startsWith('data:') ? line.slice(5).trim() : '';
    if (!data.startsWith('{')) continue;
    let event;
    try {
      event = JSON.parse(data);
    } catch (_) {
      return true;
    }
    if (event.error || event.type === 'turn.failed') return true;
    if (event.type === 'text.delta') text += event.text;
    for (const choice of event.choices || []) {
      const reason = choice.finish_reason;
      if (choice.error || (reason && !FINISHED.includes(reason.toLowerCase()))) return true;
      const content = (choice.delta || {}).content;
      if (typeof content === 'string') text += content;
    }
  }
  return text.trim() === '';
}
"""

_LOCUST = '''\
"""Written by `seawall surge --export-locust`.

Run: SURGE_TOKEN=... locust -f this_file.py --headless -u %(users)d -r %(users)d -t %(time)s
In an open loop each turn has a user, which sleeps until the turn is due; when all have had theirs,
the run ends; -t is its longest time. With workers (--processes, or --master and --worker) the
master assigns the arrivals to them; add one user (-u, -r) per worker, because Locust does not
distribute users evenly.
"""

import itertools
import json
import logging
import os
import random
import time

import gevent
from locust import HttpUser, events, task
from locust.exception import StopUser
from locust.runners import STATE_RUNNING, MasterRunner, WorkerRunner

URL = os.environ.get("SURGE_URL", %(url)s)
TOKEN = os.environ.get("SURGE_TOKEN", "")
PATH = %(path)s
QUESTIONS = %(questions)s
UNIQUE = %(unique)s
DUE = %(due)s  # seconds; empty: closed loop
THINK = %(think)s
CLOSING = %(closing)s
began = [0.0]
numbers = itertools.count()  # of this process's turns; None: a worker without a share


@events.init.add_listener
def listen(environment, **_):
    global numbers
    if isinstance(environment.runner, WorkerRunner):
        numbers = None
        environment.runner.register_message("surge_share", take_share)


@events.test_start.add_listener
def start(environment, **_):
    global numbers
    began[0] = time.time() + %(lead)s
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        workers = list(runner.clients.ready)
        for index, worker in enumerate(workers):
            share = {"index": index, "of": len(workers)}
            runner.send_message("surge_share", share, client_id=worker.id)
    elif not isinstance(runner, WorkerRunner):
        numbers = itertools.count()
    elif numbers is None:
        logging.error("this worker joined too late and has no turns; start again")
    if DUE and not isinstance(runner, WorkerRunner):
        gevent.spawn(end, environment)


def end(environment):
    """End the run when all users, and those of all workers, have started and have no turn left."""
    runner = environment.runner
    workers = runner.clients.all if isinstance(runner, MasterRunner) else ()
    while runner.user_count or any(each.state != STATE_RUNNING for each in (runner, *workers)):
        gevent.sleep(0.2)
    if environment.web_ui:
        runner.stop()
    else:
        runner.quit()


def take_share(environment, msg, **_):
    """On a worker: its share of the turns, which the master sends before the users."""
    global numbers
    numbers = itertools.count(msg.data["index"], msg.data["of"])


class VirtualUser(HttpUser):
    host = URL

    @task
    def turn(self):
        if numbers is None:
            raise StopUser
        number = next(numbers)
        due = time.time()
        if DUE:
            if number >= len(DUE):
                raise StopUser
            due = began[0] + DUE[number]
            gevent.sleep(max(0.0, due - time.time()))
        self.ask(number, due)
        if not DUE:
            gevent.sleep(random.random() * THINK)

    def ask(self, number, due):
        text = QUESTIONS[number %% len(QUESTIONS)]
        if UNIQUE:
            text += f" I am customer {number}."
        headers = {"accept": "text/event-stream"}
        if TOKEN:
            headers["authorization"] = f"Bearer {TOKEN}"
        if CLOSING:
            headers["connection"] = "close"
        with self.client.post(
            PATH, json=%(body)s, headers=headers, stream=True, timeout=%(patience)s,
            catch_response=True,
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            begun = complete = has_text = False
            try:
                for line in answer.iter_lines():
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    text = text_of(data)
                    has_text = has_text or bool(text.strip())
                    if not begun and text:
                        begun = True
                        self.record("first text", due)
                    complete = complete or is_last(data)
            except (OSError, ValueError) as error:
                answer.failure(f"the stream was interrupted or failed: {error}")
                return
            if not complete:
                answer.failure("the stream ended before the turn was completed")
                return
            if not has_text:
                answer.failure("an answer without text")
                return
            self.record("whole turn", due)

    def record(self, name, due):
        """Record a time since the turn was due, not since the request was sent."""
        events.request.fire(
            request_type="SSE", name=name, response_time=(time.time() - due) * 1e3,
            response_length=0, exception=None, context={},
        )


%(reading)s'''

_READING = {
    "turns": '''\
def text_of(data):
    """The text of an event; empty if it has none."""
    if not data.startswith(b"{"):
        return ""
    event = json.loads(data)
    if event.get("type") == "turn.failed":
        raise ValueError(data[:300])
    return event["text"] if event.get("type") == "text.delta" else ""


def is_last(data):
    """Whether this event completes the turn."""
    return b'"turn.completed"' in data and json.loads(data).get("type") == "turn.completed"
''',
    "chat": '''\
FINISHED = {"stop", "length", "tool_calls", "function_call", "eos", "end_turn", "max_tokens"}


def text_of(data):
    """The text of an event; empty if it has none. Raises ValueError if it is an error."""
    if not data.startswith(b"{"):
        return ""
    event = json.loads(data)
    choices = event.get("choices") or []
    reasons = {str(each["finish_reason"]).lower() for each in choices if each.get("finish_reason")}
    if event.get("error") or any(each.get("error") for each in choices) or reasons - FINISHED:
        raise ValueError(data[:300])
    texts = [(each.get("delta") or {}).get("content") for each in choices]
    return "".join(each for each in texts if isinstance(each, str))


def is_last(data):
    """Whether this event completes the turn."""
    return data == b"[DONE]"
''',
}
_PATHS = {"turns": "/v1/turns", "chat": "/v1/chat/completions"}
_LAST = {"turns": '"turn.completed"', "chat": "[DONE]"}
_LEAD_SECONDS = 2.0


def to_k6(scenario: Scenario) -> str:
    """A script for k6 (https://grafana.com/docs/k6).

    Raises:
        ConfigError: The scenario uses a feature that k6 does not have.
    """
    due = _due(scenario)
    load = scenario.load
    executor: dict[str, object]
    if isinstance(load, Closed):
        executor = {
            "executor": "constant-vus",
            "vus": load.users,
            "duration": f"{load.seconds:g}s",
        }
    else:
        executor = {
            "executor": "per-vu-iterations",
            "vus": len(due),
            "iterations": 1,
            "maxDuration": f"{max(due) + scenario.patience + 10.0:.0f}s",
        }
    body = "{ text, stream: true }"
    if scenario.api == "chat":
        model = json.dumps(scenario.model)
        body = f"{{ model: {model}, messages: [{{ role: 'user', content: text }}], stream: true }}"
    values = _common(scenario, due) | {
        "scenario": json.dumps(executor),
        "body": body,
        "lead": str(_LEAD_SECONDS * 1e3),
        "last": json.dumps(_LAST[scenario.api]),
        "unique": json.dumps(scenario.unique),
        "closing": json.dumps(not scenario.keep_alive),
    }
    return _K6 % values


def to_locust(scenario: Scenario) -> str:
    """A locustfile (https://docs.locust.io).

    Raises:
        ConfigError: The scenario uses a feature that Locust does not have.
    """
    due = _due(scenario)
    load = scenario.load
    body = '{"text": text, "stream": True}'
    if scenario.api == "chat":
        messages = '[{"role": "user", "content": text}]'
        body = f'{{"model": {scenario.model!r}, "messages": {messages}, "stream": True}}'
    if isinstance(load, Closed):
        # -s: turns in flight at the end are not cut off.
        users = load.users
        time = f"{math.ceil(load.seconds)}s -s {math.ceil(scenario.patience)}"
    else:
        users = len(due)
        time = f"{math.ceil(max(due) + scenario.patience + _LEAD_SECONDS)}s"
    values = _common(scenario, due) | {
        "users": users,
        "time": time,
        "body": body,
        "lead": repr(_LEAD_SECONDS),
        "reading": _READING[scenario.api],
        "unique": repr(scenario.unique),
        "closing": repr(not scenario.keep_alive),
    }
    return _LOCUST % values


def _due(scenario: Scenario) -> list[float]:
    load = scenario.load
    if isinstance(load, Closed):
        if load.turns > 1:
            raise ConfigError("sessions of several turns cannot be exported; use --turns 1")
        return []
    return [round(due, 4) for due, _ in arrivals(load.crowds, scenario.seed)]


def _common(scenario: Scenario, due: list[float]) -> dict[str, object]:
    load = scenario.load
    return {
        "url": json.dumps(scenario.url),
        "path": json.dumps(_PATHS[scenario.api]),
        "questions": json.dumps(scenario.questions),
        "due": json.dumps(due),
        "think": 0.0 if isinstance(load, Open) else load.think,
        "patience": f"{scenario.patience:g}",
    }
