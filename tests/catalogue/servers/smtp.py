"""A mail server for one test, which prints each command that it gets. Arguments: port, user, password, folder.

While the folder contains a file `no-noop`, it does not know the command NOOP; with `slow-noop`, its response takes a second.
"""

import asyncio
import os
import sys

from aiosmtpd.smtp import SMTP, AuthResult

port, user, password, folder = sys.argv[1:]


class Handler:
    async def handle_NOOP(self, server, session, envelope, arg):
        print("NOOP", flush=True)
        if os.path.exists(f"{folder}/slow-noop"):
            await asyncio.sleep(1)
        return "500 5.5.1 unknown command" if os.path.exists(f"{folder}/no-noop") else "250 OK"

    async def handle_DATA(self, server, session, envelope):
        print("DATA", flush=True)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, login):
    print("AUTH", flush=True)
    known = login.login == user.encode() and login.password == password.encode()
    return AuthResult(success=known, handled=False)


async def main():
    def connection():
        return SMTP(Handler(), authenticator=authenticate, auth_required=True, auth_require_tls=False)

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", int(port))
    await server.serve_forever()


asyncio.run(main())
