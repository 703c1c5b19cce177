"""The build backend in deps/pyuv: what it refuses, how it says so, which libuv it picks.

Only the tests marked slow compile pyuv, and only if its source distribution is already in the
cache: nothing here uses the network.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parents[2] / "deps" / "pyuv"

# An echo over TCP on the loopback interface, in one process.
ECHO = """
import pyuv, _pyuv_build

loop = pyuv.Loop()
answers = []

def accepted(listener, error):
    peer = pyuv.TCP(loop)
    listener.accept(peer)
    peer.start_read(lambda h, data, error: h.close() if data is None else h.write(data))

def answered(handle, data, error):
    answers.append(data)
    handle.close()
    listener.close()

def connected(handle, error):
    assert error is None, error
    handle.start_read(answered)
    handle.write(b"are you there?")

listener = pyuv.TCP(loop)
listener.bind(("127.0.0.1", 0))
listener.listen(accepted)
client = pyuv.TCP(loop)
client.connect(listener.getsockname(), connected)
loop.run()
assert answers == [b"are you there?"], answers
assert pyuv.LIBUV_VERSION.startswith(_pyuv_build.LIBUV_VERSION), pyuv.LIBUV_VERSION
print(_pyuv_build.LIBUV)
"""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The backend, freshly imported, with an empty cache and no variable that steers it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location(
        "pyuv_backend_under_test", SOURCE / "backend" / "pyuv_backend.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for name in (module.SDIST_VARIABLE, module.LIBUV_VARIABLE, "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(module.CACHE_VARIABLE, str(tmp_path / "cache"))
    return module


@pytest.fixture
def fake_sdist(backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that is not pyuv, but that the backend takes for it."""
    path = tmp_path / "elsewhere" / backend.SDIST_NAME
    path.parent.mkdir()
    path.write_bytes(b"not really a tar file")
    monkeypatch.setattr(backend, "SDIST_SHA256", backend.sha256(path))
    return path


def no_download(scratch: Path) -> Path:
    raise AssertionError("nothing may be downloaded here")


# -- the source distribution -----------------------------------------------------


def test_a_wrong_hash_is_refused(backend, monkeypatch, tmp_path):
    path = tmp_path / "pyuv-1.4.0.tar.gz"
    path.write_bytes(b"something else")
    monkeypatch.setenv(backend.SDIST_VARIABLE, str(path))
    with pytest.raises(backend.BuildError) as caught:
        backend.build_wheel(str(tmp_path))
    text = str(caught.value)
    assert "SHA-256" in text
    assert str(path) in text
    assert backend.SDIST_SHA256 in text
    assert backend.sha256(path) in text
    assert list(tmp_path.glob("*.whl")) == []


def test_a_path_that_leads_nowhere_is_named(backend, monkeypatch, tmp_path):
    monkeypatch.setenv(backend.SDIST_VARIABLE, str(tmp_path / "absent.tar.gz"))
    with pytest.raises(backend.BuildError, match=r"absent\.tar\.gz.* no such file"):
        backend.obtain_sdist(tmp_path / "scratch")


def test_a_given_file_needs_no_download(backend, fake_sdist, monkeypatch, tmp_path):
    monkeypatch.setattr(backend, "download", no_download)
    monkeypatch.setenv(backend.SDIST_VARIABLE, str(fake_sdist))
    assert backend.obtain_sdist(tmp_path / "scratch") == fake_sdist


def test_a_download_is_kept_and_used_again(backend, fake_sdist, monkeypatch, tmp_path):
    monkeypatch.setattr(backend, "download", lambda scratch: fake_sdist)
    assert backend.obtain_sdist(tmp_path / "scratch") == fake_sdist
    monkeypatch.setattr(backend, "download", no_download)
    kept = backend.obtain_sdist(tmp_path / "scratch")
    assert kept.parent == tmp_path / "cache"
    assert kept.read_bytes() == fake_sdist.read_bytes()


def test_a_damaged_cache_is_replaced(backend, fake_sdist, monkeypatch, tmp_path):
    kept = backend.cache_directory() / backend.SDIST_NAME
    kept.parent.mkdir()
    kept.write_bytes(b"half a fi")
    monkeypatch.setattr(backend, "download", lambda scratch: fake_sdist)
    backend.obtain_sdist(tmp_path / "scratch")
    assert kept.read_bytes() == fake_sdist.read_bytes()


