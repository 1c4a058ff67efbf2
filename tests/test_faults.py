"""Servers that fail, processes that are killed, code that ignores its time: the short forms.

`make chaos` and `make crash` run the long ones.
"""

import asyncio
import json
import multiprocessing
import time

import pytest

from extras import needs

needs("eval")
needs("serve")

from langchain_core.tools import tool

from benchmarks import chaos, crash, kills
from benchmarks.faults import Attempt
from fakes import NEVER, FakeChat, PaidController, answer, make_pool, search
from in_process import cli
from openai_server import Reply, Status
from patience import wait_until
from router_r1_graph import RouterContext, ScriptedController, create_router_r1
from router_r1_graph.evaluation.processes import end_with_parent
from router_r1_graph.trace import Trace
from yaml_pool import run, yaml_pool


@pytest.mark.parametrize("way", chaos.WAYS)
def test_under_faults_each_question_ends_and_the_bill_is_the_servers(way):
    found = chaos.run(way, 24, at_once=24, hang_seconds=3.0, seed=1)
    assert not found.problems, found
    assert found.attempts > 24


def test_a_killed_evaluation_goes_on_without_asking_again():
    assert crash.crash_evaluate(1, 0, questions=8, within_seconds=2.0) == []


@pytest.mark.long
def test_a_killed_server_starts_again_without_asking_again():
    assert crash.crash_serve(2, 0, questions=12) == []


@pytest.mark.long
def test_a_killed_question_goes_on_from_its_checkpoint_without_asking_again():
    assert crash.crash_checkpoints(2, 0, most=1) == []


@pytest.mark.long
@pytest.mark.parametrize("kind", [crash.crash_evaluate, crash.crash_serve])
def test_kills_show_a_reply_store_that_keeps_nothing(kind):
    problems = kind(3, 0, questions=24, module="keeps_nothing")
    assert any("was asked again" in problem for problem in problems), problems


ASKED_AGAIN = [
    Attempt("Ada", "when?", 1, "", sent_at=99.5),
    Attempt("Ada", "when?", 2, "", sent_at=105.0),
]
ASLEEP = [(98 + i / 10, 0.1) for i in range(1, 21)]
BUSY = [(at, 0.0) for at, _ in ASLEEP]


@pytest.mark.parametrize(
    ("samples", "reported"),
    [
        (ASLEEP, True),
        (BUSY, False),
        (ASLEEP[:10] + BUSY[10:], False),
        (BUSY[:10] + ASLEEP[10:], True),
    ],
    ids=["asleep", "busy", "busy at last", "asleep at last"],
)
def test_a_call_is_paid_again_if_its_reply_came_before_the_process_slept(samples, reported):
    kill = kills.Kill(kills.kept_until(samples, began=98.0, killed=100.0), until=100.1)
    said = kills.paid_again(ASKED_AGAIN, [kill])
    assert said == (["Ada was asked again: 'when?'"] if reported else [])


def test_a_reply_that_came_long_before_the_kill_must_be_kept_however_busy_the_machine_is():
    assert kills.kept_until([], began=90.0, killed=100.0) == 97.0
    assert kills.kept_until([], began=99.0, killed=100.0) == 99.0


def test_a_ledger_that_is_not_the_sum_of_its_bills_is_a_problem():
    graph = create_router_r1(
        make_pool("Ada"),
        ScriptedController([search("Ada: what?"), answer()]),
        models={"Ada": FakeChat()},
    ).compile()
    state = graph.invoke({"question": "6 x 7?"})
    found = chaos.Found()
    found.add(state["scratchpad"], state["ledger"])
    assert found.problems == []
    line = state["ledger"]["candidates"]["Ada"]
    tokens = line["input_tokens"]
    assert tokens
    found.add(state["scratchpad"], {"candidates": {"Ada": {**line, "input_tokens": 5 * tokens}}})
    assert found.problems == [f"a ledger has {5 * tokens} input_tokens of Ada, its bills {tokens}"]


