"""When a worker is next heard from."""

from dtf.worker.pulse import Pulse


def beats(pulse: Pulse, seconds: int, start: int = 0) -> list[tuple[int, bool]]:
    """(second, with telemetry) of each heartbeat, looked for once a second."""
    found = []
    for second in range(start, start + seconds):
        beat = pulse.due(float(second))
        if beat.is_due:
            found.append((second, beat.with_telemetry))
    return found


def test_a_beat_a_second_and_telemetry_on_every_fifth() -> None:
    assert beats(Pulse(0.0, 1.0, 5.0), 11) == [(n, n % 5 == 0) for n in range(11)]


def test_a_stretched_pulse_stretches_telemetry_with_it() -> None:
    found = beats(Pulse(0.0, 4.0, 5.0), 60)
    assert [second for second, _ in found] == list(range(0, 60, 4))
    assert [second for second, with_telemetry in found if with_telemetry] == [0, 20, 40]


def test_a_longer_interval_counts_from_the_next_beat_and_a_shorter_one_at_once() -> None:
    pulse = Pulse(0.0, 1.0, 1000.0)
    assert pulse.due(0.0).is_due
    pulse.told(0.0, 8.0)
    assert [second for second, _ in beats(pulse, 20, 1)] == [1, 9, 17]
    pulse.told(18.0, 2.0)
    assert [second for second, _ in beats(pulse, 6, 18)] == [20, 22]


def test_a_coordinator_that_names_no_interval_changes_nothing() -> None:
    pulse = Pulse(0.0, 3.0, 5.0)
    pulse.told(0.0, 0.0)
    assert pulse.heartbeat_seconds == 3.0


def test_telemetry_more_often_than_heartbeats_is_sent_by_itself() -> None:
    assert beats(Pulse(0.0, 5.0, 1.0), 6)[:3] == [(0, True), (5, True)]
