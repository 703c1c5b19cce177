"""How greentaps is packaged. The tools' settings are in pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = runpy.run_path(str(HERE / "lib" / "greentaps" / "_version.py"))["__version__"]

EXTRAS = {
    # setuptools: the tests of deps/pyuv build with it
    "test": [
        "pytest>=9.0",
        "hypothesis>=6.100",
        "setuptools>=70.1",
        "h11>=0.16",
        "wsproto>=1.2",
        "websockets>=13",
        "rich>=13.0",
        "dnspython>=2.7",
        "aioice>=0.13",
    ],
    "http": ["h11>=0.16"],
    "ice": ["aioice>=0.13"],
    "websocket": ["wsproto>=1.2", "h11>=0.16"],
    "dns": ["dnspython>=2.7"],
    "docs": ["sphinx>=8.0"],
    "demo": ["rich>=13.0"],
    "lint": ["ruff>=0.14"],
    "types": ["mypy>=1.18", "types-gevent", "dnspython>=2.7"],
    # what the benchmarks compare us with
    "bench": ["uvloop>=0.21", "trio>=0.27"],
}
EXTRAS["dev"] = sorted({need for needs in EXTRAS.values() for need in needs} | {"tox>=4.20"})

setup(
    name="greentaps",
    version=VERSION,
    description="Transport services (RFC 9622) in blocking style, on greenlets",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="greentaps contributors",
    license="MIT",
    license_files=["LICENSE"],
    keywords="taps transport greenlet gevent libuv pyuv quic tls multipath",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Internet",
        "Topic :: Software Development :: Libraries",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    package_dir={"": "lib"},
    packages=find_packages("lib"),
    package_data={"greentaps": ["py.typed"]},
    install_requires=[
        "gevent>=24.2",
        "greenlet>=3.0",
        "pyuv>=1.4",
        "pyopenssl>=24.2",
        "cryptography>=43",
        "service_identity>=24.1",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["greentaps = greentaps.cli:main"]},
    zip_safe=False,
)