def test_a_worker_ends_with_the_process_that_started_it():
    forks = multiprocessing.get_context("fork")
    ours, theirs = forks.Pipe()

    def parent():
        worker = forks.Process(target=end_with_parent)
        worker.start()
        theirs.send(worker.pid)
        worker.join()

    process = forks.Process(target=parent)
    process.start()
    worker = ours.recv()
    process.kill()
    process.join()

    def ended():
        try:  # of nobody who would wait for it, it may stay as a zombie
            with open(f"/proc/{worker}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(ended)
    assert ended()


# ------------------------------------------------------------------------------------ outages


@pytest.mark.parametrize("controller", ["constant:Ada", "vote", "cascade", "keyword"])
def test_an_outage_is_the_stop_reason_with_its_cause(controller):
    pool = make_pool("Ada", "Bob")
    down = dict.fromkeys(("Ada", "Bob"), FakeChat(text=ConnectionError("nobody is there")))
    state = create_router_r1(pool, controller, models=down).compile().invoke({"question": "q?"})
    assert state["stop_reason"] == "no_reply"
    assert "nobody is there" in state["error"]


@pytest.mark.parametrize(
    ("own", "reason"), [("42", "answered"), ("I do not know.", "no_reply"), ("unknown", "no_reply")]
)
def test_a_controller_that_knows_the_answer_itself_has_answered_in_an_outage(own, reason):
    controller = ScriptedController([search("Ada: what?"), answer(own)])
    down = {"Ada": FakeChat(text=TimeoutError("too slow"))}
    graph = create_router_r1(make_pool("Ada"), controller, models=down).compile()
    state = graph.invoke({"question": "6 x 7?"})
    assert (state["answer"], state["stop_reason"]) == (own, reason)


GONE, LATE = FakeChat(text=ConnectionError("gone")), FakeChat(delay=NEVER)


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize(
    ("controller", "ada", "knobs", "reason", "error"),
    [
        ("constant:Ada", LATE, {"deadline_seconds": 0.5}, "deadline", "timeout: "),
        (
            ScriptedController([search("Ada: q?"), "garbage"]),
            GONE,
            {"max_rounds": 1},
            "invalid",
            "connection: ConnectionError: gone",
        ),
        (
            PaidController([search("Ada: q?"), answer()], usd=0.6),
            GONE,
            {"budget_usd": 1},
            "budget_usd",
            "connection: ConnectionError: gone",
        ),
    ],
    ids=["deadline", "invalid", "budget_usd"],
)
def test_an_outage_is_said_whatever_ends_the_run(how, controller, ada, knobs, reason, error):
    graph = create_router_r1(make_pool("Ada"), controller, models={"Ada": ada}).compile()
    state = run(graph, how, **knobs)
    assert (state["answer"], state["stop_reason"]) == ("", reason)
    assert state["error"].startswith(error)
    trace = Trace.from_state(state)
    assert trace.error == state["error"]


def test_commands_say_an_outage(serve, tmp_path):
    def told(request):
        return Status(500, "all is down") if "down" in request.prompt else Reply("Paris")

    server = serve(told)
    yaml_pool(tmp_path, server)
    pool = ["--pool", str(tmp_path / "pool.yaml"), "--controller", "cheapest"]
    assert cli("ask", "Is it up?", *pool).returncode == 0
    asked = cli("ask", "Is it down?", "--json", *pool)
    assert (asked.returncode, json.loads(asked.stdout)["stop_reason"]) == (1, "no_reply")
    assert "no candidate replied: server_error: " in asked.stderr
    assert "all is down" in asked.stderr
    rows = ({"question": f"Is it {where}?", "gold": ["Paris"]} for where in ("up", "down", "at 1"))
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate", str(tmp_path / "q.jsonl"), *pool, "--no-controls", "--json"]
    for more in ([], ["--resume"]):
        before = server.count()
        summary = json.loads(cli(*command, "--out", str(tmp_path / "out"), *more).stdout)
        assert "Nobody replied for 1 of 3 answers" in summary["notes"][0]
        assert "all is down" in summary["notes"][0]
    assert server.count() - before == 1  # the one that nobody replied to


# ------------------------------------------------------------------------- cancellation, time


async def cancelled_inside():
    task = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def exits():
    raise SystemExit(3)


async def group_of_exits():
    raise BaseExceptionGroup("several", [SystemExit(1)])


async def generator_exit():
    raise GeneratorExit


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (cancelled_inside, "CancelledError"),
        (exits, "SystemExit: 3"),
        (group_of_exits, "SystemExit"),
        (generator_exit, "GeneratorExit"),
    ],
)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_whatever_a_candidate_raises_is_its_failure_and_the_others_are_asked(work, kind, how):
    @tool
    async def ada(query: str) -> str:
        "Fail."
        await work()
        return ""

    if how == "sync":

        @tool
        def ada(query: str) -> str:
            "Fail."
            asyncio.run(work())
            return ""

    bob = FakeChat()
    graph = create_router_r1(
        make_pool("Ada", "Bob"),
        ScriptedController([search("Ada: what?", "Bob: what?"), answer()]),
        models={"Ada": ada, "Bob": bob},
    ).compile()
    question = {"question": "6 x 7?"}
    state = asyncio.run(graph.ainvoke(question)) if how == "async" else graph.invoke(question)
    assert (state["answer"], len(bob.queries)) == ("42", 1)
    errors = [m.artifact["error"] for m in state["scratchpad"] if getattr(m, "artifact", None)]
    [failed] = filter(None, errors)
    assert failed["kind"] == "bug"
    assert kind in failed["message"]


