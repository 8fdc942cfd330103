"""What the steps of the tour have in common: their list, calls that have to fail, ways to sign in."""

import contextlib

import grpc

from client import refusal_of
from entente.access.v1 import access_pb2
from entente.directory.v1 import session_pb2
from services import Access, Sessions

#: What the tour does, in order; later steps use what earlier ones left in `t`. A further step is a function with a title.
STEPS = []


def step(title):
    def add(function):
        STEPS.append((title, function))
        return function

    return add


@contextlib.contextmanager
def refused(code, reason):
    """A call that has to fail, for this reason; gives a list that holds the refusal afterwards. With another outcome the tour ends."""
    told = []
    try:
        yield told
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        if refusal is None or (refusal.code, refusal.reason) != (code, reason):
            raise
        print("refused:", refusal)
        told.append(refusal)
    else:
        raise AssertionError("this should have been refused")


def expect(holds, what):
    """Ends the tour where something isn't as the documents say."""
    if not holds:
        raise AssertionError(f"it does not hold: {what}")


def sign_in(nobody, name, password):
    """An access token, good for 15 minutes."""
    credential = session_pb2.PasswordCredential(sign_in_name=name, password=password)
    return nobody.of(Sessions).SignIn(session_pb2.SignInRequest(password=credential)).access_token


def settle_in(nobody, name, temporary, password):
    """Signs in with a temporary password and chooses another; the tokens from before are good for nothing else."""
    restricted = nobody.as_(sign_in(nobody, name, temporary))
    request = session_pb2.ChangePasswordRequest(old_password=temporary, new_password=password)
    return restricted.of(Sessions).ChangePassword(request).tokens.access_token


def sign_in_by_key(nobody, client_id, secret):
    """How applications sign in."""
    credential = session_pb2.KeyCredential(client_id=client_id, secret=secret)
    return nobody.of(Sessions).SignIn(session_pb2.SignInRequest(key=credential)).access_token


def who_am_i(caller):
    return caller.of(Sessions).WhoAmI(session_pb2.WhoAmIRequest())


def may(caller, resource, *permissions):
    """Which of these the caller has there, as a page asks that shows its buttons."""
    request = access_pb2.TestMyPermissionsRequest(resource=resource, permissions=permissions)
    now = list(caller.of(Access).TestMyPermissions(request).permissions)
    print("may", now)
    return now
