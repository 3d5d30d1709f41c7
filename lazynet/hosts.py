"""Coordinate the hosts that run a program: share values, report errors to all hosts, and detect lost hosts.

Hosts exchange short messages through the key-value store of `jax.distributed`, because a collective operation on
devices would wait forever for a host that fails before entering it. On each host, a background thread regularly tells
the other hosts that this host is alive, and terminates the process if a collective operation is waiting for a host that
has stopped. On a single host, this module does nothing.
"""

import atexit
import ctypes
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import jax

# Seconds between a host's heartbeats, and seconds without a heartbeat after which a host is considered lost. JAX's own
# limit is 100 seconds.
BEAT, SILENCE = 2.0, 30.0
# Time limit, in seconds, for the main thread to react to a stopped host. After that, the background thread ends the
# process.
GRACE = 10.0
# Seconds to wait for the other hosts when JAX shuts down. If host 0 exited before the others, JAX would abort them.
LEAVING = 20.0
# Exit code of a process that ends because another host stopped or was lost.
FAILED = 2


class HostStopped(ConnectionError):
    """Raised on all remaining hosts when one host stops or is lost."""


def several() -> bool:
    """Return whether this process is one of several hosts."""
    return jax.distributed.is_initialized() and _state().num_processes > 1


def is_first() -> bool:
    """Return whether this is the first host, which reads and writes all files.

    Returns:
        True on the first host, or if there is only one host.
    """
    return not several() or _state().process_id == 0


def agreed(value: Any) -> Any:
    """Return the first host's value on every host.

    Args:
        value: JSON-compatible value. Only the first host's value matters.

    Returns:
        The value from the first host.
    """
    return _connected().exchange("agreed", value if is_first() else None)[0] if several() else value


def of_all(value: Any) -> list[Any]:
    """Return the values of all hosts.

    Args:
        value: JSON-compatible value of this host.

    Returns:
        One value for each host, in the order of the hosts.
    """
    return _connected().exchange("of_all", value) if several() else [value]


@contextmanager
def together() -> Iterator[None]:
    """Return a context manager that raises an error on every host if its body fails on any of them.

    If the body does not fail on this host, the context manager waits until every host has finished its body. The body
    itself must not wait for other hosts.

    Raises:
        HostStopped: If the body succeeds on this host, but another host fails, stops or is lost.
    """
    if not several():
        yield
        return
    group = _connected()
    with _telling():
        try:
            yield
        except Exception as error:
            # Tell the other hosts, which wait at the end of the `with` body, about the error. If another host has
            # stopped as well, this host still raises its own error.
            with suppress(HostStopped):
                group.exchange("together", _description(error))
            raise
    errors = group.exchange("together", "")
    for host, event in enumerate(errors):
        if event:
            raise HostStopped(f"Host {host} stopped: {event}")


@contextmanager
def working() -> Iterator[None]:
    """Return a context manager that tells the other hosts if its body raises an error.

    Unlike the body of `together`, this body may wait for other hosts.

    Raises:
        HostStopped: If the body fails because another host stopped or was lost.
    """
    if not several():
        yield
        return
    group = _connected()
    with _telling():
        group.works = True
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            # A collective operation fails as soon as a connection closes. Wait to hear what happened to the other host.
            group.check(SILENCE + 2 * BEAT, error)
            group.stop(error)
            raise
        except Exception as error:
            group.stop(error)
            raise
        finally:
            group.works = False


def stop(error: BaseException) -> None:
    """Tell the other hosts that this host is stopping because of an error, unless another host caused the error.

    Args:
        error: The error.
    """
    if several():
        _group().stop(error)


@contextmanager
def _telling() -> Iterator[None]:
    """Tell the other hosts if this host is interrupted."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        _group().stop(error)
        raise


def _description(error: BaseException) -> str:
    """Return the type and message of an error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _state() -> Any:
    """Return JAX's internal record of the hosts, which `jax.distributed` does not make public."""
    from jax._src import distributed

    return distributed.global_state


@cache
def _group() -> "_Group":
    return _Group()


@cache
def _connected() -> "_Group":
    """Return the group of hosts, after making JAX connect the devices of all hosts."""
    group = _group()
    group.works = True
    jax.devices()
    group.works = False
    return group


