"""Choosing: which ways there are to the peer, in which order, and who wins (RFC 9623 section 4).

`candidates` is the tree, `policy` has its say, `racing` is the race; all pure.  `gathering` and
`establishing` are where they meet the world, `learning` is what earlier races taught, and
`explaining` says why.
"""
