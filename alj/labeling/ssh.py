"""A command on another machine, or under a scheduler: only ssh, its input and its output are used.

Each call has a folder there that is named by what is computed. Whoever asks again, after the
connection dropped or the laptop slept, finds it: a finished job is fetched, one that is in the
queue is waited for, and nothing is submitted twice. A visit is one shell script, sent whole and
run only when all of it has arrived; the job itself says that it is finished by writing
`exit_status`. Whatever the connection does meanwhile, the job goes on.
"""

import contextlib
import hashlib
import re
import shlex
import subprocess
import uuid
from collections.abc import Callable
from typing import NamedTuple

from alj.labeling.output import kind_of
from alj.types import BadInput, LabelingFailed

INPUT, OUTPUT = "input.extxyz", "output.extxyz"

VISIT_SECONDS = 300
"""How long one visit waits for a job; then the next one begins."""

SILENCE_SECONDS = 120
"""A visit that takes so much longer than it should has lost its connection."""

GRACE_SECONDS = 10
"""For `exit_status` to appear on a slow file system after the scheduler says that a job ended."""


class Place(NamedTuple):
    """Where commands run, and how they get there; see `command`."""

    host: str
    submit: str
    job_header: tuple[str, ...]
    remote_folder: str
    clean_up: str
    ssh: str

    @property
    def here(self) -> bool:
        """Whether commands are simply run by this process."""
        return not self.host and not self.submit


class Ran(NamedTuple):
    """What a call left: exit status, its output (None without), its last words, its folder."""

    status: int
    output: str | None
    log: str
    folder: str = ""


def place_of(
    host: str,
    submit: str,
    job_header: tuple[str, ...],
    remote_folder: str,
    clean_up: str,
    ssh: str,
) -> Place:
    """The checked settings of a place. Raises BadInput."""
    if submit and "{script}" not in submit:
        raise BadInput(f"submit: expected a command with {{script}} in it, found {submit!r}")
    if re.search(r"[\"`\\\n]", remote_folder) or not remote_folder.strip():
        raise BadInput(f"remote_folder: expected a path without quotes, found {remote_folder!r}")
    if host.startswith("-") or any(character.isspace() for character in host):
        raise BadInput(f"host: expected a destination such as me@cluster, found {host!r}")
    if host and not shlex.split(ssh):
        raise BadInput("ssh: expected a program, found an empty text")
    if any("\n" in line for line in job_header):
        raise BadInput("job_header: expected one line in each entry of the list")
    folder = re.sub(r"^~(?=/|$)", "$HOME", remote_folder.rstrip("/"))
    return Place(host, submit, job_header, folder, clean_up, ssh)


def fetched(place: Place, command: str, text: str) -> Ran:
    """The result of running `command` on the input `text` there, however many visits that takes.

    Raises LabelingFailed: `infrastructure` where the connection or the job was lost, `timeout` or
    `out_of_memory` where the scheduler says that the job was ended for that.
    """
    digest = hashlib.sha256(f"{command}\0{text}".encode()).hexdigest()[:32]
    folder = f"{place.remote_folder}/{digest}"
    while True:
        sections = _visit(place, lambda token: _task(place, folder, command, text, token))
        state, _, value = sections["state"][0].partition(" ")
        log = sections.get("log", ("", ""))[1][-4000:]
        if state == "finished":
            left, output = sections["output"]
            return Ran(int(value), output if left else None, log, folder)
        if state == "lost":
            raise _lost(place, folder, value, log)
        if state == "refused":
            raise LabelingFailed("infrastructure", f"{_name(place)}: cannot write in {folder}")


def settle(place: Place, ran: Ran, *, good: bool) -> None:
    """Remove the folder of a call whose labels are here, or put it aside if something was wrong.

    A connection that is lost now is no harm: the folder stays.
    """
    if place.here or not ran.folder or (good and place.clean_up == "never"):
        return
    task = _REMOVE if good else _PUT_ASIDE
    with contextlib.suppress(LabelingFailed):
        _visit(place, lambda token: _filled(task, {"FOLDER": ran.folder, "TOKEN": token}))


def _name(place: Place) -> str:
    return place.host or "this machine"


def _visit(place: Place, script: Callable[[str], str]) -> dict[str, tuple[str, str]]:
    """Run `script(token)` there; its answer by sections: (what stands behind the name, text).

    Raises LabelingFailed("infrastructure") where the connection was lost, BadInput without ssh.
    """
    token = uuid.uuid4().hex
    program = [*shlex.split(place.ssh), place.host, "sh -s"] if place.host else ["sh", "-s"]
    try:
        done = subprocess.run(
            program,
            input=script(token).encode(),
            capture_output=True,
            timeout=VISIT_SECONDS + SILENCE_SECONDS,
        )
    except FileNotFoundError:
        raise BadInput(f"ssh: there is no program `{program[0]}` on PATH") from None
    except subprocess.TimeoutExpired:
        message = f"{_name(place)} has not answered for {SILENCE_SECONDS} s"
        raise LabelingFailed("infrastructure", message) from None
    sections: dict[str, tuple[str, str]] = {}
    for part in done.stdout.decode(errors="replace").split(f"\n{token} ")[1:]:
        mark, _, text = part.partition("\n")
        name, _, value = mark.partition(" ")
        sections[name] = value, text
    if "done" not in sections:
        complaint = done.stderr.decode(errors="replace").strip()[-1000:]
        last = (complaint.splitlines() or [f"exit status {done.returncode}"])[-1]
        message = f"the connection to {_name(place)} was lost: {last}"
        raise LabelingFailed("infrastructure", message, complaint)
    return sections