class _Group:
    """The group of hosts, as seen from this host.

    Attributes:
        reason: Sentence that says which host stopped and why, or an empty string.
        works: Whether this host may be waiting in a collective operation.
    """

    def __init__(self) -> None:
        """Start telling the other hosts that this host is alive."""
        state = _state()
        self._client, self._me, self._count = state.client, state.process_id, state.num_processes
        self._address, self._number, self._beat, self._end = state.coordinator_address, 0, 0, threading.Event()
        self._lock = threading.Lock()
        self.reason, self.works = "", False
        # What has happened to this host, if anything; whether another host has been lost; and whether an error has been
        # raised because of `reason`.
        self._own, self._lost, self._noticed = "", False, False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        if self._me:
            # JAX aborts the process as soon as the connection to the first host closes, and this cannot be disabled.
            # The SIGABRT handler can safely run Python code, because it runs in the thread that calls abort().
            self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._on_abort)
            ctypes.CDLL(None).signal(int(signal.SIGABRT), self._handler)

    def exchange(self, purpose: str, value: Any) -> list[Any]:
        """Return the values of all hosts; all hosts must make the same calls in the same order.

        Args:
            purpose: Name of the call, which must be the same on all hosts.
            value: JSON-compatible value of this host.

        Raises:
            HostStopped: If a host stops before it provides its value.
            ValueError: If the hosts' calls differ.
        """
        if self._own or self._noticed:
            raise HostStopped(f"{self.reason or f'This host {self._own}.'} Restart all hosts.")
        number, self._number = self._number, self._number + 1
        self._client.key_value_set(_key(number, self._me), json.dumps([purpose, value]))
        texts = [json.loads(self._text(number, host)) for host in range(self._count)]
        # Every host has now provided a value for this exchange, and has therefore read the values of the previous one.
        if number:
            self._client.key_value_delete(_key(number - 1, self._me))
        if any(text[0] != purpose for text in texts):
            raise ValueError("All hosts must make the same calls in the same order, but their calls differ.")
        return [text[1] for text in texts]

    def check(self, seconds: float = 0.0, cause: BaseException | None = None) -> None:
        """Raise an error if another host has already stopped or been lost, or if this happens within the given time.

        Args:
            seconds: Time to wait, in seconds.
            cause: Exception that led to this check, or None. It becomes the cause of the raised error.

        Raises:
            HostStopped: If another host has stopped or been lost.
        """
        end = time.monotonic() + seconds
        while not self.reason and time.monotonic() < end:
            time.sleep(BEAT / 10)
        if self.reason:
            self._noticed = True
            raise HostStopped(self.reason) from cause

    def stop(self, error: BaseException) -> None:
        """Tell the other hosts that this host is stopping because of an error, unless another host caused the error."""
        if not isinstance(error, HostStopped):
            self._publish(f"stopped: {_description(error)}")

    def leave(self) -> None:
        """Tell the other hosts that this process is ending."""
        self._end.set()
        # If the background thread is about to end the process, it does so during this wait.
        self._thread.join(LEAVING + GRACE)
        if not several():
            return
        # Python sets `sys.last_value` to the uncaught exception, if there is one.
        error = getattr(sys, "last_value", None)
        if isinstance(error, BaseException):
            self.stop(error)
        self._publish("ended before the work was done")
        if self._noticed or self._lost:
            # JAX's own shutdown would wait several minutes for a lost host.
            self._depart(at_exit=True)

    def _text(self, number: int, host: int) -> str:
        """Wait for the message that a host provides in an exchange, and return it."""
        while True:
            try:
                return str(self._client.blocking_key_value_get(_key(number, host), 1000))
            except jax.errors.JaxRuntimeError as error:
                self.check()
                if "DEADLINE_EXCEEDED" not in str(error):
                    time.sleep(BEAT)

    def _publish(self, event: str = "") -> None:
        """Publish a heartbeat, together with the first event that was reported for this host, if any."""
        with self._lock, suppress(jax.errors.JaxRuntimeError):
            self._own, self._beat = self._own or event, self._beat + 1
            text = json.dumps([self._beat, self._own])
            self._client.key_value_set(_state_key(self._me), text, allow_overwrite=True)

    def _watch(self) -> None:
        """Publish heartbeats and watch the other hosts until the process ends."""
        heard: dict[int, tuple[str, float]] = {}
        since = float("inf")
        while several() and not self._end.is_set():
            self._publish()
            self.reason = self.reason or self._hear(heard)
            if self.reason:
                since = min(since, time.monotonic())
                if self.works and not self._noticed and time.monotonic() - since > GRACE:
                    print(f"lazynet: {self.reason}", file=sys.stderr, flush=True)
                    # Suppress the traceback that the main thread would print if its collective operation failed now.
                    sys.stderr = io.StringIO()
                    self._depart()
            self._end.wait(BEAT)

    def _hear(self, heard: dict[int, tuple[str, float]]) -> str:
        """Return a sentence about a host that has stopped or is lost, or an empty string if there is no such host.

        Args:
            heard: The last message from each host and the time at which it arrived; updated in place.
        """
        texts: dict[str, str] = {}
        with suppress(jax.errors.JaxRuntimeError):
            texts = dict(self._client.key_value_dir_get(_state_key("")))
        events, now = [], time.monotonic()
        for host in range(self._count):
            text = texts.get(_state_key(host))
            if host != self._me and text is not None and text != heard.get(host, ("", 0))[0]:
                heard[host] = text, now
                events.append((host, json.loads(text)[1]))
        for host, event in sorted(events, key=lambda event: event[1], reverse=True):
            if event:
                return f"Host {host} {event}" + "." * (not event.endswith("."))
        for host, (_, last) in heard.items():
            if now - last > SILENCE:
                self._lost = True
                return f"Host {host} was lost: it has been silent for {SILENCE:g} seconds."
        return ""

    def _on_abort(self, number: int) -> None:
        """If JAX aborts the process because a host stopped or was lost, print the reason and end the process."""
        if not self.reason and self._reachable():
            return
        sentence = self.reason or "Host 0 was lost: its connection closed."
        os.write(2, f"lazynet: {sentence}\n".encode())
        os._exit(FAILED)

    def _reachable(self) -> bool:
        """Return whether the first host accepts connections."""
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError:
            return False
        return True

    def _depart(self, at_exit: bool = False) -> None:
        """Disconnect from the other hosts, and end this process unless it is exiting anyway and disconnects in time."""
        if not self._lost:
            leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
            leaving.start()
            leaving.join(LEAVING)
            if at_exit and not leaving.is_alive():
                return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(FAILED)


def _key(number: int, host: int) -> str:
    return f"lazynet/exchange/{number}/{host}"


def _state_key(host: int | str) -> str:
    return f"lazynet/state/{host}"


@atexit.register
def _leave() -> None:
    # JAX disconnects from the other hosts in an exit handler that runs after this one, so this process can still tell
    # them that it is exiting.
    if several() or _group.cache_info().currsize:
        _group().leave()
