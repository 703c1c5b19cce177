"""A PEP 517 build backend that makes a wheel of pyuv 1.4.0 for CPython 3.10 - 3.13.

It takes the published source distribution (by its SHA-256, so nothing else can
slip in), puts ``pyuv_compat.h`` in front of its C source, compiles that against
libuv, and hands back an ordinary wheel. In the order in which they happen:

    check_python      a CPython with a GIL
    obtain_sdist      from a given path, else the cache, else an index through pip
    check_compiler    a C compiler that works, and Python's headers
    choose_libuv      the system's where it can be built against, else the one in the sdist
    build             setuptools does the rest

Whatever a person can mend ends in a `BuildError` that says how.

Three environment variables steer it:

    GREENTAPS_PYUV_SDIST   path of pyuv-1.4.0.tar.gz (no index is asked then)
    GREENTAPS_PYUV_LIBUV   "system" or "bundled" (default: system if possible)
    GREENTAPS_PYUV_CACHE   directory to keep the source distribution in
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PYUV_VERSION = "1.4.0"
VERSION = PYUV_VERSION + "+greentaps.1"
SDIST_NAME = f"pyuv-{PYUV_VERSION}.tar.gz"
SDIST_SHA256 = "caea2004d1125fe17cbde3c211c8abc72844e9b8dd7dfa007711e98fbc96fbc2"
OLDEST_LIBUV = (1, 13)  # what the sdist bundles, so what its source was written for

SDIST_VARIABLE = "GREENTAPS_PYUV_SDIST"
LIBUV_VARIABLE = "GREENTAPS_PYUV_LIBUV"
CACHE_VARIABLE = "GREENTAPS_PYUV_CACHE"

HERE = Path(__file__).resolve().parent


class BuildError(SystemExit):
    """Something that the person at the keyboard can mend; the text says how.

    A SystemExit, because a front end then shows the text alone, without the
    traceback through three programs that would bury it.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(("pyuv cannot be built here.", *lines)))


