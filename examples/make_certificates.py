"""Make ca.pem and server.pem to try the TLS examples with: ``python make_certificates.py [DIR]``.

They are for localhost, last a few hours, and are not for production.
"""

import sys

from greentaps.certificates import CertificateAuthority


def main(folder="."):
    authority = CertificateAuthority()
    print("trust    ", authority.write(folder, "ca"))
    print("identity ", authority.issue("localhost", "127.0.0.1").write(folder, "server"))


if __name__ == "__main__":
    main(*sys.argv[1:])
