"""The one thread that owns tracker, session and device; everybody else leaves it messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.inference import BuildCancelledError
from siam_tracker_ros.nodes.follower import Follower, Outputs
from siam_tracker_ros.nodes.frames import Frame
from siam_tracker_ros.nodes.history import History
from siam_tracker_ros.nodes.mailbox import Call, Mailbox
from siam_tracker_ros.nodes.model_session import ModelSession, Opening, open_model
from siam_tracker_ros.nodes.parameters import TrackerParameters, read_parameters
from siam_tracker_ros.nodes.selection import Selection
from siam_tracker_ros.tracking import StatefulSession, Tracker, TrackState

OpenModel = Callable[[TrackerParameters, Opening], tuple[Bundle, StatefulSession]]

TEND_EVERY = 0.2
"""Seconds between two looks at a build of engines, while nothing else happens."""


class Worker:
    """A thread with a mailbox; it runs from construction until :meth:`stop`.

    Every method may be called from every thread and returns at once; futures say what came of it.

    Args:
        outputs: called from the worker's thread.
        open_model: what gives bundle and session; called in the worker's thread.
        ending: asked while a model is opened, from the worker's thread; True gives that up.
    """

    def __init__(
        self,
        outputs: Outputs,
        open_model: OpenModel = open_model,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._out = outputs
        self._open_model = open_model
        self._ending = ending
        self._stopping = threading.Event()
        self._mailbox = Mailbox()
        self._history = History()
        self._follower: Follower | None = None
        self._tracker: Tracker | None = None
        self._session: StatefulSession | None = None
        self._bundle: Bundle | None = None
        self._active = False
        self._newest: Frame | None = None  # written by the image callback alone
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    @property
    def bundle(self) -> Bundle | None:
        """The bundle that is open."""
        return self._bundle

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()

    @property
    def history(self) -> History:
        """The images of the last seconds."""
        return self._history

    def open(self, parameters: TrackerParameters) -> Future[str]:
        """Load, open and warm up the model; the future tells what runs or raises why not."""
        return self._mailbox.call(self._do_open, parameters)

    def activate(self) -> Future[None]:
        """Take images and selections from now on."""
        self._newest = None
        self._history.clear()
        self._mailbox.drop_frame()
        return self._mailbox.call(self._do_activate)

    def deactivate(self) -> Future[None]:
        """Forget the target and take nothing more."""
        self._mailbox.drop_frame()
        return self._mailbox.call(self._do_deactivate)

    def frame(self, frame: Frame) -> bool:
        """Leave an image; tell whether it replaced one that the worker was too busy to take."""
        self._history.add(frame)
        self._newest = frame
        return self._mailbox.put_frame(frame)

    def select(self, selection: Selection) -> Future[None]:
        """Leave a selection, for the newest image received by now if it has no stamp."""
        return self._mailbox.call(self._do_select, selection, self._newest)

    def clear(self, why: str) -> Future[str]:
        """Forget the target; the future tells what that meant."""
        return self._mailbox.call(self._do_follower, "clear", why)

    def pause(self, paused: bool) -> Future[None]:
        """Stop following, or go on with the next image."""
        return self._mailbox.call(self._do_follower, "pause", paused)

    def bad_image(self, reason: str) -> Future[None]:
        """Say that an image cannot be read."""
        return self._mailbox.call(self._do_follower, "bad_image", reason)

    def time_jumped_back(self, now: int) -> Future[None]:
        """Say that the clock was set back to ``now``, nanoseconds."""
        return self._mailbox.call(self._do_follower, "time_jumped_back", now)

    def set_parameters(self, parameters: TrackerParameters) -> Future[None]:
        """Take over what may change at run-time."""
        self._history.set_bounds(parameters.history_bytes, parameters.history_seconds)
        return self._mailbox.call(
            self._do_follower,
            "set_settings",
            parameters.tracker_settings(),
            parameters.selection_rules(),
        )

    def stop(self, timeout: float | None = None) -> bool:
        """Close the session and end the thread; tell whether it ended in ``timeout`` seconds.

        A model that is being opened is given up.
        """
        self._stopping.set()
        self._mailbox.call(self._do_close)
        self._mailbox.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- in the worker's thread ---------------------------------------------------------------

    def _run(self) -> None:
        while not self._mailbox.closed:
            behind = self._follower is not None and self._follower.behind
            item = self._mailbox.take_call() if behind else self._mailbox.take(self._patience())
            if isinstance(item, Call):
                item.run()
                self._say_failure(item)
            elif self._active and self._follower is not None:
                self._look(self._follower, item)
            if self._follower is not None:
                self._follower.expire()
                self._tend(self._follower)

    def _look(self, follower: Follower, frame: Frame | None) -> None:
        """Follow in the next image, or in one of those missed since the selection's."""
        try:
            if frame is not None:
                follower.frame(frame)
            elif follower.behind:
                follower.catch_up()
        except Exception as error:  # of publishing; the thread must live on
            self._out.error(f"an image is lost: {type(error).__name__}: {error}")

    def _patience(self) -> float | None:
        deadline = None if self._follower is None else self._follower.deadline()
        patience = None if deadline is None else max(0.0, deadline - time.monotonic())
        if isinstance(self._session, ModelSession) and self._session.building:
            return TEND_EVERY if patience is None else min(patience, TEND_EVERY)
        return patience

    def _tend(self, follower: Follower) -> None:
        """Look after what the session runs on."""
        session, tracker = self._session, self._tracker
        if not isinstance(session, ModelSession) or tracker is None:
            return
        idle = tracker.state is TrackState.IDLE
        try:
            # A selection that waits for its image is not held up; it begins on the engines.
            session.tend(idle and follower.deadline() is None)
            if session.broken is not None and not idle:
                self._out.error(follower.clear(session.broken))
        except Exception as error:  # of publishing; the thread must live on
            self._out.error(f"{type(error).__name__}: {error}")

    def _say_failure(self, call: Call) -> None:
        """Nobody waits for most calls: what they raise is said here. Opening has its reader."""
        error = None if call.done.cancelled() else call.done.exception()
        if error is not None and call.function != self._do_open:
            self._out.error(f"{type(error).__name__}: {error}")

    def _do_open(self, parameters: TrackerParameters) -> str:
        self._do_close()
        cancelled = self._cancelled
        bundle, session = self._open_model(parameters, Opening(self._out, cancelled))
        try:
            if cancelled():
                raise BuildCancelledError(f"opening {bundle.name} was cancelled")
            # Again with the thresholds that the bundle gives.
            values = {name: getattr(parameters, name) for name in parameters.__dataclass_fields__}
            read_parameters(values, bundle)
            session.warm_up()
            begin = time.perf_counter()
            session.warm_up()
            took = 1e3 * (time.perf_counter() - begin)
            tracker = Tracker(bundle, session, parameters.tracker_settings())
            self._history.set_bounds(parameters.history_bytes, parameters.history_seconds)
            self._follower = Follower(
                tracker, self._out, self._history, parameters.selection_rules()
            )
        except BaseException:
            session.close()
            raise
        self._bundle, self._session, self._tracker = bundle, session, tracker
        self._out.status(
            False,
            model=bundle.name,
            backend=session.description,
            calibration="calibrated" if bundle.presence.calibrated else "uncalibrated",
        )
        return f"{bundle.name} on {session.description}, template and search in {took:.1f} ms"

    def _cancelled(self) -> bool:
        return self._stopping.is_set() or self._ending()

    def _do_activate(self) -> None:
        self._active = True
        if isinstance(self._session, ModelSession):
            self._session.resume_build()
        self._out.status(True, state="idle")

    def _do_deactivate(self) -> None:
        if self._active and self._follower is not None:
            self._follower.pause(False)
            self._follower.clear("the node is deactivated")
            self._follower.forget_images()
            if isinstance(self._session, ModelSession):
                self._session.halt_build()
        self._active = False

    def _do_close(self) -> None:
        self._active = False
        self._follower = self._bundle = self._tracker = None
        if self._session is not None:
            session, self._session = self._session, None
            session.close()

    def _do_select(self, selection: Selection, newest: Frame | None) -> None:
        if not self._active or self._follower is None:
            self._out.warn("target: the selection is refused: the node is not active")
            self._out.status(
                True,
                selection_verdict="refused: the node is not active",
                selection_stamp=selection.stamp,
            )
            return
        self._follower.select(selection, newest)
        # An image that was just initialised on is no longer left over: replacing it loses nothing.
        self._mailbox.drop_frame(up_to=self._follower.done)

    def _do_follower(self, method: str, *arguments: Any) -> Any:
        if self._follower is None:
            return None
        return getattr(self._follower, method)(*arguments)