def _lost(place: Place, folder: str, why: str, log: str) -> LabelingFailed:
    """The failure of a job that ended without a word of its own."""
    kind = "out_of_memory" if kind_of(log) == "out_of_memory" else "infrastructure"
    if any(words in log.lower() for words in ("time limit", "walltime", "term_runlimit")):
        kind = "timeout"
    return LabelingFailed(kind, f"{_name(place)}: {why}; see {folder}.failed there", log)


def _task(place: Place, folder: str, command: str, text: str, token: str) -> str:
    """The script that submits a call unless that was done before, waits for it and answers."""
    header = list(place.job_header)
    first = header.pop(0) if header and header[0].startswith("#!") else "#!/bin/sh"
    return _filled(
        _TASK,
        {
            "FOLDER": folder,
            "TOKEN": token,
            "HEADER": "\n".join([first, *header]),
            "COMMAND": command,
            "SUBMIT": (place.submit or "sh {script}").replace("{script}", "job.sh"),
            "QUEUED": "yes" if place.submit else "",
            "VISIT": str(VISIT_SECONDS),
            "GRACE": str(GRACE_SECONDS),
            "INPUT_NAME": INPUT,
            "OUTPUT_NAME": OUTPUT,
            "INPUT": text,  # last, for it is not ours: nothing in it is filled in
        },
    )


def _filled(script: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        script = script.replace(f"@{name}@", value)
    return script


_REMOVE = """\
alj() { cd && rm -rf "@FOLDER@" && printf '\\n%s done\\n' @TOKEN@; }
alj </dev/null
"""

_PUT_ASIDE = """\
alj() {
    cd && rm -rf "@FOLDER@.failed"
    mv "@FOLDER@" "@FOLDER@.failed" && printf '\\n%s done\\n' @TOKEN@
}
alj </dev/null
"""

_TASK = """\
say() { printf '\\n%s %s\\n' @TOKEN@ "$1"; }
words() {
    say log
    for file in submit.log log *.out *.err *.o[0-9]* *.e[0-9]*; do
        if [ -s "$file" ]; then echo "--- $file"; tail -c 1500 "$file"; echo; fi
    done
}
lost() {
    say "state lost $1"; words; say done
    cd && rm -rf "@FOLDER@.failed" && mv "@FOLDER@" "@FOLDER@.failed"
}
gone() {
    [ -e submit_status ] && return 1
    [ -n "@QUEUED@" ] && [ -s submit.log ] && return 1
    [ -s claim/by ] || return 0
    read -r machine number < claim/by
    [ "$machine" = "$(uname -n)" ] || return 1
    kill -0 "$number" 2>/dev/null || return 0
    case "$(ps -o stat= -p "$number" 2>/dev/null)" in Z*) return 0 ;; esac
    return 1
}
submit() {
    cat > @INPUT_NAME@ <<'end_@TOKEN@'
@INPUT@end_@TOKEN@
    { cat <<'end_@TOKEN@'
@HEADER@
end_@TOKEN@
    printf 'cd "%s" || exit 1\\n' "$PWD"
    cat <<'end_@TOKEN@'
(
@COMMAND@
) > log 2>&1 </dev/null
echo $? > exit_status.new
mv exit_status.new exit_status
end_@TOKEN@
    } > job.sh
    cat > submit.sh <<'end_@TOKEN@'
echo "$(uname -n) $$" > claim/by
@SUBMIT@ > submit.log 2>&1
echo $? > submit_status.new
mv submit_status.new submit_status
end_@TOKEN@
    if command -v setsid >/dev/null; then
        setsid sh submit.sh >/dev/null 2>&1 </dev/null &
    else
        nohup sh submit.sh >/dev/null 2>&1 </dev/null &
    fi
}
alj() {
    { cd && mkdir -p "@FOLDER@" && cd "@FOLDER@"; } || { say "state refused"; say done; return; }
    if [ ! -e exit_status ] && mkdir claim 2>/dev/null; then submit; fi
    waited=0
    ended=0
    while [ ! -s exit_status ]; do
        pause=$((waited < 30 ? 1 : 5))
        if [ -e submit_status ] && [ "$(cat submit_status)" != 0 ]; then
            ended=$((ended + pause)); why="the job ended, or was refused, before its command did"
        elif gone; then
            ended=$((ended + pause)); why="the job was lost before it was submitted, or ran"
        else
            ended=0
        fi
        if [ "$ended" -gt @GRACE@ ]; then lost "$why"; return; fi
        if [ "$waited" -ge @VISIT@ ]; then say "state running"; say done; return; fi
        say waiting
        sleep "$pause"
        waited=$((waited + pause))
    done
    say "state finished $(cat exit_status)"
    words
    if [ -e @OUTPUT_NAME@ ]; then say "output yes"; cat @OUTPUT_NAME@; else say output; fi
    say done
}
alj </dev/null
"""