def test_a_cache_that_cannot_be_written_is_done_without(backend, fake_sdist, monkeypatch, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the directory should be")
    monkeypatch.setattr(backend, "download", lambda scratch: fake_sdist)
    assert backend.obtain_sdist(tmp_path / "scratch") == fake_sdist


def test_a_wrong_download_is_refused_and_not_kept(backend, monkeypatch, tmp_path):
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(b"something else")
    monkeypatch.setattr(backend, "download", lambda scratch: wrong)
    with pytest.raises(backend.BuildError, match="SHA-256"):
        backend.obtain_sdist(tmp_path / "scratch")
    assert not backend.cache_directory().exists()


def test_pip_is_told_the_hash_so_that_it_runs_nothing_else(backend, monkeypatch, tmp_path):
    seen = []

    def run(command, **options):
        requirements = Path(command[command.index("--requirement") + 1]).read_text()
        seen.append((command, options["env"], requirements))
        (tmp_path / backend.SDIST_NAME).write_bytes(b"")
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("PIP_BUILD_TRACKER", "of the pip that called us")
    assert backend.download(tmp_path) == tmp_path / backend.SDIST_NAME
    ((command, environment, requirements),) = seen
    assert "--require-hashes" in command
    assert requirements.split() == ["pyuv==1.4.0", f"--hash=sha256:{backend.SDIST_SHA256}"]
    assert "PIP_BUILD_TRACKER" not in environment


def test_without_an_index_the_message_says_what_to_do(backend, monkeypatch, tmp_path):
    pytest.importorskip("pip", reason="needs pip, to see it fail")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    with pytest.raises(backend.BuildError) as caught:
        backend.download(tmp_path)
    assert f"{backend.SDIST_VARIABLE}=/path/to/{backend.SDIST_NAME}" in str(caught.value)
    assert "pyuv==1.4.0" in str(caught.value)


# -- the interpreter and the compiler --------------------------------------------


def test_free_threaded_python_is_refused(backend, monkeypatch, tmp_path):
    ask = sysconfig.get_config_var
    monkeypatch.setattr(
        sysconfig, "get_config_var", lambda name: 1 if name == "Py_GIL_DISABLED" else ask(name)
    )
    with pytest.raises(backend.BuildError, match=r"free-threaded[\s\S]*ordinary build"):
        backend.build_wheel(str(tmp_path))


def test_an_old_python_is_refused(backend, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(backend.BuildError, match=r"CPython 3\.10"):
        backend.check_python()


def test_this_python_is_accepted(backend):
    backend.check_python()


def test_a_missing_compiler_is_named(backend, fake_sdist, monkeypatch, tmp_path):
    monkeypatch.setenv(backend.SDIST_VARIABLE, str(fake_sdist))
    monkeypatch.setenv("CC", "/nonexistent/cc -pipe")
    with pytest.raises(backend.BuildError) as caught:
        backend.build_wheel(str(tmp_path))
    text = str(caught.value)
    assert "no C compiler" in text
    assert "'/nonexistent/cc'" in text
    assert "apt-get install gcc" in text


def test_another_compiler_is_taken_when_pythons_own_is_absent(backend, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "/where/python/was/built/cc")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "gcc" else None)
    monkeypatch.setenv("CC", "")
    backend.pick_compiler()
    assert os.environ["CC"] == "gcc"


def test_missing_python_headers_are_named(backend, monkeypatch, tmp_path):
    monkeypatch.setattr(backend, "pick_compiler", lambda: None)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(backend.BuildError, match=r"C headers[\s\S]*apt-get install python3.*-dev"):
        backend.check_compiler(tmp_path)


def test_a_compiler_that_does_not_work_is_reported(backend, monkeypatch, tmp_path):
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(backend, "pick_compiler", lambda: None)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(backend, "try_program", lambda work, text: None)
    with pytest.raises(backend.BuildError, match="libc6-dev"):
        backend.check_compiler(tmp_path)


# -- which libuv -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "there", "kind"),
    [
        ("", True, "system"),
        ("", False, "bundled"),
        ("system", True, "system"),
        ("System ", True, "system"),
        ("bundled", True, "bundled"),
        ("bundled", False, "bundled"),
    ],
)
def test_the_choice_of_libuv(backend, monkeypatch, tmp_path, wish, there, kind):
    found = backend.Libuv("system", "1.44.2") if there else None
    monkeypatch.setattr(backend, "find_system_libuv", lambda work: found)
    monkeypatch.setenv(backend.LIBUV_VARIABLE, wish)
    assert backend.choose_libuv(tmp_path).kind == kind


