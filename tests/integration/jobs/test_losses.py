"""What may be lost - a worker, a message, the broker's memory - and what may come twice."""

import os
import signal

import httpx
import psutil
import pytest
import redis

from nanochat.jobs.leases import LEASE_S
from nanochat.jobs.queue import QUEUE
from nanochat.protocol.jobs import Job
from nanochat_trainer.broker import Broker

from .conftest import Stack, is_alive, wait_for

LONG = {"steps": 600, "step_s": 0.1}


def test_a_message_delivered_twice_runs_once(stack: Stack, broker_url: str) -> None:
    stack.start_worker(NANOCHAT_WORKER_CONCURRENCY="2")
    job = stack.tokenizer_job("a")
    broker = Broker(broker_url)
    for _ in range(3):
        broker.send(Job.model_validate(job))
    stack.wait_status(job["id"], "succeeded")
    wait_for(lambda: broker.num_waiting() == 0, what="the end of the messages")
    broker.close()
    last = stack.tokenizer_job("b")  # behind the doubles in the queue: once it is done, they are
    stack.wait_status(last["id"], "succeeded")
    assert len(stack.runs()) == 2
    assert stack.job(job["id"])["attempt"] == 1


def test_a_job_sent_to_a_broker_that_forgot_it_still_runs(stack: Stack, broker_url: str) -> None:
    job = stack.tokenizer_job("a")
    with redis.Redis.from_url(broker_url) as client:
        wait_for(lambda: client.keys(f"{QUEUE}*"), what="the message")
        client.flushdb()
    stack.start_worker()
    assert stack.wait_status(job["id"], "succeeded")["attempt"] == 1


def test_a_job_runs_on_while_the_broker_forgets_everything(stack: Stack, broker_url: str) -> None:
    stack.behave(tokenizer={"steps": 20, "step_s": 0.1})
    stack.start_worker()
    job = stack.tokenizer_job("a")
    stack.wait_running()
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    assert stack.wait_status(job["id"], "succeeded")["attempt"] == 1
    later = stack.tokenizer_job("b")
    assert stack.wait_status(later["id"], "succeeded")["attempt"] == 1


@pytest.mark.slow
def test_a_killed_worker_leaves_no_rank_and_its_job_goes_on_elsewhere(stack: Stack) -> None:
    stack.behave(tokenizer={**LONG, "ignore_term": True, "grandchild": True})
    worker = stack.start_worker()
    job = stack.tokenizer_job("a")
    pids = stack.wait_running()
    wait_for(lambda: stack.job(job["id"])["progress"]["step"] > 2, what="some progress")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_for(lambda: not any(map(is_alive, pids)), 10, "the end of the ranks")
    stack.behave(tokenizer={"steps": 30})
    stack.start_worker()
    done = stack.wait_status(job["id"], "succeeded", timeout_s=LEASE_S + 30)
    assert done["attempt"] == 2
    again = next(run for run in stack.runs() if run["attempt"] == 2)
    assert again["job"] == job["id"]
    series = httpx.get(f"{stack.url}/v1/jobs/{job['id']}/metrics").json()["series"]["train_loss"]
    steps = [point["step"] for point in series]
    assert sorted(set(steps)) == list(range(30))  # none is left out: what the lost worker had not stored is read later
    assert len(steps) <= 31  # the step during which it was killed is done again


def test_a_stopped_worker_gives_its_job_back_and_the_next_one_resumes_it(stack: Stack) -> None:
    stack.behave(tokenizer=LONG)
    worker = stack.start_worker()
    job = stack.tokenizer_job("a")
    pids = stack.wait_running()
    wait_for(lambda: stack.job(job["id"])["progress"]["step"] > 2, what="some progress")
    worker.terminate()
    assert worker.wait(20) == 0
    assert not any(map(is_alive, pids))
    assert stack.job(job["id"])["status"] == "queued"
    reached = int((stack.home / "jobs" / job["id"] / "step").read_text())
    stack.behave(tokenizer={"steps": reached + 3})
    stack.start_worker()
    done = stack.wait_status(job["id"], "succeeded")
    assert done["attempt"] == 2
    assert done["error"] is None


def test_a_killed_supervisor_ends_the_run_and_the_job(stack: Stack) -> None:
    stack.behave(tokenizer=LONG)
    worker = stack.start_worker()
    job = stack.tokenizer_job("a")
    pids = stack.wait_running()
    (supervisor,) = psutil.Process(worker.pid).children()
    supervisor.kill()
    assert stack.wait_status(job["id"], "failed")["error"] is not None
    wait_for(lambda: not any(map(is_alive, pids)), 10, "the end of the ranks")
