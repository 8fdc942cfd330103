"""Mails with links: without another transport the server writes each into a file of its data folder."""

import email
import email.policy
import pathlib
import re
import time

# A mail goes out after the call that causes it has answered.
WAIT_S = 15


class Mails:
    """The mails in a server's data folder."""

    def __init__(self, data):
        self._folder = pathlib.Path(data, "mails")
        self._used = set()

    def token_for(self, address):
        """The token of the newest mail to an address, which is used once; waits for a mail that isn't there yet."""
        deadline = time.monotonic() + WAIT_S
        while True:
            # The files' names are UUIDv7s, which begin with the time.
            for file in sorted(self._folder.glob("*.eml"), reverse=True):
                token = None if file in self._used else _token(file, address)
                if token:
                    self._used.add(file)
                    return token
            if time.monotonic() > deadline:
                raise TimeoutError(f"no mail with a token came to {address}")
            time.sleep(0.1)


def _token(file, address):
    """The token in a mail, if it is one to that address."""
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    if address not in (to.addr_spec for to in mail["to"].addresses):
        return None
    found = re.search(r"\bentl_[\w-]+", mail.get_body(("plain",)).get_content())
    return found and found.group()
