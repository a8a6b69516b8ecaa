"""Published data sets as they are downloaded: archives, folders and zips, read member by member.

A member `dsgdb9nsd_000001.xyz` is a molecule of QM9 (`qm9`), a member `….npz` is a set of padded
arrays such as N-ASW (`padded_arrays`); others, such as a readme, are passed over. Nothing is
unpacked onto the disk, and one member at a time is in memory. HDF5 files of ANI (`ani`) are read
alone or from a folder, but not out of an archive, for HDF5 jumps to and fro.

A list `uncharacterized.txt` beside (or, of a folder, in) the molecules of QM9 leaves out those
whose numbers it gives.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from lzma import LZMAError
from pathlib import Path

import ase

from alj.campaign import ani, padded_arrays, qm9
from alj.types import BadInput

_TAR = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError)
LISTED = "uncharacterized.txt"


def holds(path: Path) -> bool:
    """Whether a path is to be read here, rather than by ASE."""
    if path.is_dir():
        return any(_known(member.name) or ani.holds(member) for member in path.iterdir())
    if ani.holds(path):
        return True
    return path.suffix.lower() in (".npz", ".zip") or path.name.lower().endswith(_TAR)


def atoms_in(path: Path) -> Iterator[ase.Atoms]:
    """The structures of an archive, one after another; labels have `REF_` keys, in eV and Å.

    Raises BadInput for what is damaged, and where there is no member that can be read.
    """
    excluded, found = left_out(path), 0
    if files := ani_files(path):
        for file in files:
            yield from ani.atoms_of(file)
        return
    try:
        for name, content in _members(path):
            if name.endswith(".npz"):
                several = path.suffix.lower() != ".npz"
                kind = Path(name).stem if several else None
                place = f"{path}: {name}" if several else str(path)
                for atoms in padded_arrays.atoms_of(content, place, kind):
                    found += 1
                    yield atoms
            elif qm9.number_of(name) not in excluded:
                found += 1
                yield qm9.molecule_of(content, f"{path}: {name}")
    except _DAMAGED as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"{path}: expected a whole archive, found one that is damaged or cut off after "
            f"{found} structures ({reason}); download it again"
        ) from None
    if not found:
        raise BadInput(
            f"{path}: expected members such as dsgdb9nsd_000001.xyz (QM9) or arrays.npz, found "
            f"{_listing(path)}; unpack it and give the file of structures in it"
        )


def ani_files(path: Path) -> list[Path]:
    """The HDF5 files of ANI that a path stands for, in the order of their names."""
    if path.is_dir():
        return sorted(member for member in path.iterdir() if ani.holds(member))
    return [path] if ani.holds(path) else []


def left_out(path: Path) -> frozenset[int]:
    """The numbers of molecules of QM9 that a list beside or in `path` leaves out."""
    if path.suffix.lower() in (".npz", ".h5", ".hdf5"):
        return frozenset()
    listed = (path if path.is_dir() else path.parent) / LISTED
    return qm9.numbers_in(listed.read_text(encoding="utf-8")) if listed.is_file() else frozenset()


def note(path: Path) -> str:
    """What was left out of a data set, to be told; empty where nothing was."""
    listed = len(left_out(path)) if holds(path) else 0
    return f"; without the {listed} molecules that {LISTED} lists" if listed else ""


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the members that can be read, in the order of the archive."""
    if path.is_dir():
        for member in sorted(path.iterdir()):
            if _known(member.name):
                yield member.name, member.read_bytes()
    elif path.suffix.lower() == ".npz":
        yield path.name.lower(), path.read_bytes()
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in filter(_known, archive.namelist()):
                yield name, archive.read(name)
    else:
        # as a stream: an archive of 133885 members is gone through once, and not listed before
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] # else it keeps
                if member.isfile() and _known(member.name):
                    content = archive.extractfile(member)
                    yield member.name, content.read() if content else b""


def _known(name: str) -> bool:
    last = Path(name).name
    ours = last.endswith(".npz") or qm9.number_of(last) is not None
    return ours and not last.startswith(".")  # what another system writes beside each file


def _listing(path: Path) -> str:
    """The first members of an archive, in words."""
    if path.is_dir():
        names = sorted(member.name for member in path.iterdir())
    elif path.suffix.lower() == ".zip":
        names = zipfile.ZipFile(path).namelist()
    else:
        with tarfile.open(path, "r|*") as archive:
            names = [member.name for member in islice(archive, 4)]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") or "none"