# -- the hooks -------------------------------------------------------------------


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    check_python()
    with tempfile.TemporaryDirectory(prefix="pyuv-build-") as name:
        work = Path(name)
        sdist = obtain_sdist(work / "download")
        check_compiler(work)
        libuv = choose_libuv(work)
        return build(unpack(sdist, work), libuv, Path(wheel_directory).resolve())


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """Pack this directory; the published sdist is not part of it."""
    base = f"pyuv-{VERSION}"
    target = Path(sdist_directory, base + ".tar.gz")
    info = HERE.parent / "PKG-INFO"
    with tarfile.open(target, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(HERE.parent.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path != info:
                archive.add(path, f"{base}/{path.relative_to(HERE.parent).as_posix()}")
        with tempfile.TemporaryDirectory() as name:
            made = Path(name, "PKG-INFO")
            made.write_text(f"Metadata-Version: 2.1\nName: pyuv\nVersion: {VERSION}\n")
            archive.add(made, f"{base}/PKG-INFO")
    return target.name


# -- the interpreter -------------------------------------------------------------


def is_free_threaded() -> bool:
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def check_python() -> None:
    if sys.implementation.name != "cpython" or sys.version_info < (3, 10):
        raise BuildError(
            f"This is {sys.implementation.name} {sys.version.split()[0]}.",
            "Use CPython 3.10, 3.11, 3.12 or 3.13.",
        )
    if is_free_threaded():
        raise BuildError(
            "This is a free-threaded CPython, and pyuv relies on the GIL.",
            f"Use the ordinary build of Python {sys.version_info[0]}.{sys.version_info[1]}"
            " (the program without the 't' at the end of its name).",
        )


# -- the source distribution -----------------------------------------------------


def obtain_sdist(scratch: Path) -> Path:
    """The path of the verified source distribution."""
    given = os.environ.get(SDIST_VARIABLE)
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            raise BuildError(
                f"{SDIST_VARIABLE} names {given}, and there is no such file.",
                f"Point it at {SDIST_NAME}, or unset it to have pip download that.",
            )
        verify(path, f"the file named by {SDIST_VARIABLE}")
        return path

    kept = cache_directory() / SDIST_NAME
    if kept.is_file() and sha256(kept) == SDIST_SHA256:
        return kept
    path = download(scratch)
    verify(path, "what pip downloaded")
    with contextlib.suppress(OSError):  # a cache that cannot be written is no error
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{SDIST_NAME}.{os.getpid()}")
        shutil.copyfile(path, part)
        part.replace(kept)
    return path


def cache_directory() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "greentaps")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(path: Path, what: str) -> None:
    found = sha256(path)
    if found != SDIST_SHA256:
        raise BuildError(
            f"The SHA-256 of {path} ({what}) is wrong:",
            f"    expected {SDIST_SHA256}",
            f"    found    {found}",
            f"Only {SDIST_NAME} as it was published will do. Remove this file and fetch that one.",
        )


def download(scratch: Path) -> Path:
    """Let pip fetch the source distribution, from wherever pip is set up to fetch.

    pip always runs the setup.py of a source distribution, even if it is to be
    downloaded only. Stating the hash makes pip compare it first.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"pyuv=={PYUV_VERSION} --hash=sha256:{SDIST_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet"]
    command += ["--no-deps", "--no-binary", "pyuv", "--no-build-isolation", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(wanted)]
    # pip may be our caller; its tracker of running builds is not for this call.
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_TRACKER")}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    path = scratch / SDIST_NAME
    if done.returncode != 0 or not path.is_file():
        raise BuildError(
            f"pip could not download {SDIST_NAME}. It said:",
            *("    " + line for line in done.stdout.splitlines()[-12:]),
            "Without access to an index, fetch that file elsewhere and run again with",
            f"    {SDIST_VARIABLE}=/path/to/{SDIST_NAME}",
        )
    return path


def unpack(sdist: Path, work: Path) -> Path:
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(work, filter="data")
        else:  # 3.10 and 3.11 before their last bug-fix releases
            archive.extractall(work)
    return work / f"pyuv-{PYUV_VERSION}"


# -- the compiler ----------------------------------------------------------------


def make_compiler() -> Any:
    """distutils' idea of the compiler, with CC, CFLAGS and LDFLAGS obeyed."""
    import setuptools  # noqa: F401  (first, because it brings distutils along)

    # isort: split
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler

    compiler = new_compiler()
    customize_compiler(compiler)
    return compiler


def pick_compiler() -> None:
    """See that CC, or else the compiler that this Python was built with, is there.

    A Python that was built elsewhere may name one that this machine does not
    have; any other will do then.
    """
    asked = os.environ.get("CC")
    command = shlex.split(asked or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(command):
        return
    for other in () if asked else ("cc", "gcc", "clang"):
        if shutil.which(other):
            os.environ["CC"] = other
            return
    raise BuildError(
        f"There is no C compiler: {command!r} was not found.",
        "Install one (on Debian: apt-get install gcc libc6-dev), or set CC to yours.",
    )


def check_compiler(work: Path) -> None:
    if sys.platform != "win32":
        pick_compiler()
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        raise BuildError(
            f"Python's own C headers are missing: no {header}.",
            f"Install them (on Debian: apt-get install {name}-dev).",
        )
    if try_program(work, SMALL_PROGRAM) is None:
        raise BuildError(
            "The C compiler does not manage a program of two lines.",
            "Its complaint is above. On Debian, gcc needs libc6-dev beside it.",
        )


SMALL_PROGRAM = """\
#include <stdio.h>
int main(void) { return puts("ok") < 0; }
"""


def try_program(
    work: Path,
    text: str,
    *,
    include_dirs: Sequence[str] = (),
    library_dirs: Sequence[str] = (),
    libraries: Sequence[str] = (),
    quiet: bool = False,
) -> str | None:
    """Compile, link and run a little C program: what it printed, or None."""
    compiler = make_compiler()
    from distutils.errors import CCompilerError, DistutilsExecError

    folder = Path(tempfile.mkdtemp(dir=work))
    source = folder / "try.c"
    source.write_text(text)
    with hidden_output() if quiet else contextlib.nullcontext():
        try:
            made = compiler.compile(
                [str(source)], output_dir=str(folder), include_dirs=list(include_dirs)
            )
            compiler.link_executable(
                made,
                str(folder / "try"),
                libraries=list(libraries),
                library_dirs=list(library_dirs),
                runtime_library_dirs=[],
            )
        except (CCompilerError, DistutilsExecError):
            return None
    program = folder / compiler.executable_filename("try")
    try:
        done = subprocess.run([str(program)], stdout=subprocess.PIPE, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@contextlib.contextmanager
def hidden_output() -> Iterator[None]:
    """Silence this process and its children: a failing probe is not news."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)


# -- libuv -----------------------------------------------------------------------


class Libuv(NamedTuple):
    """Which libuv to build against. The last two only matter for the system's."""

    kind: str  # "system" or "bundled"
    version: str
    include_dirs: tuple[str, ...] = ()
    library_dirs: tuple[str, ...] = ()


def wanted_libuv() -> str:
    wish = os.environ.get(LIBUV_VARIABLE, "").strip().lower() or "auto"
    if wish not in ("auto", "system", "bundled"):
        raise BuildError(f"{LIBUV_VARIABLE} is {wish!r}; it can be 'system', 'bundled' or unset.")
    return wish


def choose_libuv(work: Path) -> Libuv:
    wish = wanted_libuv()
    bundled = Libuv("bundled", "")  # its version is read from the sdist
    if wish == "bundled":
        return bundled
    found = find_system_libuv(work)
    if found is not None:
        return found
    if wish == "auto":
        return bundled
    raise BuildError(
        f"{LIBUV_VARIABLE} asks for the system's libuv, but no program can be built with"
        f" libuv {OLDEST_LIBUV[0]}.{OLDEST_LIBUV[1]} or later.",
        "Install its headers (on Debian: apt-get install libuv1-dev),",
        f"or unset {LIBUV_VARIABLE} to use the libuv that comes with pyuv.",
    )


PROBE = """\
#include <stdio.h>
#include <uv.h>
int main(void) {
    uv_loop_t loop;
    if (UV_VERSION_HEX >> 8 != uv_version() >> 8) return 1;  /* headers of another libuv */
    if (uv_loop_init(&loop) != 0 || uv_loop_close(&loop) != 0) return 1;
    return puts(uv_version_string()) < 0;
}
"""


def find_system_libuv(work: Path) -> Libuv | None:
    include_dirs, library_dirs = pkg_config("libuv")
    version = try_program(
        work,
        PROBE,
        include_dirs=include_dirs,
        library_dirs=library_dirs,
        libraries=["uv"],
        quiet=True,
    )
    if version is None:
        return None
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2])
    if numbers[0] != OLDEST_LIBUV[0] or numbers < OLDEST_LIBUV:
        return None
    return Libuv("system", version, include_dirs, library_dirs)


def pkg_config(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Directories with headers and libraries; empty if pkg-config has nothing to say."""
    program = os.environ.get("PKG_CONFIG", "pkg-config")
    try:
        done = subprocess.run(
            [program, "--cflags-only-I", "--libs-only-L", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        return (), ()
    words = done.stdout.split() if done.returncode == 0 else []
    return (
        tuple(word[2:] for word in words if word.startswith("-I")),
        tuple(word[2:] for word in words if word.startswith("-L")),
    )


def bundled_version(tree: Path) -> str:
    numbers = {}
    for line in (tree / "deps/libuv/include/uv-version.h").read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "#define" and words[2].isdigit():
            numbers[words[1]] = words[2]
    return ".".join(numbers["UV_VERSION_" + part] for part in ("MAJOR", "MINOR", "PATCH"))


# -- the wheel -------------------------------------------------------------------

# pyuv is one translation unit (pyuv.c includes the other files), so putting the
# header before it takes no compiler option and touches nothing else.
FRONT = '#include "pyuv_compat.h"\n#include "pyuv.c"\n'

RECORD = '''\
"""How this pyuv was built."""

PACKAGE_VERSION = {package!r}
PYUV_VERSION = {pyuv!r}
SDIST_SHA256 = {sha256!r}
LIBUV = {kind!r}  # "system" or "bundled"
LIBUV_VERSION = {libuv!r}  # at build time; pyuv.LIBUV_VERSION is the one in use
'''


def build(tree: Path, libuv: Libuv, wheel_directory: Path) -> str:
    import setuptools

    if libuv.kind == "bundled":
        libuv = libuv._replace(version=bundled_version(tree))
    print(f"pyuv {VERSION}: building with the {libuv.kind} libuv {libuv.version}", flush=True)

    shutil.copy(HERE / "pyuv_compat.h", tree / "src")
    (tree / "src/pyuv_front.c").write_text(FRONT)
    (tree / "_pyuv_build.py").write_text(
        RECORD.format(
            package=VERSION,
            pyuv=PYUV_VERSION,
            sha256=SDIST_SHA256,
            kind=libuv.kind,
            libuv=libuv.version,
        )
    )
    extension = setuptools.Extension(
        "pyuv._cpyuv",
        sources=["src/pyuv_front.c"],
        include_dirs=["src", *libuv.include_dirs],
        library_dirs=list(libuv.library_dirs),
        **options_for(libuv),
    )
    dist = tree / "dist"
    with inside(tree):
        from setup_libuv import libuv_build_ext  # the sdist's: it lists libuv's own sources

        setuptools.setup(
            name="pyuv",
            version=VERSION,
            description="Python interface for libuv (pyuv 1.4.0, built for CPython 3.10 - 3.13)",
            author="Saúl Ibarra Corretgé",
            license="MIT",
            license_files=["LICENSE"],
            python_requires=">=3.10",
            packages=["pyuv"],
            py_modules=["_pyuv_build"],
            ext_modules=[extension],
            cmdclass={"build_ext": libuv_build_ext},
            options={
                "build_ext": {"use_system_libuv": int(libuv.kind == "system")},
                "bdist_wheel": {"dist_dir": str(dist)},
            },
            script_name="setup.py",
            script_args=["--quiet", "bdist_wheel"],
        )
    (made,) = dist.glob("*.whl")
    shutil.copy(made, wheel_directory)
    return made.name


def options_for(libuv: Libuv) -> dict[str, list[str]]:
    """Extra compiler and linker options: the system's libuv needs none."""
    if libuv.kind == "system" or sys.platform == "win32":
        return {}
    # libuv 1.13 walks its queues through pointers of another type.
    options = {"extra_compile_args": ["-fno-strict-aliasing"]}
    if sys.platform.startswith("linux"):
        # It must call itself even inside a program that has a libuv of its own.
        options["extra_link_args"] = ["-Wl,-Bsymbolic"]
    return options


@contextlib.contextmanager
def inside(tree: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    try:
        yield
    finally:
        sys.path.remove(str(tree))
        sys.modules.pop("setup_libuv", None)
        os.chdir(before)
