"""Rendezvous: two peers who both initiate, through NATs (RFC 9622 section 7.3).

`ice` has the rules of pairs, `stun` the messages to servers and between peers; both pure.
`driver` has the sockets.
"""
