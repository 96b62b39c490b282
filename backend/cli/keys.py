"""`keys`: let clients of other machines in, by a pairing code or by their own key, list them, throw them out."""

from __future__ import annotations

import argparse
import sys
import time

from ..server.keys import AuthorizedKeys, load_keys, new_client
from ..server.private import make_safe
from ..wire import Connection, UserError, connection, paths


def keys(options: argparse.Namespace) -> int:
    """Do what `options.deed` says. On standard output is only what is to be passed on; advice goes beside it."""
    home = make_safe(paths.home())
    return {"new": _new, "allow": _allow, "list": _list, "revoke": _revoke}[options.deed](home, options)


def _new(home, options: argparse.Namespace) -> int:
    address = _address(home, options)
    if options.out is not None and options.out.exists():
        raise UserError(f"{options.out} exists", "choose another name; a key is for one client")
    made = new_client(home, options.name, address)
    if options.out is not None:
        try:
            made.write(options.out.absolute())
        except OSError as error:
            AuthorizedKeys(home).revoke(options.name)
            raise UserError(f"{options.out} cannot be written ({error.strerror})", "choose another folder") from error
        _advise(f"{options.out} lets {options.name} in; bring it there by a safe way: whoever has it can use it")
    else:
        print(made.to_code())
        _advise(f"This line lets {options.name} in; send it by a safe way: whoever has it can use it")
    return 0


def _allow(home, options: argparse.Namespace) -> int:
    key = connection.key_of_code(options.public_key)
    code = _code_without_key(home, options) if options.host else ""
    AuthorizedKeys(home).allow(key, options.name)
    if code:
        print(code)
        _advise(f"{options.name} is let in; this line tells the client the address, it is no secret")
    else:
        _advise(f"{options.name} is let in; add --host for the pairing code that tells the client the address")
    return 0


def _list(home, _: argparse.Namespace) -> int:
    clients = AuthorizedKeys(home).clients()
    for client in clients:
        seen = time.strftime("%Y-%m-%d %H:%M", time.localtime(client.seen)) if client.seen else "never"
        key = connection.code_of_key(client.key)
        print(f"{client.name or '(no name)':20} added {client.added or '?':10}  last seen {seen:16}  {key}")
    if not clients:
        _advise("no client of another machine is let in")
    return 0


def _revoke(home, options: argparse.Namespace) -> int:
    who = options.who
    gone = AuthorizedKeys(home).revoke(connection.key_of_code(who) if who.startswith(connection.KEY_CODE) else who)
    _advise(f"{gone.name or gone.key} is let in no more, and thrown out where it is connected; its jobs stay")
    return 0


def _code_without_key(home, options: argparse.Namespace) -> str:
    return Connection(_address(home, options), load_keys(home).server_public, "", "").to_code()


def _address(home, options: argparse.Namespace) -> str:
    """tcp://host:port as the client reaches the server; without --port that of the server that runs."""
    port = options.port
    if port is None:
        try:
            port = int(Connection.read(paths.connection_file(home)).address.rpartition(":")[2])
        except UserError as error:
            raise UserError(
                "No server runs here that could tell its port", "add --port as in 'serve --port'"
            ) from error
    host = f"[{options.host}]" if ":" in options.host and not options.host.startswith("[") else options.host
    address = f"tcp://{host}:{port}"
    if not connection.is_address(address):
        raise UserError(f"{options.host}:{port} is not an address", "--host takes a name or an IP address, no port")
    return address


def _advise(text: str) -> None:
    print(text, file=sys.stderr)
