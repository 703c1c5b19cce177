"""Names: from Endpoints to socket addresses (RFC 9623 section 4.2.1).

`resolving` has the greenlets; `answers` says what may be used when, and `ordering` in which order;
`resolver` is who is asked, the system or, with `dns`, name servers.
"""
