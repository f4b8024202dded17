"""What runs a bundle while a node lives: TensorRT engines, or ONNX Runtime until or instead of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from siam_tracker_ros.bundle import Bundle, Memory, StepResult, load_bundle
from siam_tracker_ros.inference import (
    BackendError,
    BuildProgress,
    CudaError,
    EngineBuild,
    EngineError,
    EnginesMissingError,
    choose_precision,
    log_now_and_then,
    open_session,
)
from siam_tracker_ros.nodes.parameters import TrackerParameters
from siam_tracker_ros.tracking import StatefulSession
from siam_tracker_ros.tracking.types import Size, UInt8Array

if TYPE_CHECKING:
    from siam_tracker_ros.inference.bound_session import BoundSession

T = TypeVar("T")
_Begun = tuple[UInt8Array, UInt8Array, Size]

_READY = "ready: used from the next selection on, or once there is no target"
_HALTED = "stopped with deactivate; it begins again with activate"


class Speaker(Protocol):
    """Who is told; called from any thread. The follower's ``Outputs`` are one."""

    def status(self, publish: bool, **changes: Any) -> None:
        """Remember what changed of the status, and publish it at once or with the next one."""
        ...

    def info(self, text: str) -> None:
        """Say something."""
        ...

    def error(self, text: str) -> None:
        """Say that something failed."""
        ...


@dataclass(frozen=True)
class Opening:
    """What opening a model may use.

    Attributes:
        out: who is told.
        cancelled: asked now and then while that takes long; True gives it up.
    """

    out: Speaker
    cancelled: Callable[[], bool] = lambda: False


def open_model(parameters: TrackerParameters, opening: Opening) -> tuple[Bundle, StatefulSession]:
    """Load the bundle and open its session, as the parameters say.

    Raises:
        BundleError: if the bundle is missing, damaged or not understood.
        BackendError: if the back end is not there or does not fit.
        BuildCancelledError: if ``opening.cancelled`` answered True.
    """
    bundle = load_bundle(parameters.model)
    return bundle, ModelSession(bundle, parameters, opening)


