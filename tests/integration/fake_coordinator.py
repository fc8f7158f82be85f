"""A coordinator without a log, for the controller alone: it runs shards in warm processes of its own."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, run_service_pb2_grpc
from dtf.runner.channel import (
    CaseItem,
    Finish,
    Flush,
    Prepare,
    Prepared,
    PrepareFailed,
    Ready,
    ResultItem,
    Results,
    Run,
)
from tests.integration.runner_process import RunnerProcess, started


class FakeRun:
    """One run: its tasks, and its events so far."""

    def __init__(self, request: run_service_pb2.CreateRunRequest) -> None:
        self.request = request
        self.tasks: list[common_pb2.TaskSpec] = []
        self.queue: deque[int] = deque()
        self.reported: set[tuple[int, int]] = set()
        self.events: list[events_pb2.Event] = []
        self.changed = threading.Condition()
        self.is_cancelled = False
        self.is_ended = False

    def publish(self, event: events_pb2.Event) -> None:
        """Add an event."""
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def event_at(self, position: int) -> events_pb2.Event:
        """The event at a position, waited for."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.events) > position)
            return self.events[position]

    def unreported(self, task: int) -> list[int]:
        """Cases of a task that have no verdict."""
        return [case for case in range(len(self.tasks[task].cases)) if (task, case) not in self.reported]


class FakeCoordinator(run_service_pb2_grpc.RunServiceServicer):
    """RunService as far as the controller uses it."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self.runs: list[FakeRun] = []

    def CreateRun(self, request: run_service_pb2.CreateRunRequest, context: Any) -> Any:
        self.runs.append(FakeRun(request))
        return run_service_pb2.CreateRunResponse(run=run_service_pb2.Run(run_id=f"r{len(self.runs)}"))

    def SubmitTasks(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            run = self.runs[int(request.run_id[1:]) - 1]
            run.tasks += request.tasks
            if request.seal:
                run.queue.extend(range(len(run.tasks)))
                thread = threading.Thread(target=self._execute, args=(run,))
                self._threads.append(thread)
                thread.start()
            yield run_service_pb2.SubmitTasksResponse(batch=request.batch)

    def WatchRun(self, request: run_service_pb2.WatchRunRequest, context: Any) -> Iterator[Any]:
        run = self.runs[int(request.run_id[1:]) - 1]
        position = request.after_sequence
        while True:
            event = run.event_at(position)
            position += 1
            commit = run_service_pb2.WatchedCommit(log_sequence=position, events=[event])
            yield run_service_pb2.WatchRunResponse(commits=[commit])
            if event.HasField("run_finished"):
                return

    def CancelRun(self, request: run_service_pb2.CancelRunRequest, context: Any) -> Any:
        self.runs[int(request.run_id[1:]) - 1].is_cancelled = True
        return run_service_pb2.CancelRunResponse()

    def join(self) -> None:
        """Wait for every run."""
        for thread in self._threads:
            thread.join()

    def _execute(self, run: FakeRun) -> None:
        with ThreadPoolExecutor(self._workers) as pool:
            done = [pool.submit(FakeWorker(run, f"w-{number}").work) for number in range(self._workers)]
        for worker in done:
            worker.result()
        state = common_pb2.RUN_STATE_CANCELLED if run.is_cancelled else common_pb2.RUN_STATE_FINISHED
        run.is_ended = True
        run.publish(events_pb2.Event(run_finished=events_pb2.RunFinished(run_id="r", state=state)))


class FakeWorker:
    """Runs tasks in one warm process, and in a new one when that dies."""

    def __init__(self, run: FakeRun, name: str) -> None:
        self._run = run
        self._name = name

    def work(self) -> None:
        """Work until nothing is left."""
        while self._run.queue and not self._run.is_cancelled:
            with started() as process:
                self._serve(process)

    def _serve(self, process: RunnerProcess) -> None:
        template = self._run.request.templates[0]
        spec = MessageToDict(
            template.pytest, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        process.expect(Ready)
        process.send(Prepare("r", "suite", "pytest", self._name, spec))
        prepared = process.receive()
        if not isinstance(prepared, Prepared):
            self._refuse(prepared.message if isinstance(prepared, PrepareFailed) else str(prepared))
            return
        while not self._run.is_cancelled:
            try:
                task = self._run.queue.popleft()
            except IndexError:
                break
            if not self._run_task(process, task):
                return
        process.send(Finish())
        process.process.wait(60)

    def _run_task(self, process: RunnerProcess, task: int) -> bool:
        spec = self._run.tasks[task]
        cases = self._run.unreported(task)
        process.send(
            Run(
                [
                    CaseItem(
                        task,
                        case,
                        spec.cases[case],
                        spec.positions[case],
                        spec.payload,
                        60.0,
                        case == cases[-1],
                    )
                    for case in cases
                ]
            )
        )
        process.send(Flush())
        while self._run.unreported(task):
            try:
                message = process.receive()
            except EOFError as error:
                self._crashed(task, str(error))
                return False
            assert isinstance(message, Results), message
            self._accept(message.items)
            if self._has_stopped(message.items[-1]):
                self._run.queue.clear()
                break
        return True

    def _has_stopped(self, item: ResultItem) -> bool:
        return item.detail is not None and b'"dtf.stop"' in item.detail.reports_json

    def _accept(self, items: list[ResultItem]) -> None:
        event = events_pb2.ResultsAccepted(run_id="r", worker_id=self._name)
        for item in items:
            assert item.detail is not None
            self._run.reported.add((item.fence, item.case))
            event.tasks.append(item.fence)
            event.cases.append(item.case)
            event.verdicts.append(item.verdict)  # type: ignore[arg-type]
            detail = events_pb2.CaseDetail(reports_json=item.detail.reports_json, message=item.detail.message)
            event.details.append(detail.SerializeToString())
        self._run.publish(events_pb2.Event(results_accepted=event))

    def _crashed(self, task: int, reason: str) -> None:
        running = self._run.unreported(task)[0]
        self._run.reported.add((task, running))
        ended = events_pb2.AttemptsEnded(
            run_id="r",
            worker_id=self._name,
            tasks=[task],
            outcomes=[common_pb2.OUTCOME_CRASHED],
            running_cases=[running + 1],
            verdicts=[common_pb2.VERDICT_ERROR],
            reasons=[reason],
        )
        self._run.publish(events_pb2.Event(attempts_ended=ended))
        if self._run.unreported(task):
            self._run.queue.appendleft(task)

    def _refuse(self, reason: str) -> None:
        ended = events_pb2.AttemptsEnded(run_id="r", worker_id=self._name)
        while self._run.queue:
            ended.tasks.append(self._run.queue.popleft())
            ended.outcomes.append(common_pb2.OUTCOME_CRASHED)
            ended.remaining_verdicts.append(common_pb2.VERDICT_ERROR)
            ended.reasons.append(reason)
        self._run.publish(events_pb2.Event(attempts_ended=ended))


@contextmanager
def serving(workers: int = 2) -> Iterator[tuple[FakeCoordinator, str]]:
    """A fake coordinator and its address."""
    fake = FakeCoordinator(workers)  # type: ignore[abstract]  # the controller asks for no more
    server = grpc.server(ThreadPoolExecutor(8))
    run_service_pb2_grpc.add_RunServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield fake, f"127.0.0.1:{port}"
    finally:
        fake.join()
        server.stop(None).wait()
