"""What commit means, on graphs whose results show the state they were computed from.

``cx - 15`` is state.sum, ``cy - 15`` the template's mean, ``1000 runner_up`` the frames seen.
"""

from __future__ import annotations

import pytest

from siam_tracker_ros.bundle import Memory
from siam_tracker_ros.inference import BackendError, open_session

BACKENDS = ["onnxruntime", "tensorrt 8.6.1", "tensorrt 10.3.0", "tensorrt 11.4.0"]
BACKENDS += ["tensorrt without CUDA graphs", "tensorrt on shared memory"]


@pytest.fixture(params=BACKENDS)
def opened(request, tiny, gpu_machine, fake_session):
    """The same graphs on every back end; TensorRT and the GPU are stand-ins that compute."""
    sessions = []
    kind = request.param
    if kind != "onnxruntime":
        version = kind.split()[1] if kind[-1].isdigit() else "10.3.0"
        gpu_machine(version, integrated="shared" in kind)

    def make(*args, **kwargs):
        bundle = tiny(*args, **kwargs)
        if kind == "onnxruntime":
            session = open_session(bundle, "onnxruntime", intra_op_threads=1)
        else:
            session = fake_session(bundle, cuda_graphs="without" not in kind)
            assert session.cuda_graphs == ("without" not in kind)
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()


def state_of(result):
    """(state.sum that was read, template's mean, frames seen)."""
    return (
        pytest.approx(result.box.cx - 15, abs=1e-4),
        pytest.approx(result.box.cy - 15, abs=1e-4),
        round(1000 * result.runner_up),
    )


def test_start_leaves_the_first_frames_state_current(opened, crops, search):
    session = opened()
    first = session.start(*crops(40, 7), (8.0, 6.0))
    assert state_of(first) == (10, 40, 1)
    assert (first.box.w, first.box.h) == (8.25, 6.0)
    assert first.score == pytest.approx(7 / 255)
    assert first.peak == (15.0, 15.0)
    second = session.step(search(5), (9.0, 9.0))
    assert state_of(second) == (10 + 7, 40, 2)


def test_steps_without_commit_never_change_the_next_step(opened, crops, search):
    session = opened()
    session.start(*crops(40, 7), (8.0, 6.0))
    before = session.step(search(5), (8.0, 6.0))
    for value in (0, 100, 200, 31):
        session.step(search(value), (3.0, 3.0))
        assert session.step(search(5), (8.0, 6.0)) == before


def test_commit_makes_the_last_steps_state_current(opened, crops, search):
    session = opened()
    session.start(*crops(40, 7), (8.0, 6.0))
    session.step(search(200), (8.0, 6.0))
    session.step(search(5), (8.0, 6.0))
    session.commit()
    assert state_of(session.step(search(1), (8.0, 6.0))) == (10 + 7 + 5, 40, 3)
    session.commit()
    assert state_of(session.step(search(1), (8.0, 6.0))) == (10 + 7 + 5 + 1, 40, 4)


def test_a_long_track_adds_up(opened, crops, search):
    session = opened()
    session.start(*crops(40, 7), (8.0, 6.0))
    total, seen = 10 + 7, 1
    for value in range(60):
        assert state_of(session.step(search(value), (8.0, 6.0))) == (total, 40, seen + 1)
        if value % 3:
            session.commit()
            total, seen = total + value, seen + 1


def test_start_resets(opened, crops, search):
    session = opened()
    fresh = [session.start(*crops(40, 7), (8.0, 6.0)), session.step(search(5), (8.0, 6.0))]
    for value in (9, 99, 44):
        session.step(search(value), (8.0, 6.0))
        session.commit()
    session.start(*crops(90, 3), (8.0, 6.0))
    again = [session.start(*crops(40, 7), (8.0, 6.0)), session.step(search(5), (8.0, 6.0))]
    assert again == fresh


def test_a_start_that_fails_leaves_the_running_track(opened, crops, search):
    session = opened()
    session.start(*crops(40, 7), (8.0, 6.0))
    session.step(search(5), (8.0, 6.0))
    session.commit()
    before = session.step(search(2), (8.0, 6.0))
    with pytest.raises(BackendError, match="not finite"):
        session.start(*crops(90, 255), (8.0, 6.0))
    with pytest.raises(ValueError, match="template crop must be uint8"):
        session.start(search(1), search(2), (8.0, 6.0))
    assert session.step(search(2), (8.0, 6.0)) == before