async def test_a_run_that_is_cancelled_is_cancelled_and_takes_its_calls_along():
    begun, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def ada(query: str) -> str:
        "Wait."
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return ""

    graph = create_router_r1(
        make_pool("Ada"), ScriptedController([search("Ada: what?"), answer()]), models={"Ada": ada}
    ).compile()
    run = asyncio.create_task(graph.ainvoke({"question": "6 x 7?"}))
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await ended.wait()


class Deaf(FakeChat):
    """Goes on when it is cancelled, until `end`."""

    end: asyncio.Event

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        while not self.end.is_set():
            try:
                await self.end.wait()
            except asyncio.CancelledError:
                continue
        return self._result("")


class Blocking(FakeChat):
    """Blocks the event loop for longer than the deadline and the time that is allowed to pass."""

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        time.sleep(0.8)  # noqa: ASYNC251 - that is the fault
        return self._result("")


class Sleeping(ScriptedController):
    def decide(self, view, config=None):
        time.sleep(20 if view.left.seconds else 0)
        return super().decide(view, config)


@pytest.mark.parametrize("kind", ["deaf", "blocking", "sleeping"])
async def test_code_that_ignores_the_deadline_is_left_or_it_is_said_why_not(kind, caplog):
    end = asyncio.Event()
    models = {"deaf": Deaf(end=end), "blocking": Blocking(), "sleeping": FakeChat()}
    script = [search("Ada: what?"), answer()]
    controller = (Sleeping if kind == "sleeping" else ScriptedController)(script)
    pool = make_pool({"name": "Ada", "timeout_seconds": 60})
    graph = create_router_r1(pool, controller, models={"Ada": models[kind]}).compile()
    state = await graph.ainvoke({"question": "6 x 7?"}, context=RouterContext(deadline_seconds=0.2))
    end.set()
    assert state["stop_reason"] == "deadline"
    said = {"deaf": "it was cancelled, and runs on", "blocking": "the event loop was blocked"}
    if kind in said:
        assert said[kind] in caplog.text
        line = state["ledger"]["candidates"]["Ada"]
        assert line["failed_calls"] == 1
        assert line["output_tokens"] == (5 if kind == "blocking" else 0)  # it is paid all the same
    else:
        assert state["error"].startswith("timeout: no reply within")
