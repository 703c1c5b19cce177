"""Paths: the interfaces of this machine, what changes on them, and what is remembered of the
networks behind them (RFC 9623 sections 4.1.1 and 9).

`survey` is what there is, asked over `netlink`; `watching` and `following` hear of changes;
`history` remembers, `store` in a file, and `caches` forgets.
"""