def test_two_interleaved_sessions_do_not_influence_each_other(opened, crops, search):
    def play(session, values):
        for value in values:
            result = session.step(search(value), (8.0, 6.0))
            session.commit()
            yield result

    alone = opened(name="alone")
    alone.start(*crops(40, 7), (8.0, 6.0))
    wanted = list(play(alone, (1, 2, 3)))
    a, b = opened(name="a"), opened(name="b")
    a.start(*crops(40, 7), (8.0, 6.0))
    b.start(*crops(99, 200), (8.0, 6.0))
    interleaved = [pair[0] for pair in zip(play(a, (1, 2, 3)), play(b, (77, 88, 99)), strict=True)]
    assert interleaved == wanted


def test_a_session_is_a_function(opened, crops, search):
    runs = []
    for _ in range(2):
        session = opened()
        results = [session.start(*crops(40, 7), (8.0, 6.0))]
        for value in (3, 1, 4):
            results.append(session.step(search(value), (8.0, 6.0)))
            session.commit()
        runs.append(results)
    assert runs[0] == runs[1]


def test_warm_up_leaves_the_state(opened, crops, search):
    session = opened()
    session.warm_up()
    session.start(*crops(40, 7), (8.0, 6.0))
    before = session.step(search(5), (8.0, 6.0))
    session.warm_up()
    with pytest.raises(BackendError, match="commit without a step"):
        session.commit()
    assert session.step(search(5), (8.0, 6.0)) == before


def test_memory_is_read_exactly_when_the_graph_lists_it(opened, crops, search):
    plain, reading = opened(), opened(memory=True, name="reading")
    assert plain.start(*crops(40, 7), (8.0, 6.0)).box.h == 6
    # The first frame is its own memory, with the target as large as it was given.
    assert reading.start(*crops(40, 7), (8.0, 6.0)).box.h == pytest.approx(6 + 7 + 0.08)
    memory = Memory(search(100), (50.0, 20.0))
    assert reading.step(search(5), (8.0, 6.0), memory).box.h == pytest.approx(106.5)
    with pytest.raises(ValueError, match="does not read the previous frame"):
        plain.step(search(5), (8.0, 6.0), memory)
    with pytest.raises(ValueError, match="reads the previous frame"):
        reading.step(search(5), (8.0, 6.0))


def test_tuning_holds_from_the_next_step_on(opened, crops, search):
    session = opened()
    session.start(*crops(40, 7), (8.0, 6.0))
    assert session.step(search(5), (8.0, 6.0)).box.w == 8.25
    session.set_tuning("window", 0.5)
    assert session.step(search(5), (8.0, 6.0)).box.w == 8.5
    with pytest.raises(BackendError, match=r"no tuning\.penalty input; tuning inputs: window"):
        session.set_tuning("penalty", 0.1)
    with pytest.raises(ValueError, match="finite"):
        session.set_tuning("window", float("nan"))


def test_a_result_that_is_not_finite_is_refused_and_not_committed(opened, crops, search):
    session = opened()
    session.start(*crops(40, 7), (8.0, 6.0))
    before = session.step(search(5), (8.0, 6.0))
    with pytest.raises(BackendError, match="not finite"):
        session.step(search(255), (8.0, 6.0))
    with pytest.raises(BackendError, match="commit without a step"):
        session.commit()
    assert session.step(search(5), (8.0, 6.0)) == before


def test_calls_out_of_order(opened, crops, search):
    session = opened()
    with pytest.raises(BackendError, match="step before start"):
        session.step(search(5), (8.0, 6.0))
    with pytest.raises(BackendError, match="commit without a step"):
        session.commit()
    session.start(*crops(40, 7), (8.0, 6.0))
    with pytest.raises(BackendError, match="commit without a step"):
        session.commit()
    session.step(search(5), (8.0, 6.0))
    session.commit()
    with pytest.raises(BackendError, match="commit without a step"):
        session.commit()
    session.close()
    session.close()
    for call in (
        lambda: session.start(*crops(40, 7), (8.0, 6.0)),
        lambda: session.step(search(5), (8.0, 6.0)),
        session.commit,
        session.warm_up,
    ):
        with pytest.raises(BackendError, match="closed"):
            call()


@pytest.mark.parametrize("which", ["template", "search"])
def test_crops_of_another_size_are_refused(opened, crops, search, which):
    session = opened()
    template, region = crops(40, 7)
    wrong = {"template": template, "search": region, which: template[:9, :9]}
    with pytest.raises(ValueError, match=rf"the {which} crop must be uint8 \[\d+, \d+, 3\]"):
        session.start(wrong["template"], wrong["search"], (8.0, 6.0))