class ModelSession:
    """A ``StatefulSession`` (see the tracking room) that may change what it runs on.

    * Engines that are not there are built by a process of its own while ONNX Runtime runs
      (``build_in_background``). Once they are there they are taken over where no state is lost: at
      once while nothing is followed (:meth:`tend`), else with the next :meth:`start`.
    * A GPU that fails while running is left for ONNX Runtime: the same target is started again with
      its first image's crops. What the network had learnt of it since is lost.
    * Where ONNX Runtime is not allowed to stand in, :attr:`broken` says why nothing runs any more,
      and every call raises that.

    One owner, one thread.

    Args:
        bundle: a loaded bundle.
        parameters: of the node.
        opening: who is told, and whether to go on.

    Raises:
        BackendError: if nothing runs as asked.
        BuildCancelledError: if ``opening.cancelled`` answered True.
    """

    def __init__(self, bundle: Bundle, parameters: TrackerParameters, opening: Opening) -> None:
        self._bundle, self._values, self._out = bundle, parameters, opening.out
        self._build: EngineBuild | None = None
        self._halted = False  # a build was stopped, to be begun again
        self._ready = False  # engines were built, and ONNX Runtime still runs
        self._begun: _Begun | None = None
        self._tuning: dict[str, float] = {}
        self.broken: str | None = None
        try:
            self._session = self._opened(
                build=not parameters.build_in_background, cancelled=opening.cancelled
            )
        except EnginesMissingError as missing:
            self._session = self._meanwhile(missing, opening)
        problem = self._session.fallback
        changes = {} if self.building else {"engine_build": "failed" if problem else ""}
        self._out.status(True, backend_problem=problem or "", **changes)

    @property
    def description(self) -> str:
        """What runs where, for people."""
        return str(self._session.description)

    @property
    def building(self) -> bool:
        """Whether engines are being built."""
        return self._build is not None

    # --- the StatefulSession ------------------------------------------------------------------

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Begin a track, on the engines if they are ready; see ``BoundSession.start``."""
        begun = (template.copy(), search.copy(), size)
        result = self._start_on_engines(begun) if self._ready else None
        self._enter()
        if result is None:
            try:
                result = self._session.start(*begun)
            except (CudaError, EngineError) as error:
                result = self._leave_gpu(error, lambda session: session.start(*begun))
        self._begun = begun
        return result

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Search one crop; see ``BoundSession.step``."""
        self._enter()
        try:
            return self._session.step(search, previous_size, memory)
        except (CudaError, EngineError) as error:
            begun = self._begun
            if begun is None:
                raise

            def again(session: BoundSession) -> StepResult:
                session.start(*begun)
                return session.step(search, previous_size, memory)

            return self._leave_gpu(error, again)

    def commit(self) -> None:
        """Make the last step's new state current."""
        self._enter()
        self._session.commit()

    def set_tuning(self, name: str, value: float) -> None:
        """Set graph input ``tuning.<name>`` from the next step on."""
        self._enter()
        self._session.set_tuning(name, value)
        self._tuning[name] = value

    def warm_up(self) -> None:
        """Run both graphs once; the state stays."""
        self._enter()
        try:
            self._session.warm_up()
        except (CudaError, EngineError) as error:
            self._leave_gpu(error, lambda session: session.warm_up())

    def close(self) -> None:
        """Stop a build, and give everything back."""
        if self._build is not None:
            self._build.cancel()
            self._build = None
        self._session.close()

    def _enter(self) -> None:
        if self.broken is not None:
            raise BackendError(self.broken)

    # --- engines ------------------------------------------------------------------------------

    def tend(self, idle: bool) -> None:
        """Look after the build; the owner calls this several times a second while :attr:`building`.

        Args:
            idle: nothing is followed, so that engines may be taken over at once.
        """
        build = self._build
        if build is not None and build.done:
            self._build = None
            try:
                build.result()
            except BackendError as error:
                self._stand_in(f"its engines cannot be built: {error}")
                return
            self._ready = True
            if not idle:
                self._out.info(f"{self._bundle.name}: its TensorRT engines are {_READY}")
                self._out.status(True, engine_build=_READY)
        if self._ready and idle:
            engines = self._engines()
            if engines is not None:
                self._replace(engines)

    def halt_build(self) -> None:
        """Stop a build that runs; :meth:`resume_build` begins it again."""
        if self._build is None or self._build.done:
            return
        self._build.cancel()
        self._build, self._halted = None, True
        self._out.info(f"{self._bundle.name}: building its engines is {_HALTED}")
        self._out.status(True, engine_build=_HALTED)

    def resume_build(self) -> None:
        """Begin a build again that was halted."""
        if not self._halted:
            return
        self._halted = False
        try:
            self._begin_build()
        except EngineError as error:
            self._stand_in(str(error))

    def _opened(self, **changes: Any) -> BoundSession:
        """Open a session as the parameters say, but for ``changes``."""
        values = self._values
        given: dict[str, Any] = {
            "backend": values.backend,
            "intra_op_threads": values.intra_op_threads,
            "precision": values.precision,
            "cache_dir": values.cache_dir or None,
            "force_rebuild": values.force_rebuild,
            "allow_fallback": values.may_fall_back,
            "on_progress": self._reporter(),
            "log": self._out.info,
        }
        return open_session(self._bundle, **{**given, **changes})

    def _meanwhile(self, missing: EnginesMissingError, opening: Opening) -> BoundSession:
        """Return what runs while engines are built, and begin that."""
        try:
            session = self._opened(backend="onnxruntime")
        except BackendError as error:
            self._out.info(f"nothing can run before the engines are there: {error}")
            return self._opened(cancelled=opening.cancelled)
        try:
            self._out.info(f"{missing}; that is done beside tracking")
            self._begin_build()
        except EngineError as error:
            if not self._values.may_fall_back:
                session.close()
                raise
            session.fallback = str(error)
        return session

    def _begin_build(self) -> None:
        self._out.status(True, engine_build="begins")
        self._build = EngineBuild(
            self._bundle,
            self._values.precision,
            cache_dir=self._values.cache_dir or None,
            force=self._values.force_rebuild,
            on_progress=self._reporter(),
            say=self._out.info,
        )

    def _reporter(self) -> Callable[[BuildProgress], None]:
        """Return what tells of a build's progress: on the status, and now and then in the log."""
        log = log_now_and_then(self._out.info)

        def report(progress: BuildProgress) -> None:
            log(progress)
            precision = choose_precision(self._bundle, self._values.precision)
            share = "" if progress.fraction is None else f" {100 * progress.fraction:.0f} %"
            text = (
                f"{progress.graph} {precision}{share}: {progress.phase}, {progress.seconds:.0f} s"
            )
            self._out.status(True, engine_build=text)

        return report

    def _engines(self) -> BoundSession | None:
        """Open the engines that were built; None, and said, if they cannot be used."""
        self._ready = False
        try:
            engines = self._opened(build=False, force_rebuild=False, allow_fallback=False)
            try:
                engines.warm_up()
                self._tune(engines)
            except BaseException:
                engines.close()
                raise
        except Exception as error:  # a back end may raise anything; what runs goes on
            self._stand_in(f"its engines cannot be used: {error}")
            return None
        return engines

    def _start_on_engines(self, begun: _Begun) -> StepResult | None:
        """Begin a track on the engines that were built; None, and said, if they cannot be used."""
        engines = self._engines()
        if engines is None:
            return None
        try:
            result = engines.start(*begun)
        except BackendError as error:
            engines.close()
            self._stand_in(f"its engines cannot be used: {error}")
            return None
        self._replace(engines)
        return result

    def _leave_gpu(self, error: BackendError, do: Callable[[BoundSession], T]) -> T:
        """Do on ONNX Runtime what failed with ``error``, and stay there.

        Raises:
            BackendError: ``error`` if that is not allowed or there is none; what ``do`` raises.
        """
        reason = f"TensorRT failed while running: {error}"
        if not self._values.may_fall_back:
            self._break(reason)
            raise error
        try:
            session = self._opened(backend="onnxruntime")
        except BackendError as another:
            self._break(f"{reason}; nor does ONNX Runtime run: {another}")
            raise error from another
        try:
            self._tune(session)
            result = do(session)
        except BaseException:
            session.close()
            raise
        self._replace(session, backend_problem=reason)
        what = "" if self._begun is None else ", with the target as it was when it was selected"
        self._out.error(f"{self._bundle.name}: {reason}; ONNX Runtime goes on{what}")
        return result

    def _replace(self, session: BoundSession, **status: str) -> None:
        """Run on another session from now on."""
        before, self._session = self._session, session
        before.close()
        self._out.status(True, backend=session.description, engine_build="", **status)

    def _tune(self, session: BoundSession) -> None:
        for name, value in self._tuning.items():
            session.set_tuning(name, value)

    def _stand_in(self, problem: str) -> None:
        """ONNX Runtime runs, and there will be no engines: it stays, if that is allowed."""
        if not self._values.may_fall_back:
            self._break(problem)
            return
        self._out.error(f"{self._bundle.name}: {problem}; it stays on ONNX Runtime")
        self._out.status(True, engine_build="failed", backend_problem=problem)

    def _break(self, problem: str) -> None:
        """Nothing runs any more."""
        self.broken = f"{problem}; ONNX Runtime may not stand in (allow_fallback)"
        self._out.error(f"{self._bundle.name}: {self.broken}")
        self._out.status(True, engine_build="failed", backend_problem=self.broken, failed=True)
