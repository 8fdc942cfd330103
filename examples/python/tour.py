"""The README's tour with generated stubs. It makes what it shows, so it works once for each data folder."""

import argparse
import os
import pathlib
import types

# These three are the steps, in this order.
import accounts  # noqa: F401
import directory  # noqa: F401
import enrolment  # noqa: F401
from client import Caller
from mails import Mails
from steps import STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default=os.environ.get("TARGET", "127.0.0.1:50051"), help="the server's address")
    parser.add_argument(
        "--data",
        default=os.environ.get("DATA", "../../data"),
        help="the server's data folder, for the one-time password and the mails",
    )
    options = parser.parse_args()
    one_time = pathlib.Path(options.data, "first-administrator-password").read_text().strip()
    t = types.SimpleNamespace(nobody=Caller.dial(options.target), one_time=one_time, mails=Mails(options.data))
    for title, run in STEPS:
        print("==", title)
        run(t)


if __name__ == "__main__":
    main()
