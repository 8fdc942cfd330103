"""All that a program needs beside the generated stubs: whom it calls as, repetitions that are safe, and the reason of a refusal."""

from __future__ import annotations

import collections
import dataclasses
import json
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from entente.access.v1 import reason_pb2

# No call waits for ever; a deadline is handed to the server too.
DEADLINE_S = 30

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


class _Outgoing(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the headers, the deadline, and the request_id of a mutation that has none (AIP-155)."""

    def __init__(self, headers: tuple[tuple[str, str], ...]):
        self._headers = headers

    def _details(self, details: grpc.ClientCallDetails) -> _Details:
        all_of_it = {name: getattr(details, name, None) for name in _DETAILS}
        all_of_it["metadata"] = (*(details.metadata or ()), *self._headers)
        return _Details(**all_of_it)

    def intercept_unary_unary(self, continuation, client_call_details, request):
        details = self._details(client_call_details)
        if details.timeout is None:
            details = details._replace(timeout=DEADLINE_S)
        if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            request.request_id = new_request_id()
        return continuation(details, request)

    def intercept_unary_stream(self, continuation, client_call_details, request):
        return continuation(self._details(client_call_details), request)


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
    #: The fields that are wrong.
    fields: list[str] = dataclasses.field(default_factory=list)
    #: When it may be tried again, in seconds.
    wait_s: float = 0
    #: For people, in the language asked for.
    text: str = ""

    def __str__(self) -> str:
        reason = reason_pb2.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")
        fields = f" ({', '.join(self.fields)})" if self.fields else ""
        return f"{self.code.name} {reason}: {self.text}{fields}"


def refusal_of(error: grpc.RpcError) -> Refusal | None:
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
            refusal.fields = [violation.field for violation in bad.field_violations]
        elif detail.Unpack(retry):
            refusal.wait_s = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(message):
            refusal.text = message.message
    return refusal if known else None
