"""All that a program needs beside the generated stubs: whom it calls as, repetitions that are safe, and the reason of a refusal."""

from __future__ import annotations

import collections
import dataclasses
import json
import time
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from entente.access.v1 import reason_pb2

# No call waits for ever; a deadline is handed to the server too. A stream to the server has one as a whole, and may have much to send; one from
# the server may be watched without an end.
DEADLINE_S = 30
STREAM_DEADLINE_S = 3600

# What gRPC repeats by itself: calls that the server couldn't take or whose connection broke. Every mutation carries a request_id, so one
# that was done before the connection broke isn't done twice; it gets the first answer.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class Caller:
    """Makes calls as somebody, or as nobody: `caller.of(UserServiceStub).GetUser(…)`."""

    def __init__(self, channel: grpc.Channel, headers: tuple[tuple[str, str], ...] = ()):
        self._channel = channel
        self._headers = headers
        self._intercepted = grpc.intercept_channel(channel, _Outgoing(headers))

    @classmethod
    def dial(cls, target: str) -> Caller:
        """Nobody at a server. Nothing is connected before the first call.

        The server speaks HTTP/2 without TLS; what ends TLS before it in production wants `grpc.secure_channel` here.
        """
        return cls(grpc.insecure_channel(target, options=[("grpc.service_config", json.dumps(_RETRIES))]))

    def of(self, stub):
        """A service's client."""
        return stub(self._intercepted)

    def as_(self, access_token: str) -> Caller:
        """Whoever has an access token, over the same connection."""
        return Caller(self._channel, (("authorization", f"Bearer {access_token}"),))

    def on_behalf_of(self, access_token: str, address: str) -> Caller:
        """An internal service that acts for a person, with the person's token beside its own, and says from where the person calls."""
        person = (("entente-on-behalf", f"Bearer {access_token}"), ("entente-client-address", address))
        return Caller(self._channel, self._headers + person)


_DETAILS = ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression")


class _Details(collections.namedtuple("_Details", _DETAILS), grpc.ClientCallDetails):
    pass


class _Outgoing(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Adds the headers, the deadline, and the request_id of a mutation that has none (AIP-155); repeats what came too often, once it may come.

    Messages of a stream have one already: it stands for the run, and a sequence for the place in it. So a stream can be sent again too.
    """

    def __init__(self, headers: tuple[tuple[str, str], ...]):
        self._headers = headers

    def _details(self, details: grpc.ClientCallDetails, deadline_s: float | None) -> _Details:
        all_of_it = {name: getattr(details, name, None) for name in _DETAILS}
        all_of_it["metadata"] = (*(details.metadata or ()), *self._headers)
        if details.timeout is None:
            all_of_it["timeout"] = deadline_s
        return _Details(**all_of_it)

    def intercept_unary_unary(self, continuation, client_call_details, request):
        if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            request.request_id = new_request_id()
        details = self._details(client_call_details, DEADLINE_S)
        until = time.monotonic() + details.timeout
        while True:
            call = continuation(details, request)
            wait_s = _wait_s(call)
            details = details._replace(timeout=until - time.monotonic() - wait_s)
            if not wait_s or details.timeout <= 0:
                return call
            time.sleep(wait_s)

    def intercept_unary_stream(self, continuation, client_call_details, request):
        return continuation(self._details(client_call_details, None), request)

    def intercept_stream_unary(self, continuation, client_call_details, request_iterator):
        return continuation(self._details(client_call_details, STREAM_DEADLINE_S), request_iterator)


def _wait_s(call: grpc.Call) -> float:
    """How long a call that came too often is to wait, in seconds; 0 for every other one. Waits for its answer."""
    if call.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return 0
    refusal = refusal_of(call)
    return refusal.wait_s if refusal else 0


def new_request_id() -> str:
    """A random UUID. A program that may itself be started again between two tries keeps it with its work."""
    return str(uuid.uuid4())


def replayed(call: grpc.Call) -> bool:
    """Whether an answer was given before, to the same request_id; the call is what `with_call` gives."""
    return ("entente-replayed", "true") in call.initial_metadata()


@dataclasses.dataclass
class Refusal:
    """Why a call failed. Programs decide by code and reason, never by text."""

    code: grpc.StatusCode
    #: A number of the enum ErrorReason; one that is newer than this program is 0 to it, and the code still says what to do.
    reason: int = reason_pb2.ERROR_REASON_UNSPECIFIED
    #: What the reason speaks of, such as "permission".
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    #: What is wrong with the request, field by field; the descriptions are for people.
    violations: list[error_details_pb2.BadRequest.FieldViolation] = dataclasses.field(default_factory=list)
    #: When it may be tried again, in seconds.
    wait_s: float = 0
    #: For people, in the language asked for.
    text: str = ""

    @property
    def fields(self) -> list[str]:
        """The fields that are wrong, one for each violation."""
        return [violation.field for violation in self.violations]

    def __str__(self) -> str:
        reason = reason_pb2.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")
        wrong = "; ".join(f"{violation.field} {violation.description}" for violation in self.violations)
        return f"{self.code.name} {reason}: {self.text}" + (f" ({wrong})" if wrong else "")


def refusal_of(error: grpc.Call) -> Refusal | None:
    """Reads a call's error: google.rpc.ErrorInfo is always among its details, the others where they fit.

    None for an error that isn't this service's, such as a broken connection.
    """
    status = rpc_status.from_call(error)
    if status is None:
        return None
    refusal, known = Refusal(error.code()), False
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, message = error_details_pb2.RetryInfo(), error_details_pb2.LocalizedMessage()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == "entente":
            known = True
            refusal.reason = dict(reason_pb2.ErrorReason.items()).get(f"ERROR_REASON_{info.reason}", 0)
            refusal.metadata = dict(info.metadata)
        elif detail.Unpack(bad):
            refusal.violations = list(bad.field_violations)
        elif detail.Unpack(retry):
            refusal.wait_s = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(message):
            refusal.text = message.message
    return refusal if known else None