def test_a_system_libuv_that_is_asked_for_must_be_there(backend, monkeypatch, tmp_path):
    monkeypatch.setattr(backend, "find_system_libuv", lambda work: None)
    monkeypatch.setenv(backend.LIBUV_VARIABLE, "system")
    with pytest.raises(backend.BuildError, match="apt-get install libuv1-dev"):
        backend.choose_libuv(tmp_path)


def test_a_libuv_that_does_not_exist_is_refused(backend, monkeypatch):
    monkeypatch.setenv(backend.LIBUV_VARIABLE, "static")
    with pytest.raises(backend.BuildError, match="'system', 'bundled' or unset"):
        backend.wanted_libuv()


@pytest.mark.parametrize(
    ("printed", "taken"),
    [
        (None, False),
        ("1.12.0", False),
        ("1.13.0", True),
        ("1.44.2", True),
        ("1.51.1-dev", True),
        ("2.0.0", False),
    ],
)
def test_the_age_of_the_system_libuv(backend, monkeypatch, tmp_path, printed, taken):
    monkeypatch.setattr(backend, "pkg_config", lambda name: (("/opt/include",), ("/opt/lib",)))
    monkeypatch.setattr(backend, "try_program", lambda work, text, **options: printed)
    found = backend.find_system_libuv(tmp_path)
    assert (found is not None) is taken
    if taken:
        assert found == ("system", printed, ("/opt/include",), ("/opt/lib",))


def test_no_pkg_config_is_no_error(backend, monkeypatch):
    monkeypatch.setenv("PKG_CONFIG", "/nonexistent/pkg-config")
    assert backend.pkg_config("libuv") == ((), ())


def test_the_bundled_libuvs_version_is_read_from_its_header(backend, tmp_path):
    header = tmp_path / "deps/libuv/include/uv-version.h"
    header.parent.mkdir(parents=True)
    header.write_text(
        "#define UV_VERSION_H\n"
        "#define UV_VERSION_MAJOR 1\n#define UV_VERSION_MINOR 13\n#define UV_VERSION_PATCH 2\n"
        "#define UV_VERSION_HEX  ((UV_VERSION_MAJOR << 16) | \\\n"
    )
    assert backend.bundled_version(tmp_path) == "1.13.2"


# -- the whole -------------------------------------------------------------------


def test_the_source_package_holds_what_a_build_needs(backend, tmp_path):
    name = backend.build_sdist(str(tmp_path))
    assert name == f"pyuv-{backend.VERSION}.tar.gz"
    with tarfile.open(tmp_path / name) as archive:
        names = {member.partition("/")[2] for member in archive.getnames()}
    assert {
        "PKG-INFO",
        "pyproject.toml",
        "backend/pyuv_backend.py",
        "backend/pyuv_compat.h",
    } <= names
    assert not any("__pycache__" in member for member in names)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["system", "bundled"])
def test_a_wheel_is_built_and_works(backend, monkeypatch, tmp_path, kind):
    monkeypatch.delenv(backend.CACHE_VARIABLE)
    sdist = backend.cache_directory() / backend.SDIST_NAME
    if not sdist.is_file():
        pytest.skip(f"{backend.SDIST_NAME} is not in {sdist.parent}")

    wheels = tmp_path / "wheels"
    wheels.mkdir()
    call = f"import pyuv_backend; pyuv_backend.build_wheel({str(wheels)!r})"
    environment = os.environ | {
        "PYTHONPATH": str(SOURCE / "backend"),
        "PYTHONDONTWRITEBYTECODE": "1",
        backend.SDIST_VARIABLE: str(sdist),
        backend.LIBUV_VARIABLE: kind,
    }
    built = subprocess.run(
        [sys.executable, "-c", call], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    if kind == "system" and "apt-get install libuv1-dev" in built.stderr:
        pytest.skip("the headers of the system's libuv are not installed")
    assert built.returncode == 0, built.stdout + built.stderr

    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    ran = subprocess.run(
        [sys.executable, "-c", ECHO],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [kind]
