"""The command line: `python -m backend serve | reconstruct | export | scale | weights | evaluate | doctor | ...`.

Errors that a user can fix are one line and exit code 1; bugs show a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from . import logs
from .cli.options import add_fields, add_settings, chosen_engine
from .evaluation.benchmarks import BENCHMARKS, SUITES
from .server.process import WORKER_COMMAND
from .wire import TASKS, ClipSettings, UserError

#: Command -> (module in backend/cli, one line of help); the function has the command's name.
COMMANDS = {
    "serve": ("serve", "run the server that the add-on talks to"),
    "reconstruct": ("reconstruct", "turn a clip into a capture, without a server"),
    "localise": ("localise", "put a clip or an image into the world of a capture"),
    "export": ("others", "write a capture in another format"),
    "scale": ("scale", "measure how many metres the unit of a capture is, and note it in the capture"),
    "engines": ("others", "list the engines"),
    "weights": ("weights", "list, get and verify the weights that engines need"),
    "evaluate": ("evaluate", "compare a capture with the truth of its clip, or an engine with a benchmark"),
    "doctor": ("doctor", "tell what the backend finds on this machine, and what to do where something is wrong"),
    "ping": ("control", "say whether the server answers, and which one it is"),
    "stop": ("control", "end the server"),
    "jobs": ("jobs", "look at and change the jobs that this machine gave to its server"),
    "logs": ("logs", "show the log of the server or of a job"),
    "metrics": ("metrics", "show what the server counts: jobs, times of stages, memory, transfers"),
    "keys": ("keys", "let clients on other machines in, or throw them out"),
}
RUNS_WORKERS = ("serve", "reconstruct", "localise", "evaluate")


def main(arguments: Sequence[str] | None = None, worker_command: Sequence[str] = WORKER_COMMAND) -> int:
    """Run a command; its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser(arguments).parse_args(arguments)
    logs.to_terminal(getattr(options, "log_level", "info"))
    try:
        command: Callable[..., int] = getattr(
            import_module(f".cli.{COMMANDS[options.command][0]}", __package__), options.command
        )
        return command(options, worker_command) if options.command in RUNS_WORKERS else command(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read what we print has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; which options `reconstruct` has depends on the engine that the arguments name."""
    root = argparse.ArgumentParser(prog="python -m backend", description="Kinora's backend: 4D capture from video")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = {name: commands.add_parser(name, help=words, description=words) for name, (_, words) in COMMANDS.items()}

    add_serve(add["serve"])
    add["doctor"].add_argument("--json", action="store_true", help="tell a program, in one line")
    add["doctor"].add_argument("--port", type=int, default=0, help="a port that the server is meant to listen on")

    add_job_deeds(add["jobs"])
    for name in ("ping", "stop", "metrics", "jobs"):
        add[name].add_argument(
            "--connection", type=Path, metavar="FILE", help="of another server than the one on this machine"
        )
    how = add["stop"].add_mutually_exclusive_group()
    for word, words in (
        ("park", "stop the running jobs and queue them again, for the next start; the default"),
        ("drain", "once the running jobs are done"),
        ("now", "at once: what runs is killed, and goes on from its last finished stage with the next start"),
    ):
        how.add_argument(f"--{word}", action="store_const", dest="how", const=word, default="park", help=words)
    add["logs"].add_argument("--job", metavar="ID", help="the log of this job; the beginning of its id will do")
    add["logs"].add_argument("--follow", "-f", action="store_true", help="go on with what comes, until interrupted")
    add["logs"].add_argument("--level", choices=logs.LEVELS, default="debug", help="least that is shown (all)")
    add["metrics"].add_argument("--prometheus", action="store_true", help="in the text form that Prometheus reads")

    job = add["reconstruct"]
    job.add_argument("clip", type=Path, help="a video, a folder of images, or one image of a numbered sequence")
    job.add_argument("--out", type=Path, required=True, help="folder for the capture")
    job.add_argument("--poses", type=Path, help="TUM file of known camera poses, kept as they are")
    add_job(job)
    add_settings(job, chosen_engine(arguments))

    job = add["localise"]
    job.add_argument("capture", type=Path, help="folder of the capture")
    job.add_argument("clip", type=Path, metavar="plate", help="a video, a folder of images, or one image")
    job.add_argument("--out", type=Path, help="folder for the plate's own capture (beside the other one)")
    job.add_argument("--focal-px", type=float, help="focal length in pixels of the plate, in place of --focal-mm")
    add_job(job)
    add_fields(job, "localising", TASKS["localise"].settings, leave=("reference",))
    job.set_defaults(engine="localise", reference="", poses=None)

    add["export"].add_argument("capture", type=Path, help="folder of a capture")
    add["export"].add_argument("--format", required=True, help="ply, colmap, tum or glb")
    add["export"].add_argument("--out", type=Path, required=True, help="folder for the files")

    add["scale"].add_argument("capture", type=Path, help="folder of a capture that is not metric")
    add["scale"].add_argument("--frames", type=int, default=12, metavar="N", help="how many frames are looked at (12)")
    add["scale"].add_argument(
        "--device", default="auto", help="what the network runs on: cpu, cuda (the best there is)"
    )

    deeds = add["weights"].add_subparsers(dest="deed", metavar="list | get | verify")
    for deed, words in (
        ("list", "what there is, with size, terms and whether it is here"),
        ("get", "download weights, or take them from a file; what is here already is only checked"),
        ("verify", "hold the files against their checksums"),
    ):
        deeds.add_parser(deed, help=words, description=words)
    for deed, parser_of_deed in deeds.choices.items():
        parser_of_deed.add_argument(
            "--folder", type=Path, help="where weights are kept (KINORA_WEIGHTS, or in Kinora's)"
        )
        if deed == "list":
            parser_of_deed.add_argument("--json", action="store_true", help="tell a program, in one line")
        else:
            parser_of_deed.add_argument(
                "names", nargs="+" if deed == "get" else "*", metavar="NAME", help="which weights"
            )
    get = deeds.choices["get"]
    get.add_argument("--accept-licence", action="store_true", help="accept a licence that forbids commercial use")
    get.add_argument(
        "--from", type=Path, dest="source", metavar="PATH", help="take this file or folder, do not download"
    )
    get.add_argument("--in-place", action="store_true", help="with --from: use the file where it is, do not copy it")
    get.add_argument("--offline", action="store_true", help="take what other programs downloaded, or fail")

    add_evaluate(add["evaluate"], arguments)

    deeds = add["keys"].add_subparsers(dest="deed", required=True, metavar="new | allow | list | revoke")
    for deed, words in (
        ("new", "print a pairing code: one line that lets one client in, to be pasted in its add-on"),
        ("allow", "let in a client that has a key of its own, which its add-on shows"),
        ("list", "who is let in, since when, and when they came last"),
        ("revoke", "let a client in no more, and throw it out where it is connected"),
    ):
        deeds.add_parser(deed, help=words, description=words)
    new, allow, revoke = (deeds.choices[deed] for deed in ("new", "allow", "revoke"))
    allow.add_argument("public_key", metavar="PUBLIC_KEY", help="what the add-on copied")
    revoke.add_argument("who", metavar="NAME|PUBLIC_KEY", help="as 'keys list' shows it")
    for deed_parser in (new, allow):
        deed_parser.add_argument("name", metavar="NAME", help="what to call the client")
        deed_parser.add_argument(
            "--host", required=deed_parser is new, help="name or address by which the client reaches this machine"
        )
        deed_parser.add_argument("--port", type=int, help="port that it reaches (that of the server that runs)")
    new.add_argument("--out", type=Path, metavar="FILE", help="write a connection file instead of printing the code")
    return root


def add_job(parser: argparse.ArgumentParser) -> None:
    """What every job without a server can be told."""
    parser.add_argument("--masks", type=Path, help="folder of known masks, one for each frame used; white moves")
    parser.add_argument("--intrinsics", type=Path, help="known fx fy cx cy in plate pixels, one row or one a frame")
    add_running(parser)


def add_running(parser: argparse.ArgumentParser) -> None:
    """How jobs without a server run."""
    parser.add_argument("--device", default="auto", help="what networks run on: cpu, cuda, cuda:1 (the best there is)")
    parser.add_argument("--replace", action="store_true", help="replace an earlier capture in the folder")
    parser.add_argument(
        "--no-cache",
        action="store_false",
        dest="cache",
        help="compute everything anew, and keep nothing for later jobs",
    )


def add_evaluate(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """What `evaluate` can be told: with --suite it is about a benchmark, without about one capture."""
    chosen = any(word.partition("=")[0] == "--suite" for word in arguments)
    parser.add_argument(
        "--suite",
        choices=SUITES,
        required=chosen,
        help="measure the sequences of a benchmark (other options then: see --suite pose --help)",
    )
    if chosen:
        parser.add_argument("folder", type=Path, help="the folder that the benchmark was unpacked to")
        parser.add_argument("--benchmark", choices=list(BENCHMARKS), required=True, help="how the folder is laid out")
        parser.add_argument(
            "--out",
            type=Path,
            required=True,
            help="folder of captures, one for each sequence, made where they are missing; the figures are written here",
        )
        parser.add_argument("--sequences", default="", metavar="A,B", help="only these (those that papers take)")
        parser.add_argument("--every", type=int, default=0, metavar="N", help="take every n-th frame (as papers do)")
        parser.add_argument("--most", type=int, default=0, metavar="N", help="take at most n frames (as papers do)")
        add_running(parser)
        frames = ("first_frame", "last_frame", "frame_step")
        add_settings(parser, chosen_engine(arguments), leave=frames, or_none=True)
        parser.set_defaults(**{name: getattr(ClipSettings(), name) for name in frames})
        return
    parser.add_argument("capture", type=Path, help="folder of a capture")
    parser.add_argument(
        "truth", type=Path, nargs="?", help="truth.npz, or a folder with poses.txt, depth or masks of the clip"
    )
    parser.add_argument("--poses", type=Path, help="true cameras: TUM file, camera to world, OpenCV axes")
    parser.add_argument("--depth", type=Path, help="true depth: .npy, .npz, or a folder of .npy or .png")
    parser.add_argument("--depth-scale", type=float, help="what a depth of 1 is in the .png files")
    parser.add_argument("--max-depth", type=float, default=float("inf"), help="leave out what is farther")
    parser.add_argument("--masks", type=Path, help="true masks: folder of images, not black where it moves")


def add_serve(parser: argparse.ArgumentParser) -> None:
    """What `serve` can be told."""
    reach = parser.add_argument_group("who reaches it")
    reach.add_argument("--host", default="127.0.0.1", help="address to listen on (this machine only)")
    reach.add_argument("--port", type=int, default=0, help="port to listen on (a free one)")
    reach.add_argument("--allow-remote", action="store_true", help="let other machines reach the server")

    where = parser.add_argument_group("where jobs run")
    where.add_argument(
        "--devices",
        default="auto",
        metavar="NAMES",
        help="one job at a time on each: cuda:0,cuda:1, or cpu, or all for every card (the best there is)",
    )
    where.add_argument("--executor", choices=("local", "ray"), default="local", help="here or on a Ray cluster (here)")
    where.add_argument(
        "--ray-address", default="auto", metavar="HOST:PORT", help="of the cluster's head (the one this machine is in)"
    )

    kept = parser.add_argument_group("what is kept")
    kept.add_argument(
        "--keep-days", type=float, default=14, metavar="DAYS", help="jobs are forgotten when unused so long (14)"
    )
    kept.add_argument("--quota-gb", type=float, metavar="GIB", help="room for each client's results (all there is)")

    running = parser.add_argument_group("how it runs")
    running.add_argument(
        "--on-stop",
        choices=("park", "finish"),
        default="park",
        help="at a signal: stop the running jobs and go on with them at the next start, or finish them first; "
        "a second signal ends them (park)",
    )
    running.add_argument("--log-level", choices=logs.LEVELS, default="info", help="least that is logged (info)")


def add_job_deeds(parser: argparse.ArgumentParser) -> None:
    """What `jobs` can do."""
    deeds = parser.add_subparsers(dest="deed", required=True, metavar="DEED")
    for deed, words in (
        ("list", "all of them, oldest first"),
        ("cancel", "stop jobs that wait or run"),
        ("delete", "forget jobs that are over, with their files on the server"),
        ("pin", "keep jobs until they are deleted, however old or large"),
        ("priority", "let jobs wait with another priority"),
        ("usage", "what the jobs take on the server's disk"),
    ):
        deed_parser = deeds.add_parser(deed, help=words, description=words)
        if deed == "priority":
            deed_parser.add_argument(
                "priority", type=int, choices=range(-9, 10), metavar="N", help="-9 to 9; higher goes first"
            )
        if deed == "pin":
            deed_parser.add_argument("--off", action="store_true", help="keep them no longer than others")
        if deed not in ("list", "usage"):
            deed_parser.add_argument("names", nargs="+", metavar="ID", help="id of a job; its beginning will do")


if __name__ == "__main__":
    sys.exit(main())
